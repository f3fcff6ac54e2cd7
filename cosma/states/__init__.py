"""Dynamic programming over what lies in the scratchpad: exact order and residency, without addresses."""

from cosma.states.search import StatesResult, search_states, supports

__all__ = ["StatesResult", "search_states", "supports"]
