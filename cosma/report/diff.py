"""Two plans of one network side by side: what moved, and what that saved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.accelerator import PLANNING_FIELDS
from cosma.errors import InputError
from cosma.plan.tiles import root_name, untiled_name
from cosma.plan.timeline import timeline_of
from cosma.report.facts import CUT_SHORT, among_which
from cosma.text import counted
from cosma.units import format_size
from cosma.validator import replay_instructions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline


#: What is said of a tensor that the other plan does not have: it lies within a fused operator there.
_ABSENT = "does not exist"

#: Numbers of a difference that are counts; the others are bytes.
COUNTS = ("loads", "stores", "streams", "in-place results", "stays")


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor whose traffic differs; of one that was cut into parts, all parts together."""

    #: Which; of parts, what they are parts of.
    tensor: str
    #: Non-compulsory bytes in the two plans.
    before: int
    after: int
    #: What happened to it: in how many parts, and counts of loads, stores and streams.
    how_before: str
    how_after: str


@dataclass(frozen=True, slots=True)
class CutChange:
    """One operator that is cut into tiles differently."""

    #: Which, before tiles.
    operator: str
    #: Into how many tiles; 1 where it runs whole.
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """Two plans compared, the first taken as before and the second as after.

    Operators and tensors are those of the network: tiles count for the operator they were cut from.
    """

    #: Fields in which the two accelerators differ: name, before, after.
    accelerators: tuple[tuple[str, str, str], ...]
    #: Totals: name, before, after; in bytes or counts.
    numbers: tuple[tuple[str, int, int], ...]
    #: Tensors whose non-compulsory traffic differs, largest saving first, then largest loss.
    tensors: tuple[TensorChange, ...]
    #: Operators that run in another place relative to the others: the fewest that must move to get from one order to
    #: the other (all but a longest common subsequence), with their places before and after.
    moved_operators: tuple[tuple[str, int, int], ...]
    #: How many tensors or parts lie at other addresses, of how many that lie in the scratchpad in both.
    moved_tensors: tuple[int, int]
    #: Operators that are cut into another number of tiles.
    cuts: tuple[CutChange, ...]
    #: Operators of one plan that the other runs as part of another operator: name, and that operator before and after;
    #: its own name where it runs by itself.
    fused: tuple[tuple[str, str, str], ...]
    #: Operators in one plan alone (another model).
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    #: What must be said of the two: a claimed bound that the other plan goes below, a run that was cut short.
    remarks: tuple[str, ...] = ()


#: What two plans are called: at the head of a remark, and within a sentence.
Called = tuple[tuple[str, str], tuple[str, str]]
IN_TURN: Called = (("before", "the plan before"), ("after", "the plan after"))
BESIDE: Called = (("this plan", "this plan"), ("other plan", "the other plan"))


def diff_plans(before: Plan, after: Plan, called: Called = IN_TURN) -> PlanDifference:
    """Compare two plans; raises InputError if the two have no operator in common."""
    first, second = timeline_of(before), timeline_of(after)
    orders = [_untiled_order(plan) for plan in (before, after)]
    tiles = [_tiles(plan) for plan in (before, after)]
    common = tiles[0].keys() & tiles[1].keys()
    if not common and (before.schedule or after.schedule):
        raise InputError("the two plans have no operator in common: they are plans of different networks")
    fused = tuple(_fused(before, after))
    absorbed = {name for name, _, _ in fused}
    places = [_addresses(first), _addresses(second)]
    both = places[0].keys() & places[1].keys()
    return PlanDifference(
        accelerators=_accelerators(before, after),
        numbers=_numbers(before, after, first, second),
        tensors=_tensors(before, after, first, second),
        moved_operators=_moved(*orders),
        moved_tensors=(sum(places[0][name] != places[1][name] for name in both), len(both)),
        cuts=tuple(
            CutChange(name, tiles[0][name], tiles[1][name])
            for name in orders[0]
            if name in common and tiles[0][name] != tiles[1][name]
        ),
        fused=fused,
        only_before=tuple(name for name in orders[0] if name not in common and name not in absorbed),
        only_after=tuple(name for name in orders[1] if name not in common and name not in absorbed),
        remarks=tuple(_remarks(before, after, called)),
    )


def _untiled_order(plan: Plan) -> tuple[str, ...]:
    """Operators before tiles, in the order of their first."""
    return tuple(dict.fromkeys(untiled_name(plan.graph.operator(name)) for name in plan.schedule))


def _tiles(plan: Plan) -> dict[str, int]:
    return Counter(untiled_name(operator) for operator in plan.graph.operators)


def _fused(before: Plan, after: Plan) -> Iterator[tuple[str, str, str]]:
    """Operators that run by themselves in one plan and as part of another operator in the other.

    Operators that stand for the same nodes of the model are told by what they cover.
    """
    covered: list[dict[str, str]] = []
    for plan in (before, after):
        covered.append({})
        for operator in plan.graph.operators:
            for node in operator.covers:
                covered[-1].setdefault(node, untiled_name(operator))
    names = [{untiled_name(operator): operator for operator in plan.graph.operators} for plan in (before, after)]
    for here, there in ((0, 1), (1, 0)):
        for name, operator in names[here].items():
            if name in names[there] or not operator.covers:
                continue
            holders = {covered[there].get(node) for node in operator.covers}
            holder = next(iter(holders)) if len(holders) == 1 else None
            if holder is not None:
                yield (name, name, holder) if here == 0 else (name, holder, name)


def _remarks(before: Plan, after: Plan, called: Called) -> Iterator[str]:
    names = ((*called[0], before), (*called[1], after))
    scopes, bounds = zip(*((among_which(plan), plan.certificate.lower_bound) for plan in (before, after)), strict=True)
    claimed = "certificate" not in before.not_claimed | after.not_claimed
    if claimed and scopes[0] != scopes[1] and bounds[0] != bounds[1]:
        yield f"lower bounds: that of {called[0][1]} is for {scopes[0]}, that of {called[1][1]} for {scopes[1]}"
    for name, _, plan in names:
        if plan.stopped_by is not None:
            yield f"{name}: {CUT_SHORT[plan.stopped_by]}, so that plan is not reproducible"
    for (name, _, plan), (_, the_other, other) in (names, names[::-1]):
        # A plan that is valid where the bound is claimed for is one that the bound speaks of.
        if "certificate" in plan.not_claimed:
            continue
        bound = plan.certificate.lower_bound
        there = replay_instructions(plan.graph, plan.accelerator, other.instructions)
        moved, any_tiling = other.traffic.noncompulsory, _bound_over_tilings(plan, other)
        if there.valid and there.traffic.noncompulsory < bound:
            yield (
                f"{name}: its lower bound of {format_size(bound)} is false: {the_other} is valid there and "
                f"moves {format_size(there.traffic.noncompulsory)}"
            )
        elif moved < any_tiling:
            yield (
                f"{name}: its lower bound for any tiling, {format_size(any_tiling)}, is false: {the_other} moves "
                f"{format_size(moved)} in no larger a scratchpad"
            )


def _bound_over_tilings(plan: Plan, other: Plan) -> int:
    """A plan's lower bound for plans of any tiling, where the other plan is one of those; else 0."""
    mine, its = plan.accelerator, other.accelerator
    alike = (plan.model_sha256, plan.dtype, plan.dims) == (other.model_sha256, other.dtype, other.dims) and (
        (mine.operands, mine.weights) == (its.operands, its.weights)
    )
    if plan.model_sha256 is None or not alike or its.capacity_bytes > mine.capacity_bytes:
        return 0
    return max((one.lower_bound for one in plan.certificate.bounds if one.scope == "tilings"), default=0)


def setting_rows(found: PlanDifference) -> list[tuple[str, str, str]]:
    """Fields in which the two accelerators differ, for people."""
    return [
        (name, format_size(int(a)), format_size(int(b))) if name == "scratchpad" else (name, a, b)
        for name, a, b in found.accelerators
    ]


def _accelerators(before: Plan, after: Plan) -> tuple[tuple[str, str, str], ...]:
    names = ("scratchpad", *PLANNING_FIELDS, "reserved_ranges")
    rows = [(name, str(getattr(before.accelerator, name)), str(getattr(after.accelerator, name))) for name in names]
    forced = ["; ".join(map(str, plan.accelerator.constraints.entries)) or "none" for plan in (before, after)]
    rows.append(("constraints", forced[0], forced[1]))
    rows.append(("counted as", before.dtype or "the model's own types", after.dtype or "the model's own types"))
    rows.append(("dimensions", _listed(before.dims), _listed(after.dims)))
    rows.append(("model", str(before.model_sha256 or before.model_name), str(after.model_sha256 or after.model_name)))
    return tuple(row for row in rows if row[1] != row[2])


def _listed(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sorted(dims.items())) or "none"


def _numbers(before: Plan, after: Plan, first: Timeline, second: Timeline) -> tuple[tuple[str, int, int], ...]:
    def row(plan: Plan, timeline: Timeline) -> dict[str, int]:
        kinds = [transfer.kind for transfer in timeline.transfers if transfer.size_bytes]
        return {
            "non-compulsory": plan.traffic.noncompulsory,
            "total traffic": plan.traffic.total,
            "loaded": plan.traffic.loaded,
            "stored": plan.traffic.stored,
            "streamed": plan.traffic.streamed,
            "claimed lower bound" if before.certificate.claimed else "lower bound": plan.certificate.lower_bound,
            "peak": plan.peak_bytes,
            "loads": kinds.count("load"),
            "stores": kinds.count("store"),
            "streams": sum(kind.startswith("stream") for kind in kinds),
            "in-place results": sum(stay.in_place_of is not None for stay in timeline.stays),
            "stays": len(timeline.stays),
        }

    a, b = row(before, first), row(after, second)
    return tuple((name, a[name], b[name]) for name in a)


def _tensors(before: Plan, after: Plan, first: Timeline, second: Timeline) -> tuple[TensorChange, ...]:
    costs = [_costs(before, first), _costs(after, second)]
    how = [_how(before, first), _how(after, second)]
    changes = []
    for name in costs[0].keys() | costs[1].keys():
        old, new = costs[0].get(name, 0), costs[1].get(name, 0)
        if old != new:
            changes.append(TensorChange(name, old, new, how[0].get(name, _ABSENT), how[1].get(name, _ABSENT)))
    return tuple(sorted(changes, key=lambda c: (c.after - c.before, c.tensor)))


def _costs(plan: Plan, timeline: Timeline) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, cost in timeline.cost.items():
        found[root_name(plan.graph.tensors[name])] += cost
    return found


def _how(plan: Plan, timeline: Timeline) -> dict[str, str]:
    counts: dict[str, Counter[str]] = {}
    for transfer in timeline.transfers:
        counts.setdefault(root_name(plan.graph.tensors[transfer.tensor]), Counter())[transfer.kind] += 1
    parts = Counter(root_name(tensor) for tensor in plan.graph.tensors.values())
    found = {}
    for name, number in parts.items():
        moves = [_moves(kind, count) for kind, count in sorted(counts.get(name, {}).items())]
        cut = [f"{number} parts"] if number > 1 else []
        found[name] = ", ".join(cut + (moves or ["kept"]))
    return found


def _moves(kind: str, count: int) -> str:
    """Write ``load`` or ``3 loads``, ``stream in`` or ``3 streams in``."""
    verb, space, where = kind.partition(" ")
    return kind if count == 1 else counted(count, verb) + space + where


def _addresses(timeline: Timeline) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for stay in timeline.stays:
        found[stay.tensor] = (*found.get(stay.tensor, ()), stay.address)
    return found


def _moved(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """Operators outside a longest common subsequence; as orders have no repeats, that is a longest increasing run."""
    from bisect import bisect_left

    at = {name: i for i, name in enumerate(before)}
    shared = [name for name in after if name in at]
    tails: list[int] = []
    last: list[int] = []
    previous: list[int] = []
    for i, name in enumerate(shared):
        position = bisect_left(tails, at[name])
        previous.append(last[position - 1] if position else -1)
        if position == len(tails):
            tails.append(at[name])
            last.append(i)
        else:
            tails[position] = at[name]
            last[position] = i
    stays: set[str] = set()
    i = last[-1] if last else -1
    while i >= 0:
        stays.add(shared[i])
        i = previous[i]
    now = {name: i for i, name in enumerate(after)}
    return tuple((name, at[name], now[name]) for name in shared if name not in stays)
