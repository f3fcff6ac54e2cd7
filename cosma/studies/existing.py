"""A plan beside the plans of the existing methods for the same graph and accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.compiler import run_compile
from cosma.compiler.strategies import STRATEGIES
from cosma.errors import InfeasibleError
from cosma.heuristics import EXISTING
from cosma.plan.tiles import untiled_graph
from cosma.report.facts import ExistingPlan

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.graph import Graph
    from cosma.plan import Plan


def existing_plans(plan: Plan) -> tuple[ExistingPlan, ...]:
    """Plan the graph of a plan with every existing method: uncut, where the plan has tiles, and as it is.

    Operators with modes of their own are not planned uncut: what workspace they would need whole, no tile says.
    """
    tiled = plan.graph.is_tiled
    found = []
    if tiled and not any(operator.modes for operator in plan.graph.operators):
        found = [_existing_plan(name, untiled_graph(plan.graph), plan.accelerator, uncut=True) for name in EXISTING]
    return (*found, *(_existing_plan(name, plan.graph, plan.accelerator, uncut=False) for name in EXISTING))


def _existing_plan(name: str, graph: Graph, accelerator: Accelerator, *, uncut: bool) -> ExistingPlan:
    total = noncompulsory = peak = None
    try:
        other = run_compile(graph, accelerator, strategy=name).plan
    except InfeasibleError:
        pass
    else:
        total, noncompulsory, peak = other.traffic.total, other.traffic.noncompulsory, other.peak_bytes
    return ExistingPlan(name, STRATEGIES[name].summary, total, noncompulsory, peak, uncut)
