"""Plans with proof: the best replacement for an order, the best order, and addresses by layers."""

from cosma.exact.addresses import PackedOrder, pack_order
from cosma.exact.monolith import check_joint_size, solve_monolith
from cosma.exact.replacement import MOST_REPLACEMENT_TERMS, optimal_replacement, replacement_terms
from cosma.exact.solve import ExactOutcome, solve_exact
from cosma.exact.states import StatesResult, search_states

__all__ = [
    "MOST_REPLACEMENT_TERMS",
    "ExactOutcome",
    "PackedOrder",
    "StatesResult",
    "check_joint_size",
    "optimal_replacement",
    "pack_order",
    "replacement_terms",
    "search_states",
    "solve_exact",
    "solve_monolith",
]
