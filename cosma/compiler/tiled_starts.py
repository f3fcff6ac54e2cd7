"""Plans of tiles to start from: the tiling of each is a choice too, beside those that are found anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.compiler.fusion import Choice
from cosma.compiler.starts import same_modes, same_network
from cosma.errors import InfeasibleError, InputError
from cosma.graph import Graph
from cosma.plan.tiles import untiled_name
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import order_of_tiles, tiling_of_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel


def choices_of_starts(
    untiled: Sequence[Choice], source: LoadedModel, accelerator: Accelerator, starts: Sequence[Graph],
    uncut: Callable[[Graph], Sequence[Choice]],
) -> tuple[Choice, ...]:  # fmt: skip
    """The graphs of plans to start from, as choices.

    ``untiled`` is the network with operators fused in each way there is, and ``uncut`` gives the choices of whole
    operators that a start of whole operators gives. A start that is no tiling of this network is left for the check of
    starts to refuse. Raises InputError if the tiles of a plan do not fit this accelerator.
    """
    found: list[Choice] = []
    for number, start in enumerate(starts, 1):
        if any(same_modes(start, choice.graph) for choice in found):
            continue
        if not start.is_tiled:
            found += _whole(start, uncut)
            continue
        choice = _tiled_again(start, untiled, source)
        if choice is None:
            continue
        try:
            found.append(_fitting(choice, start, accelerator))
        except InfeasibleError as error:
            raise InputError(
                f"start {number}: its tiles do not fit into {accelerator.capacity_bytes} bytes, so there is nothing to "
                "go on from"
            ) from error
    return tuple(found)


def with_others(choices: tuple[Choice, ...], others: Sequence[Choice]) -> tuple[Choice, ...]:
    """Choices, and those of ``others`` whose graph with its modes is not among them."""
    return choices + tuple(
        other for other in others if not any(same_modes(other.graph, choice.graph) for choice in choices)
    )


def _whole(start: Graph, uncut: Callable[[Graph], Sequence[Choice]]) -> list[Choice]:
    try:
        whole = uncut(start)
    except InfeasibleError:
        return []
    return [choice for choice in whole if same_modes(start, choice.graph)][:1]


def _fitting(choice: Choice, start: Graph, accelerator: Accelerator) -> Choice:
    """The choice where it fits, with the modes of the start where operators have a choice of them."""
    every = choice.graph
    if any(operator.modes for operator in every.operators):
        modes = {operator.name: operator.modes for operator in start.operators}
        operators = [replace(operator, modes=modes[operator.name]) for operator in every.operators]
        choice = replace(choice, graph=every.replace(operators=operators), relaxed=every)
    error = infeasible(build_problem(choice.graph, accelerator), every)
    if error is not None:
        raise error
    return choice


def _tiled_again(start: Graph, untiled: Sequence[Choice], source: LoadedModel) -> Choice | None:
    """Cut the network as a plan did; None where that does not give the plan's graph."""
    names = {untiled_name(operator) for operator in start.operators}
    for choice in untiled:
        if names == {operator.name for operator in choice.graph.operators}:
            tiling = replace(tiling_of_tiles(start), order=order_of_tiles(start.operators))
            graph = tile(choice.graph, source.sites, tiling).graph
            if same_network(start, graph):
                return Choice("start", choice.fused, graph, untiled=choice.graph)
    return None
