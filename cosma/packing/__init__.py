"""Addresses for buffers with fixed lifetimes: rectangles packed into a scratchpad, exactly.

`pack` answers for one capacity, `minimise` finds the smallest, `verify` judges any packing. Files are read and written
by `cosma.packing.csvfile`, pictures are in `cosma.packing.picture`.
"""

from __future__ import annotations

from cosma.packing.buffers import Buffer, Forbidden, Gap, live_peak, parts_of
from cosma.packing.engine import ENGINES, WORK_LIMIT, pack
from cosma.packing.result import PackingResult, PackingStatus
from cosma.packing.smallest import minimise
from cosma.packing.verify import Violation, verify

__all__ = [
    "ENGINES",
    "WORK_LIMIT",
    "Buffer",
    "Forbidden",
    "Gap",
    "PackingResult",
    "PackingStatus",
    "Violation",
    "live_peak",
    "minimise",
    "pack",
    "parts_of",
    "verify",
]
