"""The instance as arrays, and what optimisers decide about it."""

from cosma.problem.build import build_problem
from cosma.problem.decisions import (
    Decisions,
    Residency,
    Touches,
    decisions_from_gaps,
    noncompulsory_bytes,
    occupancy_bytes,
    touches_of,
    with_takeovers,
)
from cosma.problem.feasibility import check_feasible, smallest_feasible_capacity
from cosma.problem.problem import Instance, Problem

__all__ = [
    "Decisions",
    "Instance",
    "Problem",
    "Residency",
    "Touches",
    "build_problem",
    "check_feasible",
    "decisions_from_gaps",
    "noncompulsory_bytes",
    "occupancy_bytes",
    "smallest_feasible_capacity",
    "touches_of",
    "with_takeovers",
]
