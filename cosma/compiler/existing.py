"""Traffic of existing methods on the same network: the yardstick beside every plan."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cosma.compiler.limits import Limits
from cosma.compiler.run import CompileRun
from cosma.compiler.strategies import run_existing
from cosma.compiler.uncut import uncut_choices
from cosma.errors import InfeasibleError
from cosma.problem import build_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.plan import Traffic


def existing_traffic(
    states: Sequence[CompileRun], source: LoadedModel, graph: Graph, accelerator: Accelerator
) -> dict[str, Traffic]:
    """Traffic of the existing methods by name, with whole operators and whole tensors, in the best fusion tried.

    ``graph`` is the network before fusion, element type applied. Methods that the runs have tried are not run again.
    Empty where the network does not fit uncut; a method is absent where an earlier one was proven optimal.
    """
    found: dict[str, Traffic] = {}
    whole = [state for state in states if not _is_cut(state.problem.graph)]
    if not any(state.existing for state in whole):
        if any(state.clock.ended_early for state in states):
            return {}
        try:
            choices = uncut_choices(source, graph, accelerator)
        except InfeasibleError:
            return {}
        whole = [CompileRun(problem=build_problem(choice.graph, accelerator), limits=Limits()) for choice in choices]
        for state in whole:
            with suppress(InfeasibleError):  # constraints can leave these methods without a plan
                run_existing(state)
    for state in whole:
        for name, traffic in state.existing.items():
            if name not in found or traffic.total < found[name].total:
                found[name] = traffic
    return found


def _is_cut(graph: Graph) -> bool:
    return bool(graph.roots) or graph.is_tiled
