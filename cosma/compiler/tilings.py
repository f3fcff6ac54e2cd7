"""Graphs of tiles to plan: tilings that were given, or chosen for the capacity."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.accelerator import Operands
from cosma.compiler.fusion import AMPLE_BYTES, Choice, fusion_choices
from cosma.compiler.joins import joined_to_cut
from cosma.compiler.limits import TURNS_SHARE, TilingWork
from cosma.compiler.modes import in_chosen_modes, with_all_modes
from cosma.compiler.one_pass import best_along, improved, moves_nothing_twice
from cosma.compiler.ruled import WAYS, RuledTiling
from cosma.compiler.searched import searched_tilings, tiled_choice
from cosma.compiler.tiled_starts import choices_of_starts, with_others
from cosma.compiler.trade import coarser_choices
from cosma.compiler.uncut import uncut_choices
from cosma.errors import CosmaError, InfeasibleError, InputError, Remedy, TimeLimitError
from cosma.graph import Graph
from cosma.parameters.compiler import AutoParameters
from cosma.problem import build_problem, noncompulsory_bytes, smallest_feasible_capacity
from cosma.problem.feasibility import fits, infeasible
from cosma.rewrite.fuse import fuse
from cosma.rewrite.tiling import Tiling, tiling_of_tiles
from cosma.tiling.given import parse_rule, read_tiling, rule_tiling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel

#: What a better order of the tiles gets instead of its share where all tiles are planned with care afterwards; not
#: measured.
TURNS_OF_FEW = 0.05
#: Most tiles of a rule for which it is chosen what is cut and whose tiles take turns. Above, cuts are planned as they
#: stand. On U-Net with one row (3,888 tiles, 256 KiB) they move 256 MB as they stand, and 39 in turns.
#: Above the 5,555 tiles of ViT with four rows it is not measured.
MOST_TILES_IN_TURNS = 20_000
#: Stripes tried where operands are stationary and no tiling fits whose tensors all lie in the scratchpad; not measured.
ROW_RULES = ("rows=8", "rows=4", "rows=2", "rows=1")
#: Rules tried where operands may stream and no tiling fits whose tensors all lie in the scratchpad. GRU (two layers) at
#: 256 KiB in floating point moved 5.1 MB whole, 5.0 with one row, and nothing in groups of 64 channels;
#: groups of 16 are not measured.
STREAMED_RULES = ("channels=64", "channels=16", "rows=1")
#: Most tiles of a graph whose modes are chosen one by one; not measured.
MOST_IN_MODES = 300


def tiling_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, tiling: Tiling | Path | str,
    starts: Sequence[Graph] = (), *, parts: bool = True, search: TilingWork | None = None, coarser: bool = False,
) -> tuple[Choice, ...]:  # fmt: skip
    """Graphs to plan under a tiling: with ``auto``, the untiled ones where they fit, and a few tilings.

    The nodes of ``source`` say what can be cut; ``graph`` is before fusion, element type applied. A tiling is ``auto``,
    a rule such as ``rows=8``, a TOML file, or a tiling. ``parts`` says whether untiled tensors may
    be cut where operators select from them: the existing methods know no parts, and stay what they are compared as.
    ``search`` says how long tilings are searched for; without it, not at all for ``auto``, and little for a rule.
    ``coarser`` asks ``auto`` to plan tilings with fewer tiles than the one chosen as well.

    Raises InputError if the tiling is not understood, or an operator cannot be cut as it says. Raises InfeasibleError
    if no choice fits, TimeLimitError if no whole operators fit and the search was ended before it had tiles that do.
    """
    if not source.sites and graph.operators:
        raise InputError("tiling: only models read from ONNX files can be cut; a graph alone has no nodes to look at")
    untiled = _to_cut(source, graph, accelerator, starts)
    joined = joined_to_cut(source, graph, accelerator) if parts and _may_join(accelerator, tiling) else None
    if tiling == "auto":
        bases = untiled if joined is None else (*untiled, joined)
        refused: CosmaError | None = None
        found: tuple[Choice, ...] = ()
        # Before the search: where the tiles of a start do not fit, nobody should wait to be told so.
        uncut = partial(_uncut_from, source, graph, accelerator, parts)
        begun = choices_of_starts(bases, source, accelerator, starts, uncut)
        try:
            found = _chosen(
                source, untiled[0], joined, graph, accelerator, starts, parts=parts, search=search or TilingWork()
            )  # fmt: skip
        except (InfeasibleError, TimeLimitError) as error:
            refused = error
        cut = next((choice for choice in found if choice.untiled is not None), None)
        if coarser and cut is not None:
            base = next(choice for choice in bases if choice.graph is cut.untiled)
            found += tuple(coarser_choices(cut, partial(_cut_again, source, base, accelerator)))
        found = with_others(found, begun)
        if refused is not None and not found:
            raise refused
        return found
    rule = None if isinstance(tiling, Tiling) else parse_rule(str(tiling))
    given = rule if rule is not None else _given(tiling, graph, source)
    search = search or TilingWork()
    each = [untiled] if joined is None else [untiled, (joined,)]
    cut_each = (_cut_as_given(source, graph, choices, given, accelerator, search) for choices in each)
    made = [choice for choice in cut_each if choice is not None]
    if not made:
        raise InputError("tiling: operators that have to be fused are cut differently")
    # Tiles come in modes already, with a plan, where one is found in one pass.
    planned = tuple(choice for choice in made if choice.start is not None)
    others = [choice for choice in made if choice.start is None]
    if not others:
        found = planned
    elif accelerator.operands == Operands.STATIONARY:
        found = planned + in_chosen_modes(others, accelerator, starts, search.clock.stop)
    else:
        found = planned + _fitting(others, graph, accelerator)
    # What is fused and cut depends on what is planned for, and a plan to start from may be for something else.
    same = [start for start in starts if any(_follows(start, choice, graph, source, given) for choice in untiled)]
    return with_others(found, choices_of_starts(untiled, source, accelerator, same, lambda _: ()))


def _may_join(accelerator: Accelerator, tiling: Tiling | Path | str) -> bool:
    """Whether tiles may read pieces of what is not copied: not where pieces are to lie side by side.

    Under constraints the search for tilings goes on from copies, as it does not know what constraints ask of pieces.
    """
    if accelerator.pieces is not None or (accelerator.constraints and tiling == "auto"):
        return False
    return tiling == "auto" if accelerator.zero_copy is None else accelerator.zero_copy


def _cut_again(source: LoadedModel, base: Choice, accelerator: Accelerator, tiling: Tiling) -> Choice | None:
    """Cut a network by a tiling, with a plan in one pass; None where there is none."""
    best = best_along([tiled_choice(source, base, tiling, "tiled")], accelerator)
    return None if best is None else best[1]


def _uncut_from(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, parts: bool, start: Graph
) -> tuple[Choice, ...]:
    return uncut_choices(source, graph, accelerator, [start], parts=parts)


def _to_cut(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = ()
) -> tuple[Choice, ...]:
    """Networks to cut, whether they fit or not; with modes, tiles have theirs."""
    ample = accelerator.replace(scratchpad=AMPLE_BYTES)
    if accelerator.operands != Operands.STATIONARY:
        return fusion_choices(graph, ample, starts)
    # What operators stream is for their modes to say, which come after fusion.
    untiled = fusion_choices(graph, ample.replace(operands=Operands.STREAMABLE), starts)
    return tuple(with_all_modes(choice, source, accelerator) for choice in untiled)


def tiling_remedies(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> tuple[Remedy, ...]:
    """Say whether tiles let a network fit which does not: the boldest tiling that does, if any."""
    from cosma.tiling import search_tilings, tiling_of

    if not source.sites:
        return ()
    untiled = _to_cut(source, graph, accelerator)[0]
    found = search_tilings(untiled.graph, source.sites, accelerator, effort=0.0)
    for segments in found.ranked[:1]:
        problem = build_problem(tiled_choice(source, untiled, tiling_of(found.graph, segments)).graph, accelerator)
        least = smallest_feasible_capacity(problem)
        if not problem.refused and fits(problem):
            return (Remedy("tiling", "auto", least + accelerator.reserved, enough=True),)
    return ()


def _given(tiling: Tiling | Path | str, graph: Graph, source: LoadedModel) -> Tiling:
    if isinstance(tiling, str) and not tiling.endswith(".toml") and not Path(tiling).exists():
        raise InputError(f"tiling {tiling!r} is neither none, auto, a rule such as rows=8 or stripes=4, nor a file")
    return tiling if isinstance(tiling, Tiling) else read_tiling(door.path(tiling, "tiling"), graph, source.sites)


def _tiling_of(
    choice: Choice, graph: Graph, source: LoadedModel, given: Tiling | Mapping[str, int]
) -> Tiling | None:
    """What a rule or a tiling says of a choice of operators to fuse; None where it cuts fused operators differently.

    Raises InputError if it names an operator that the network does not have.
    """
    if not isinstance(given, Tiling):
        return rule_tiling(choice.graph, source.sites, given)
    known = {operator.name for operator in graph.operators}
    unknown = next((name for name in given.operators if name not in known), None)
    if unknown is not None:
        raise InputError(f"tiling: the graph has no operator {unknown!r}")
    gone = {maker for join in choice.graph.joins.values() if (maker := graph.producer(join.root)) is not None}
    kept = given.without(gone)
    return kept.fused(fuse(graph, choice.fused).lineage.operators) if choice.fused else kept


def _follows(
    start: Graph, choice: Choice, graph: Graph, source: LoadedModel, given: Tiling | Mapping[str, int]
) -> bool:
    """Whether the tiles of a plan are those of a tiling, or of a rule, which may cut others along channels alone."""
    tiling, theirs = _tiling_of(choice, graph, source, given), tiling_of_tiles(start)
    if tiling is None or not theirs.operators:
        return False
    if isinstance(given, Tiling):
        return theirs.alike(tiling)
    finest = rule_tiling(choice.graph, source.sites, {"weights": 1}).cuts
    return all(
        axes == tiling.cuts.get(name) or [bool(at) for at in axes] == [bool(at) for at in finest.get(name, ())]
        for name, axes in theirs.cuts.items()
    )


def _cut_as_given(
    source: LoadedModel, graph: Graph, untiled: Sequence[Choice], given: Tiling | Mapping[str, int],
    accelerator: Accelerator, search: TilingWork,
) -> Choice | None:  # fmt: skip
    """A network cut as given: of the choices of operators to fuse, the one whose tiles move least; else the first.

    None where each choice fuses operators that are cut differently.
    """
    tried: list[tuple[RuledTiling, Choice]] = []
    # Cuts of a rule may be left out; those of a tiling are made as they stand.
    ways = WAYS[:1] if isinstance(given, Tiling) else WAYS
    channels = not isinstance(given, Tiling) and not given.keys() & {"channels", "weights"}
    first: tuple[Choice, Tiling] | None = None
    for choice in untiled:
        if first is not None and (search.clock.stop() or (tried and tried[-1][0].cost_bytes == 0)):
            break
        tiling = _tiling_of(choice, graph, source, given)
        if tiling is None:
            continue
        first = first or (choice, tiling)
        ruled = RuledTiling(
            source, choice.graph, tiling, accelerator, channels, search.seed, MOST_TILES_IN_TURNS, search.granted,
            search.clock, None if tried else search.report,
        )  # fmt: skip
        # What was best for one choice of operators to fuse is tried with the others alone.
        ruled.look([tried[0][0].way] if tried else ways)
        search.spent += ruled.spent
        if ruled.found is not None:
            tried.append((ruled, choice))
    if not tried:
        return None if first is None else tiled_choice(source, *first)
    ruled, choice = min(tried, key=lambda one: one[0].cost_bytes)
    search.spent -= ruled.spent
    ruled.improve()
    planned = ruled.plan()
    search.spent += ruled.spent
    if planned is None:
        assert ruled.found is not None
        return tiled_choice(source, choice, ruled.found)
    tiles, start, free = planned
    return replace(choice, graph=tiles, relaxed=free, start=start, untiled=choice.graph)


def _chosen(
    source: LoadedModel, untiled: Choice, joined: Choice | None, graph: Graph, accelerator: Accelerator,
    starts: Sequence[Graph], *, parts: bool, search: TilingWork,
) -> tuple[Choice, ...]:  # fmt: skip
    """Untiled choices where they fit, then the tiling that a search finds best, with its plan."""
    from cosma.tiling.pixels import pixel_tilings

    try:
        whole, refused = uncut_choices(source, graph, accelerator, starts, parts=parts)[:1], None
    except InfeasibleError as error:
        whole, refused = (), error
    if whole and moves_nothing_twice(whole[0].graph, accelerator):
        return whole
    streaming: tuple[Choice, ...] = ()
    base, tiled, best = searched_tilings(source, untiled, joined, accelerator, search)
    if (best is None or best[0] > 0) and not search.clock.stop():
        pixels = pixel_tilings(base.graph, source.sites)
        other = best_along([tiled_choice(source, base, tiling, "tiled") for tiling in pixels], accelerator)
        best = other if best is None or (other is not None and other[0] < best[0]) else best
    if best is not None:
        with_care = len(best[1].graph.operators) <= AutoParameters().most_tiles
        turns = search.next((TURNS_OF_FEW if with_care else TURNS_SHARE) * search.granted)
        best = improved(best, accelerator, turns)
        search.spent += turns.effort
    if accelerator.operands == Operands.STATIONARY and (best is None or best[0] > 0):
        # Tiles that stream may do with less room, and move less, than tiles whose tensors all lie in the scratchpad.
        tilings = (rule_tiling(base.graph, source.sites, parse_rule(rule) or {}) for rule in ROW_RULES)
        names = [operator.name for operator in base.graph.operators]
        few = (tiling for tiling in tilings if tiling.tile_count(names) <= MOST_IN_MODES)
        rows = (tiled_choice(source, base, tiling, "tiled") for tiling in few)
        streaming = _streaming([tiled] if tiled else ([one] for one in rows), accelerator)
    elif accelerator.operands == Operands.STREAMABLE and best is None:
        streaming = _ruled(source, untiled, graph, accelerator, search)
    found = (*streaming, *([best[1]] if best is not None else []), *whole)
    if not found and search.clock.interrupted:
        raise KeyboardInterrupt("interrupted before the first plan was found")
    if not found and search.timed_out:
        raise TimeLimitError(
            "no plan within the time limit: operators are larger than the scratchpad, and no tiling that fits was "
            "found in that time; a longer limit, or none, may help"
        ) from refused
    if not found and refused is not None:
        raise refused
    return found


def _ruled(
    source: LoadedModel, untiled: Choice, graph: Graph, accelerator: Accelerator, search: TilingWork
) -> tuple[Choice, ...]:
    """The best of a few rules, whose tiles may stream, where the search knows none that fit without."""
    planned: list[tuple[int, Choice]] = []
    for rule in STREAMED_RULES:
        if search.clock.stop() or (planned and planned[-1][0] == 0):
            break
        choice = _cut_as_given(source, graph, [untiled], parse_rule(rule) or {}, accelerator, search)
        if choice is not None and choice.start is not None:
            moved = noncompulsory_bytes(choice.instance(accelerator), choice.start.decisions)
            planned.append((moved, choice))
    return tuple(choice for _, choice in sorted(planned, key=lambda one: one[0])[:1])


def _streaming(attempts: Iterable[Sequence[Choice]], accelerator: Accelerator) -> tuple[Choice, ...]:
    """Networks of tiles in modes chosen for the capacity: the first attempt that fits, none where none does."""
    for attempt in attempts:
        try:
            return in_chosen_modes(
                [choice for choice in attempt if len(choice.graph.operators) <= MOST_IN_MODES], accelerator
            )
        except InfeasibleError:
            continue
    return ()


def _fitting(made: list[Choice], graph: Graph, accelerator: Accelerator) -> tuple[Choice, ...]:
    errors = [infeasible(build_problem(choice.graph, accelerator), graph) for choice in made]
    found = tuple(choice for choice, error in zip(made, errors, strict=True) if error is None)
    if not found:
        error = next(e for e in errors if e is not None)
        raise error
    return found
