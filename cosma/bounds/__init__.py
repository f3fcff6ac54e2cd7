"""Lower bounds on the non-compulsory traffic of any valid plan: certificates."""

from cosma.bounds.bound import Bound
from cosma.bounds.engine import BoundEngine, lower_bound

__all__ = ["Bound", "BoundEngine", "lower_bound"]
