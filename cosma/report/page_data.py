"""What the page of a plan knows, as compact lists: the page's script draws and tells stories from nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosma.plan.tiles import fused_groups, root_name, untiled_name
from cosma.report.explain import explain_tensor
from cosma.report.style import hues
from cosma.units import format_size, unit_for

if TYPE_CHECKING:
    from cosma.plan import Plan
    from cosma.plan.costs import Estimate
    from cosma.plan.timeline import Timeline
    from cosma.report.explain import TensorStory

#: Tensors whose story says why they left; each is some hundred bytes of a page of at most three megabytes.
STORIES = 300

#: Periods and holders told of one tensor.
_PERIODS, _HOLDERS = 4, 4


def page_data(plan: Plan, timeline: Timeline, estimate: Estimate | None = None) -> dict[str, Any]:
    """Collect what is drawn of a plan.

    Parameters
    ----------
    estimate
        Of its time, for a time axis.
    """
    graph, capacity = plan.graph, plan.accelerator.capacity_bytes
    names = list(graph.tensors)
    index = {name: i for i, name in enumerate(names)}
    position = {step.operator: i for i, step in enumerate(timeline.steps)}
    owners = list(dict.fromkeys(untiled_name(graph.operator(step.operator)) for step in timeline.steps))
    owner_index = {name: i for i, name in enumerate(owners)}
    producers = {name: graph.producer(name) for name in names}

    def owner(tensor: str) -> int:
        """Whose colour a tensor has: of the operator that produces it, or of the first that reads it."""
        maker = producers[tensor]
        step = position.get(maker) if maker is not None else next(iter(timeline.uses[tensor]), None)
        return -1 if step is None else owner_index[untiled_name(graph.operator(timeline.steps[step].operator))]

    factor, unit = unit_for(capacity)
    kinds = ["load", "store", "stream in", "stream out"]
    return {
        "factor": factor,
        "unit": unit,
        "capacity": capacity,
        "owners": owners,
        "hues": hues(len(owners)),
        "steps": [
            [
                step.operator, step.type, step.occupied_bytes, step.loaded, step.stored, step.streamed,
                step.compulsory, owner_index[untiled_name(graph.operator(step.operator))],
            ]
            for step in timeline.steps
        ],
        "tensors": [
            [
                name, tensor.size_bytes, str(tensor.kind), position.get(producers[name] or "", -1),
                list(timeline.uses[name]), timeline.cost.get(name, 0), owner(name),
                root_name(tensor) if tensor.region is not None else 0,
            ]
            for name, tensor in graph.tensors.items()
        ],
        "stays": [
            [
                index[stay.tensor], stay.address, stay.space_bytes, stay.start, stay.end, str(stay.origin),
                str(stay.ending), -1 if stay.in_place_of is None else index[stay.in_place_of],
            ]
            for stay in timeline.stays
        ],
        "transfers": [
            [index[t.tensor], kinds.index(t.kind), t.step, int(t.compulsory)]
            for t in timeline.transfers
            if t.size_bytes and t.step < len(timeline.steps)
        ],
        "tiles": {
            str(i): _box(operator.tile.start, operator.tile.stop)
            for i, operator in enumerate(graph.operator(step.operator) for step in timeline.steps)
            if operator.tile is not None
        },
        "groups": _groups(plan),
        "stories": _stories(plan, timeline, index),
        "time": None if estimate is None else _starts(timeline, estimate),
    }  # fmt: skip


def _box(start: tuple[int, ...], stop: tuple[int, ...]) -> str:
    return "[" + ", ".join(f"{low}:{high}" for low, high in zip(start, stop, strict=True)) + "]"


def _groups(plan: Plan) -> list[list[Any]]:
    if not plan.graph.is_tiled:
        return []
    return [
        [group.start, group.end, list(group.operators), group.tiles]
        for group in fused_groups(plan.graph, plan.schedule)
    ]


def _starts(timeline: Timeline, estimate: Estimate) -> list[float]:
    """When each step begins, in seconds, and the end; never falling."""
    begins = {event.name: event.start_s for event in estimate.events if event.kind == "execute"}
    ends: list[float] = [0.0]
    for step in timeline.steps[1:]:
        ends.append(max(ends[-1], begins[step.operator]))
    return [float(f"{value:.9g}") for value in (*ends[: len(timeline.steps)], max(ends[-1], estimate.total_s))]


def _stories(plan: Plan, timeline: Timeline, index: dict[str, int]) -> dict[str, list[Any]]:
    return {
        str(index[name]): _story(plan, timeline, explain_tensor(plan, name, timeline))
        for name in list(timeline.cost)[:STORIES]
    }


def _story(plan: Plan, timeline: Timeline, story: TensorStory) -> list[Any]:
    """Why a tensor left and what would help: a sentence each, with who had the space."""
    found: list[Any] = []
    for absence in story.absences[:_PERIODS]:
        holders = [[h.tensor, format_size(h.space_bytes), h.reason] for h in absence.holders[:_HOLDERS]]
        found.append([absence.sentence(plan, timeline), holders])
    if len(story.absences) > _PERIODS:
        found.append([f"And {len(story.absences) - _PERIODS} more periods.", []])
    if beside := story.beside():
        found.append([beside, []])
    return found
