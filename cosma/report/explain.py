"""Why a plan moves what it moves: what filled the scratchpad, what that cost, and what would help."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from cosma.accelerator import Weights
from cosma.errors import InputError
from cosma.plan.tiles import FusedGroup, fused_groups, untiled_name
from cosma.plan.timeline import Stay, Timeline, scratch_bytes, timeline_of
from cosma.units import align_up, format_exact, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.graph import Graph
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class Holder:
    """Who had space at a step, and why."""

    #: Who, and how much; the workspace of the operator is ``(workspace)``.
    tensor: str
    space_bytes: int
    #: ``operand``, ``result``, ``of the operator`` (its workspace), or ``kept for step N``.
    reason: str


@dataclass(frozen=True, slots=True)
class Absence:
    """A time between two uses of a tensor in which it was not kept."""

    #: Steps of the two uses; the tensor was not kept throughout ``[begin, end]``.
    begin: int
    end: int
    #: The step in between at which it would have fitted least.
    tightest: int
    #: By how much it did not fit there, sizes only; 0 where there was room and the plan did not use it.
    short_bytes: int
    #: What keeping it then, and all else as it is, would have saved.
    cost_bytes: int
    #: Who had the space at the tightest step, largest first.
    holders: tuple[Holder, ...]

    def sentence(self, plan: Plan, timeline: Timeline) -> str:
        """Say what it cost, where it did not fit, and what would have done."""
        away = f"Not kept from step {self.begin} to {self.end}, which costs {format_size(self.cost_bytes)}"
        step = timeline.steps[self.tightest]
        at = f"step {self.tightest} ({step.operator}, {step.type})"
        if not self.short_bytes:
            return f"{away}: even at {at} there was room by size, so other addresses or a longer search may keep it."
        enough = plan.accelerator.capacity_bytes + self.short_bytes
        short = format_size(self.short_bytes)
        return f"{away}: at {at} it was {short} short; by size, {format_exact(enough)} would do."


@dataclass(frozen=True, slots=True)
class TensorStory:
    """One tensor's way through a plan."""

    #: Which.
    tensor: str
    size_bytes: int
    kind: str
    #: Steps at which it is produced or read.
    touches: tuple[int, ...]
    #: Where it lay.
    stays: tuple[Stay, ...]
    #: Off-chip traffic, and the part beyond the compulsory one.
    moved_bytes: int
    cost_bytes: int
    #: When it was not kept, and why.
    absences: tuple[Absence, ...]

    def beside(self) -> str:
        """Say what it costs beside what its absences do, each alone; empty where that is nothing."""
        rest = self.cost_bytes - sum(absence.cost_bytes for absence in self.absences)
        if not rest:
            return ""
        if self.absences:
            return f"Writing it costs the other {format_size(rest)}, unless it stays from its first use to its last."
        weight = self.kind == "weight"
        return "Each operator that uses it reads it anew." if weight else "Nobody reads it after its store."


@dataclass(frozen=True, slots=True)
class OperatorStory:
    """One operator's step."""

    #: Which, and when.
    operator: str
    type: str
    step: int
    #: Space taken while it runs.
    occupied_bytes: int
    #: Each operand and result: its space, and ``scratchpad @address``, ``streamed`` or ``in place of ...``.
    touched: tuple[tuple[str, int, str], ...]
    #: Everyone else in the scratchpad, largest first.
    kept: tuple[Holder, ...]
    #: Transfers of the step: kind, tensor, bytes, and whether compulsory.
    moved: tuple[tuple[str, str, int, bool], ...]


@dataclass(frozen=True, slots=True)
class TiledStory:
    """An operator that was cut into tiles, or a tensor that was cut into parts."""

    #: Which.
    name: str
    #: Of an operator, each tile and its step; empty for a tensor.
    tiles: tuple[tuple[str, int], ...]
    #: Of a tensor, each part, its size and its non-compulsory bytes; of an operator, those of its results.
    parts: tuple[tuple[str, int, int], ...]
    #: Operators that its tiles take turns with, itself included, and the steps ``[start, end)`` in which they do.
    group: FusedGroup | None
    #: Off-chip traffic at its steps (of an operator) or of its parts (of a tensor), and what goes beyond the compulsory
    #: one.
    moved_bytes: int
    cost_bytes: int


def explain_tiled(plan: Plan, name: str, timeline: Timeline | None = None) -> TiledStory | None:
    """Tell of an untiled operator or of a root by its name; None where nothing of that name was cut."""
    timeline = timeline if timeline is not None else timeline_of(plan)
    graph = plan.graph
    tiles = tuple(
        (step.operator, i)
        for i, step in enumerate(timeline.steps)
        if graph.operator(step.operator).tile is not None and untiled_name(graph.operator(step.operator)) == name
    )
    if tiles:
        steps = {step for _, step in tiles}
        own = [part for tile, _ in tiles for part in graph.operator(tile).outputs]
        moved = sum(t.size_bytes for t in timeline.transfers if t.step in steps)
        cost = sum(timeline.steps[step].noncompulsory for step in steps)
    else:
        own = [part.name for part in graph.parts_of(name)]
        moved = sum(t.size_bytes for t in timeline.transfers if t.tensor in set(own))
        cost = sum(timeline.cost.get(part, 0) for part in own)
    if not own:
        return None
    groups = fused_groups(graph, plan.schedule) if tiles else ()
    return TiledStory(
        name=name,
        tiles=tiles,
        parts=tuple((part, graph.tensors[part].size_bytes, timeline.cost.get(part, 0)) for part in own),
        group=next((g for g in groups if g.start <= tiles[0][1] < g.end), None),
        moved_bytes=moved,
        cost_bytes=cost,
    )


def explain_tensor(plan: Plan, name: str, timeline: Timeline | None = None) -> TensorStory:
    """Tell a tensor's story; raises InputError if the plan has no such tensor."""
    if name not in plan.graph.tensors:
        raise InputError(f"the plan has no tensor {name!r}{similar(name, list(plan.graph.tensors))}")
    timeline = timeline if timeline is not None else timeline_of(plan)
    tensor = plan.graph.tensors[name]
    position = {step.operator: i for i, step in enumerate(timeline.steps)}
    touches = _touches(plan, timeline, name, position)
    stays = tuple(stay for stay in timeline.stays if stay.tensor == name)
    moved = [t for t in timeline.transfers if t.tensor == name]
    occupied = [step.occupied_bytes for step in timeline.steps]
    absences = [] if bypasses(plan, name) else _absences(plan, name, touches, stays, occupied)
    return TensorStory(
        tensor=name,
        size_bytes=tensor.size_bytes,
        kind=str(tensor.kind),
        touches=tuple(touches),
        stays=stays,
        moved_bytes=sum(t.size_bytes for t in moved),
        cost_bytes=timeline.cost.get(name, 0),
        absences=tuple(replace(one, holders=_holders(plan, timeline, one.tightest, name)) for one in absences),
    )


def short_together(plan: Plan, timeline: Timeline, parts: Sequence[str]) -> tuple[list[range], int, int] | None:
    """What kept the parts of a tensor from staying, all at once; None where each stayed between its uses.

    Gives the runs of steps in which some were not kept, the step of these at which all that were not would have fitted
    least, and how many bytes were short there.
    """
    position = {step.operator: i for i, step in enumerate(timeline.steps)}
    wanted, missing = set(parts), [0] * len(timeline.steps)
    stays: dict[str, list[Stay]] = {}
    for stay in timeline.stays:
        if stay.tensor in wanted:
            stays.setdefault(stay.tensor, []).append(stay)
    for name in parts:
        space = align_up(plan.graph.tensors[name].size_bytes, plan.accelerator.alignment)
        made = position.get(plan.graph.producer(name) or "")
        for begin, end in pairwise([*([] if made is None else [made]), *timeline.uses[name]]):
            here = [stay for stay in stays.get(name, ()) if stay.start <= end and begin < stay.end]
            for step in range(begin, end + 1):
                if not any(stay.start <= step < stay.end for stay in here):
                    missing[step] += space
    absent = [i for i, space in enumerate(missing) if space]
    if not absent:
        return None
    tightest = max(absent, key=lambda i: timeline.steps[i].occupied_bytes + missing[i])
    needed = timeline.steps[tightest].occupied_bytes + missing[tightest]
    runs: list[range] = []
    for i in absent:
        if runs and runs[-1].stop == i:
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    return runs, tightest, max(0, needed - plan.accelerator.capacity_bytes)


def bypasses(plan: Plan, name: str) -> bool:
    """Whether a tensor is a weight that never lies in the scratchpad: each operator that uses it reads it anew."""
    return plan.graph.tensors[name].kind == "weight" and plan.accelerator.weights == Weights.STREAM


def _touches(plan: Plan, timeline: Timeline, name: str, position: Mapping[str, int]) -> list[int]:
    made = position.get(plan.graph.producer(name) or "")
    return [*([] if made is None else [made]), *timeline.uses[name]]


def _absences(
    plan: Plan, name: str, touches: Sequence[int], stays: Sequence[Stay], occupied: Sequence[int]
) -> list[Absence]:
    """When a tensor was not kept between two touches; who had the space then is left to be told."""
    tensor = plan.graph.tensors[name]
    space = align_up(tensor.size_bytes, plan.accelerator.alignment)
    gaps = [
        (begin, end)
        for begin, end in pairwise(touches)
        if not any(stay.start <= begin and end < stay.end for stay in stays)
    ]
    write_too = tensor.kind == "intermediate"
    found = []
    for begin, end in gaps:
        needed = [taken + space for taken in occupied[begin : end + 1]]
        for stay in stays:
            for step in range(max(begin, stay.start), min(end + 1, stay.end)):
                needed[step - begin] = occupied[step]
        most = max(needed)
        short = max(0, most - plan.accelerator.capacity_bytes)
        # The write goes too where this is the only time the tensor is not kept.
        cost = tensor.size_bytes * (2 if write_too and len(gaps) == 1 else 1)
        found.append(Absence(begin, end, begin + needed.index(most), short, cost, ()))
    return found


def _holders(plan: Plan, timeline: Timeline, step: int, without: str | None = None) -> tuple[Holder, ...]:
    operator = plan.graph.operator(timeline.steps[step].operator)
    found = []
    for stay in timeline.stays:
        if not stay.start <= step < stay.end or stay.tensor == without:
            continue
        if stay.in_place_of is not None and stay.start == step:
            continue  # its operand has the space until the step is over
        if stay.tensor in operator.operands:
            reason = "operand"
        elif stay.tensor in operator.outputs:
            reason = "result"
        else:
            later = next((use for use in timeline.uses[stay.tensor] if use > step), None)
            reason = "not used again" if later is None else f"kept for step {later}"
        found.append(Holder(stay.tensor, stay.space_bytes, reason))
    if scratch := scratch_bytes(operator, plan.accelerator):
        found.append(Holder("(workspace)", scratch, "of the operator"))
    return tuple(sorted(found, key=lambda h: (-h.space_bytes, h.tensor)))


def explain_operator(plan: Plan, name: str, timeline: Timeline | None = None) -> OperatorStory:
    """Tell what happens at an operator's step; raises InputError if the plan does not execute such an operator."""
    timeline = timeline if timeline is not None else timeline_of(plan)
    position = {step.operator: i for i, step in enumerate(timeline.steps)}
    if name not in position:
        raise InputError(f"the plan executes no operator {name!r}{similar(name, list(position))}")
    at = position[name]
    step, operator = timeline.steps[at], plan.graph.operator(name)
    here = {stay.tensor: stay for stay in timeline.stays if stay.start <= at < stay.end}
    touched = []
    for tensor in (*operator.inputs, *operator.weights, *operator.outputs):
        stay = here.get(tensor)
        where = "streamed" if stay is None else f"scratchpad @{stay.address}"
        if stay is not None and stay.in_place_of is not None and stay.start == at:
            where += f", in place of {stay.in_place_of}"
        space = align_up(plan.graph.tensors[tensor].size_bytes, plan.accelerator.alignment)
        touched.append((tensor, space, where))
    own = {*operator.operands, *operator.outputs}
    return OperatorStory(
        operator=name,
        type=step.type,
        step=at,
        occupied_bytes=step.occupied_bytes,
        touched=tuple(touched),
        kept=tuple(h for h in _holders(plan, timeline, at) if h.tensor not in own),
        moved=tuple(
            (t.kind, t.tensor, t.size_bytes, t.compulsory) for t in timeline.transfers if t.step == at and t.size_bytes
        ),
    )


def kept_out(plan: Plan, timeline: Timeline) -> list[tuple[str, Absence]]:
    """Times in which a tensor that costs something did not fit by size, without who had the space.

    Those that were least short come first, of these what would save most.
    """
    costly = [name for name in timeline.cost if not bypasses(plan, name)]
    stays: dict[str, list[Stay]] = {name: [] for name in costly}
    for stay in timeline.stays:
        if stay.tensor in stays:
            stays[stay.tensor].append(stay)
    occupied = [step.occupied_bytes for step in timeline.steps]
    position = {step.operator: i for i, step in enumerate(timeline.steps)}
    found = [
        (name, absence)
        for name in costly
        for absence in _absences(plan, name, _touches(plan, timeline, name, position), stays[name], occupied)
        if absence.short_bytes > 0
    ]
    return sorted(found, key=lambda one: (one[1].short_bytes, -one[1].cost_bytes, one[0]))


def holder_of(graph: Graph, name: str) -> str:
    """Name, before it was cut, of the operator that is fused of several, one of which yields a value of that name.

    It is the name itself where the plan has a tensor or an operator of that name, or nothing that yields it.
    """
    known = {*graph.tensors, *graph.roots, *(n for o in graph.operators for n in (o.name, untiled_name(o)))}
    return name if name in known else next((untiled_name(o) for o in graph.operators if name in o.covers), name)


def similar(name: str, known: list[str]) -> str:
    """Point to names like the one that was not found."""
    from difflib import get_close_matches

    close = [other for other in known if name and name.lower() in other.lower()][:3] or get_close_matches(name, known)
    return f"; did you mean {', '.join(repr(other) for other in close)}?" if close else ""
