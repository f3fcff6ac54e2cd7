"""Graphs of tiles to plan: tilings that were given, or chosen for the capacity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.compiler.fusion import Choice, fusion_choices
from cosma.compiler.parts import plan_choices
from cosma.errors import InfeasibleError, InputError, Remedy
from cosma.problem import build_problem, smallest_feasible_capacity
from cosma.problem.feasibility import infeasible
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling
from cosma.tiling.given import parse_rule, read_tiling, rule_tiling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.problem import Problem

#: Uniform tilings tried beside those chosen: as many stripes in every operator.
UNIFORM_STRIPES = (2, 4, 8, 16)
#: Tilings that are planned with care, of those that a quick plan ranks; not measured.
TRIALS = 2
#: Most tiles of a graph that is ranked; not measured.
MOST_TILES = 4000
#: What is planned for when only the shape of the graph matters: everything fits.
_AMPLE_BYTES = 1 << 50


def tiling_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, tiling: Tiling | Path | str | None,
    starts: Sequence[Graph] = (), *, parts: bool = True,
) -> tuple[Choice, ...]:  # fmt: skip
    """Graphs to plan under a tiling: with ``auto``, the untiled ones where they fit, and a few tilings.

    Parameters
    ----------
    source
        The model, whose nodes say what can be cut.
    graph
        Its graph, element type applied, before fusion.
    accelerator
        What to plan for.
    tiling
        ``none`` or None, ``auto``, a rule such as ``rows=8``, a TOML file, or a tiling.
    starts
        Graphs of plans to start from.
    parts
        Whether untiled tensors may be cut where operators select from them. The existing methods know no parts, and
        stay what they are compared as.

    Raises
    ------
    InputError
        If the tiling is not understood, or an operator cannot be cut as it says.
    InfeasibleError
        If no choice fits.
    """
    if tiling is None or tiling == "none":
        try:
            return (plan_choices if parts else fusion_choices)(graph, accelerator, starts)
        except InfeasibleError as error:
            error.remedies += _tiling_remedies(source, graph, accelerator)
            raise
    if not source.sites:
        raise InputError("tiling: only models read from ONNX files can be cut; a graph alone has no nodes to look at")
    untiled = fusion_choices(graph, accelerator.replace(scratchpad=_AMPLE_BYTES), starts)
    if tiling == "auto":
        return _chosen(source, untiled, graph, accelerator, starts)
    made = [_tiled(source, choice, _given(source, choice.graph, tiling)) for choice in untiled]
    return _fitting(made, graph, accelerator)


def _tiling_remedies(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> tuple[Remedy, ...]:
    """Say whether tiles let a network fit which does not: the boldest tiling that does, if any."""
    from cosma.tiling import choose_tilings

    if not source.sites:
        return ()
    untiled = fusion_choices(graph, accelerator.replace(scratchpad=_AMPLE_BYTES))[0]
    for tiling in choose_tilings(untiled.graph, source.sites, accelerator.capacity_bytes):
        if not any(any(axes) for axes in tiling.cuts.values()):
            continue
        problem = build_problem(_tiled(source, untiled, tiling).graph, accelerator)
        least = smallest_feasible_capacity(problem)
        if problem.operator_count <= MOST_TILES and least <= problem.capacity_bytes:
            return (Remedy("tiling", "auto", least + accelerator.reserved, enough=True),)
    return ()


def _given(source: LoadedModel, graph: Graph, tiling: Tiling | Path | str) -> Tiling:
    if isinstance(tiling, Tiling):
        return tiling
    rule = parse_rule(str(tiling))
    if rule is not None:
        return rule_tiling(graph, source.sites, rule)
    return read_tiling(door.path(tiling, "tiling"), graph)


def _tiled(source: LoadedModel, choice: Choice, tiling: Tiling, name: str = "") -> Choice:
    return replace(choice, name=name or choice.name, graph=tile(choice.graph, source.sites, tiling).graph)


def _chosen(
    source: LoadedModel, untiled: tuple[Choice, ...], graph: Graph, accelerator: Accelerator, starts: Sequence[Graph]
) -> tuple[Choice, ...]:
    """Untiled choices where they fit, then the tilings that a quick plan finds best."""
    from cosma.tiling import choose_tilings

    try:
        whole, refused = fusion_choices(graph, accelerator, starts)[:1], None
    except InfeasibleError as error:
        whole, refused = (), error
    base = untiled[0].graph
    tilings = choose_tilings(base, source.sites, accelerator.capacity_bytes)
    tilings += [rule_tiling(base, source.sites, {"stripes": n}) for n in UNIFORM_STRIPES]
    ranked: list[tuple[int, int, Choice]] = []
    for i, tiling in enumerate(tilings):
        if not any(any(axes) for axes in tiling.cuts.values()):
            continue
        choice = _tiled(source, untiled[0], tiling, f"tiling {i + 1}")
        if len(choice.graph.operators) > MOST_TILES:
            continue
        problem = build_problem(choice.graph, accelerator)
        if infeasible(problem, base) is None:
            ranked.append((_quick_traffic(problem), i, choice))
    ranked.sort(key=lambda entry: entry[:2])
    found = (*(choice for _, _, choice in ranked[:TRIALS]), *whole)
    if ranked and ranked[0][0] == 0:
        return found[:1]
    if not found:
        assert refused is not None
        raise refused
    return found


def _quick_traffic(problem: Problem) -> int:
    """Traffic of the order of tiles as it is, with Belady's replacement."""
    from cosma.heuristics.existing import Method, run_method
    from cosma.validator import replay_instructions

    realised = run_method(problem, Method("given", "belady", "best-fit"))
    report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
    return report.traffic.noncompulsory


def _fitting(made: list[Choice], graph: Graph, accelerator: Accelerator) -> tuple[Choice, ...]:
    errors = [infeasible(build_problem(choice.graph, accelerator), graph) for choice in made]
    found = tuple(choice for choice, error in zip(made, errors, strict=True) if error is None)
    if not found:
        error = next(e for e in errors if e is not None)
        raise error
    return found
