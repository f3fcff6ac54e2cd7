"""A plan beside the plans of the existing methods for the same graph and accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.compiler import run_compile
from cosma.compiler.strategies import STRATEGIES
from cosma.errors import InfeasibleError
from cosma.heuristics import EXISTING
from cosma.report.facts import ExistingPlan

if TYPE_CHECKING:
    from cosma.plan import Plan


def existing_plans(plan: Plan) -> tuple[ExistingPlan, ...]:
    """Plan the graph of a plan, as fused and tiled as it is, with every existing method."""
    found = []
    for name in EXISTING:
        total = noncompulsory = peak = None
        try:
            other = run_compile(plan.graph, plan.accelerator, strategy=name).plan
        except InfeasibleError:
            pass
        else:
            total, noncompulsory, peak = other.traffic.total, other.traffic.noncompulsory, other.peak_bytes
        found.append(ExistingPlan(name, STRATEGIES[name].summary, total, noncompulsory, peak))
    return tuple(found)
