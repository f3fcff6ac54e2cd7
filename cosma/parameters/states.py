"""Tuning parameters of dynamic programming over states."""

from __future__ import annotations

from cosma.parameters import Count, Parameters, Positive


class StatesParameters(Parameters, frozen=True):
    """Cost of dynamic programming over states, and where it is worth while.

    Attributes
    ----------
    states_per_second
        States that one nominal second pays for. [unit]
    most_operators
        Operators above which it is not begun: setting it up is quadratic. [guard]
    """

    states_per_second: Positive = 6_000
    most_operators: Count = 3_000
