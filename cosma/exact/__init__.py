"""Plans with proof: the best replacement for an order, the best order, and addresses by layers."""

from cosma.exact.replacement import optimal_replacement

__all__ = ["optimal_replacement"]
