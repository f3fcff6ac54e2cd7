"""Existing methods: orders, replacement and address policies that need no search."""

from cosma.heuristics.existing import EXISTING, Method, parse_method, run_method
from cosma.heuristics.orders import ORDERS, peak_live_bytes

__all__ = ["EXISTING", "ORDERS", "Method", "parse_method", "peak_live_bytes", "run_method"]
