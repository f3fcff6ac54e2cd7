"""The best replacement for a given order: its program, its solution, and one that has addresses."""

from cosma.parameters.replacement import ReplacementParameters
from cosma.replacement.addresses import PackedOrder, pack_order
from cosma.replacement.program import Conflict, Replacement, build_replacement
from cosma.replacement.solve import optimal_replacement, replacement_terms, supports

__all__ = [
    "Conflict",
    "PackedOrder",
    "Replacement",
    "ReplacementParameters",
    "build_replacement",
    "optimal_replacement",
    "pack_order",
    "replacement_terms",
    "supports",
]
