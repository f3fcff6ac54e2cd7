"""Graphs of tiles to plan: tilings that were given, or chosen for the capacity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.accelerator import Operands
from cosma.clock import never
from cosma.compiler.fusion import Choice, fusion_choices
from cosma.compiler.modes import in_chosen_modes, stationary_choices, with_all_modes
from cosma.compiler.parts import plan_choices
from cosma.errors import InfeasibleError, InputError, Remedy
from cosma.plan.plan import ScopedBound
from cosma.problem import build_problem, smallest_feasible_capacity
from cosma.problem.feasibility import infeasible
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling
from cosma.tiling.given import parse_rule, read_tiling, rule_tiling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.plan import Certificate
    from cosma.problem import Problem

#: Uniform tilings tried beside those chosen: as many stripes in every operator.
UNIFORM_STRIPES = (2, 4, 8, 16)
#: Share of the capacity that the greedy rule may fill where tilings are compared; not measured.
PACKED_SHARE = 0.97
#: Changes of a tiling tried for each nominal second of effort; not measured.
CHANGES = 4
#: Share of the effort that goes into the choice of a tiling, before the graph of tiles is planned; not measured.
TILING_SHARE = 0.5
#: Tilings that are planned with care, of those that a quick plan ranks; not measured.
TRIALS = 1
#: Most tiles of a graph that is ranked; not measured.
MOST_TILES = 3000
#: What is planned for when only the shape of the graph matters: everything fits.
_AMPLE_BYTES = 1 << 50


def tiling_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, tiling: Tiling | Path | str | None,
    starts: Sequence[Graph] = (), *, parts: bool = True, effort: float = 0.0, seed: int = 0,
    stop: Callable[[], bool] = never,
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
    effort, seed
        For ``auto``: how many changes of the tiling are tried, in nominal seconds, and at random from where.
    stop
        Polled between them: ends with the best so far.

    Raises
    ------
    InputError
        If the tiling is not understood, or an operator cannot be cut as it says.
    InfeasibleError
        If no choice fits.
    """
    if tiling is None or tiling == "none":
        try:
            return uncut_choices(source, graph, accelerator, starts, parts=parts)
        except InfeasibleError as error:
            error.remedies += _tiling_remedies(source, graph, accelerator)
            raise
    if not source.sites:
        raise InputError("tiling: only models read from ONNX files can be cut; a graph alone has no nodes to look at")
    untiled = _to_cut(source, graph, accelerator, starts)
    if tiling == "auto":
        return _chosen(source, untiled, graph, accelerator, starts, parts=parts, effort=effort, seed=seed, stop=stop)
    made = [_tiled(source, choice, _given(source, choice.graph, tiling)) for choice in untiled]
    if accelerator.operands == Operands.STATIONARY:
        return in_chosen_modes(made, accelerator, starts)
    return _fitting(made, graph, accelerator)


def uncut_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = (),
    *, parts: bool = False,
) -> tuple[Choice, ...]:  # fmt: skip
    """Choices of whole operators; with parts, of tensors cut where operators select from them."""
    if accelerator.operands == Operands.STATIONARY:
        return stationary_choices(source, graph, accelerator, starts)
    return (plan_choices if parts else fusion_choices)(graph, accelerator, starts)


def _to_cut(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = ()
) -> tuple[Choice, ...]:
    """Networks to cut, whether they fit or not; with modes, tiles have theirs."""
    untiled = fusion_choices(graph, accelerator.replace(scratchpad=_AMPLE_BYTES), starts)
    if accelerator.operands != Operands.STATIONARY:
        return untiled
    return tuple(with_all_modes(choice, source, accelerator) for choice in untiled)


def _tiling_remedies(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> tuple[Remedy, ...]:
    """Say whether tiles let a network fit which does not: the boldest tiling that does, if any."""
    from cosma.tiling import build_rows, choose_segments, tiling_of

    if not source.sites:
        return ()
    untiled = _to_cut(source, graph, accelerator)[0]
    rows, capacity = build_rows(untiled.graph, source.sites), accelerator.capacity_bytes
    for segments in choose_segments(rows, capacity):
        tiling = tiling_of(rows, segments, capacity)
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
    return read_tiling(door.path(tiling, "tiling"), graph, source.sites)


def _tiled(source: LoadedModel, choice: Choice, tiling: Tiling, name: str = "") -> Choice:
    graph = tile(choice.graph, source.sites, tiling).graph
    return replace(choice, name=name or choice.name, graph=graph, untiled=choice.graph)


def _chosen(
    source: LoadedModel, untiled: tuple[Choice, ...], graph: Graph, accelerator: Accelerator, starts: Sequence[Graph],
    *, parts: bool, effort: float, seed: int, stop: Callable[[], bool],
) -> tuple[Choice, ...]:  # fmt: skip
    """Untiled choices where they fit, then the tilings that a quick plan finds best."""
    from cosma.tiling import Segment, Segmentation, build_rows, choose_segments, improve, tiling_of

    try:
        whole, refused = uncut_choices(source, graph, accelerator, starts, parts=parts)[:1], None
    except InfeasibleError as error:
        whole, refused = (), error
    base = untiled[0].graph
    capacity = accelerator.capacity_bytes
    rows = build_rows(base, source.sites)

    def choice(segments: Segmentation) -> Choice:
        return _tiled(source, untiled[0], tiling_of(rows, segments, capacity), "tiled")

    def judge(segments: Segmentation) -> tuple[int, int] | None:
        return _quick_cost(choice(segments).graph, accelerator)

    products = _products(source, untiled[0], accelerator)
    if products and products[0][0][0] == 0:
        return (products[0][1],)
    uniform = [(Segment(0, rows.operator_count, n),) for n in UNIFORM_STRIPES]
    segmentations = improve(
        [*choose_segments(rows, capacity), *uniform], rows.height.tolist(), judge, int(CHANGES * effort), seed, stop
    )
    cut = [choice(segments) for segments in segmentations[:TRIALS]]
    if accelerator.operands == Operands.STATIONARY:
        try:
            cut = list(in_chosen_modes(cut, accelerator, starts))
        except InfeasibleError:
            cut = []
    elif segmentations and judge(segmentations[0]) == (0, len(cut[0].graph.operators)):
        return tuple(cut[:1])
    if products and (not cut or products[0][0] <= (judge(segmentations[0]) or products[0][0])):
        cut.insert(0, products[0][1])
    if not cut and refused is not None:
        raise refused
    return (*cut, *whole)


def _products(
    source: LoadedModel, untiled: Choice, accelerator: Accelerator
) -> list[tuple[tuple[int, int], Choice]]:
    """Tilings of matrix products that fit, with what a quick plan says, the best first."""
    from cosma.tiling.products import product_tilings

    tilings = product_tilings(untiled.graph, source.sites, accelerator.capacity_bytes)
    choices = [_tiled(source, untiled, tiling, "tiled products") for tiling in tilings]
    costs = [(cost, i) for i, one in enumerate(choices) if (cost := _quick_cost(one.graph, accelerator)) is not None]
    return [(cost, choices[i]) for cost, i in sorted(costs)]


def _quick_cost(graph: Graph, accelerator: Accelerator) -> tuple[int, int] | None:
    """What a quick plan of tiles moves, and how many there are; None where it does not fit or has too many."""
    if len(graph.operators) > MOST_TILES:
        return None
    problem = build_problem(graph, accelerator)
    fits = smallest_feasible_capacity(problem) <= problem.capacity_bytes
    return (_quick_traffic(problem), len(graph.operators)) if fits else None


def _quick_traffic(problem: Problem) -> int:
    """Traffic of the order of tiles as it is under the greedy rule of replacement, with a little room for addresses."""
    from cosma.evaluation.evaluate import greedy_bytes
    from cosma.problem.reductions import tightened

    tighter = tightened(problem, PACKED_SHARE)
    roomy = problem if tighter is None else tighter.problem
    return greedy_bytes(roomy, range(roomy.operator_count))


def bounded(certificate: Certificate, choice: Choice, source: LoadedModel, accelerator: Accelerator) -> Certificate:
    """Add to the certificate of a plan of tiles what holds for every tiling."""
    if choice.untiled is None:
        return certificate
    from cosma.bounds.stripes import stripe_bound

    achieved = certificate.noncompulsory
    found = 0 if achieved == 0 else stripe_bound(choice.untiled, source.sites, accelerator.capacity_bytes)
    bounds = (
        ScopedBound("tiling", certificate.lower_bound, certificate.method),
        ScopedBound("rows", min(found, achieved), "sets of rows of which one must run first; weights left out"),
    )
    return replace(certificate, bounds=bounds)


def _fitting(made: list[Choice], graph: Graph, accelerator: Accelerator) -> tuple[Choice, ...]:
    errors = [infeasible(build_problem(choice.graph, accelerator), graph) for choice in made]
    found = tuple(choice for choice, error in zip(made, errors, strict=True) if error is None)
    if not found:
        error = next(e for e in errors if e is not None)
        raise error
    return found
