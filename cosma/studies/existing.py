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

#: Most tiles that existing methods plan beside whole operators: of a report on 2,200 tiles, planning them was half the
#: time, which grows faster than the tiles do.
MOST_TILES = 1000


def existing_plans(plan: Plan) -> tuple[ExistingPlan, ...]:
    """Plan the graph of a plan with every existing method: uncut, where the plan has tiles, and as it is.

    Operators with modes of their own are not planned uncut: what workspace they would need whole, no tile says. Many
    tiles are left out where an existing method plans the operators uncut.
    """
    operators = plan.graph.operators
    found = []
    if plan.graph.is_tiled and not any(operator.modes for operator in operators):
        found = [_existing_plan(name, untiled_graph(plan.graph), plan.accelerator, uncut=True) for name in EXISTING]
        if len(operators) > MOST_TILES and any(one.total_bytes is not None for one in found):
            return tuple(found)
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
