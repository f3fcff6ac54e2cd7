"""Two plans of one network side by side: what moved, and what that saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.errors import InputError
from cosma.plan.timeline import timeline_of
from cosma.report.facts import CUT_SHORT
from cosma.units import format_size
from cosma.validator import replay_instructions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline


#: Numbers of a difference that are counts; the others are bytes.
COUNTS = ("loads", "stores", "streams", "in-place results", "stays")


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor whose traffic differs.

    Attributes
    ----------
    tensor
        Which.
    before, after
        Non-compulsory bytes in the two plans.
    how_before, how_after
        What happened to it: counts of loads, stores and streams.
    """

    tensor: str
    before: int
    after: int
    how_before: str
    how_after: str


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """Two plans compared, the first taken as before and the second as after.

    Attributes
    ----------
    accelerators
        Fields in which the two accelerators differ: name, before, after.
    numbers
        Totals: name, before, after; in bytes or counts.
    tensors
        Tensors whose non-compulsory traffic differs, largest saving first, then largest loss.
    moved_operators
        Operators that run in another place relative to the others: the fewest that must move to get from one order
        to the other (all but a longest common subsequence), with their steps before and after.
    moved_tensors
        How many tensors lie at other addresses, of how many that lie in the scratchpad in both.
    only_before, only_after
        Operators in one plan alone (fusion, another model).
    remarks
        What must be said of the two: a claimed bound that the other plan goes below, a run that was cut short.
    """

    accelerators: tuple[tuple[str, str, str], ...]
    numbers: tuple[tuple[str, int, int], ...]
    tensors: tuple[TensorChange, ...]
    moved_operators: tuple[tuple[str, int, int], ...]
    moved_tensors: tuple[int, int]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def diff_plans(before: Plan, after: Plan) -> PlanDifference:
    """Compare two plans.

    Raises
    ------
    InputError
        If the two have no operator in common.
    """
    first, second = timeline_of(before), timeline_of(after)
    common = set(before.schedule) & set(after.schedule)
    if not common and (before.schedule or after.schedule):
        raise InputError("the two plans have no operator in common: they are plans of different networks")
    places = [_addresses(first), _addresses(second)]
    both = places[0].keys() & places[1].keys()
    return PlanDifference(
        accelerators=_accelerators(before, after),
        numbers=_numbers(before, after, first, second),
        tensors=_tensors(first, second),
        moved_operators=_moved(before.schedule, after.schedule),
        moved_tensors=(sum(places[0][name] != places[1][name] for name in both), len(both)),
        only_before=tuple(name for name in before.schedule if name not in common),
        only_after=tuple(name for name in after.schedule if name not in common),
        remarks=tuple(_remarks(before, after)),
    )


def _remarks(before: Plan, after: Plan) -> Iterator[str]:
    names = (("before", before), ("after", after))
    for name, plan in names:
        if plan.stopped_by is not None:
            yield f"{name}: {CUT_SHORT[plan.stopped_by]}, so that plan is not reproducible"
    for (name, plan), (other_name, other) in (names, names[::-1]):
        # A plan that is valid where the bound is claimed for is one that the bound speaks of.
        if "certificate" in plan.not_claimed:
            continue
        bound = plan.certificate.lower_bound
        there = replay_instructions(plan.graph, plan.accelerator, other.instructions)
        if there.valid and there.traffic.noncompulsory < bound:
            yield (
                f"{name}: its lower bound of {format_size(bound)} is false: the plan {other_name} is valid there and "
                f"moves {format_size(there.traffic.noncompulsory)}"
            )


def _accelerators(before: Plan, after: Plan) -> tuple[tuple[str, str, str], ...]:
    names = ("scratchpad", "alignment", "operands", "weights", "reserved", "in_place", "fusion")
    rows = [(name, str(getattr(before.accelerator, name)), str(getattr(after.accelerator, name))) for name in names]
    rows.append(("dtype", str(before.dtype), str(after.dtype)))
    rows.append(("model", str(before.model_sha256 or before.model_name), str(after.model_sha256 or after.model_name)))
    return tuple(row for row in rows if row[1] != row[2])


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


def _tensors(first: Timeline, second: Timeline) -> tuple[TensorChange, ...]:
    how = [_how(first), _how(second)]
    changes = []
    for name in first.cost.keys() | second.cost.keys():
        before, after = first.cost.get(name, 0), second.cost.get(name, 0)
        if before != after:
            changes.append(TensorChange(name, before, after, how[0].get(name, "kept"), how[1].get(name, "kept")))
    return tuple(sorted(changes, key=lambda c: (c.after - c.before, c.tensor)))


def _how(timeline: Timeline) -> dict[str, str]:
    counts: dict[str, dict[str, int]] = {}
    for transfer in timeline.transfers:
        row = counts.setdefault(transfer.tensor, {})
        row[transfer.kind] = row.get(transfer.kind, 0) + 1
    return {
        name: ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(row.items()))
        for name, row in counts.items()
    }


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
