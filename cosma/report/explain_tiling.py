"""Why an operator is cut as it is: its tiles, what fills the scratchpad beside them, what ends its group."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from cosma.graph import TensorKind
from cosma.plan.tiles import fused_groups, root_name, untiled_name
from cosma.plan.timeline import Timeline, scratch_bytes, timeline_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.access import NodeSite
    from cosma.graph import Graph
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class AxisCut:
    """Tiles along one axis of a result, or steps of a sum."""

    #: Which; ``sum`` is the axis that the operator sums over.
    axis: int | Literal["sum"]
    #: How many.
    tiles: int
    #: Elements of a tile along the axis.
    smallest: int
    largest: int


@dataclass(frozen=True, slots=True)
class Reader:
    """An operator outside of a fused group that reads what one of the group makes."""

    #: The reader, untiled.
    operator: str
    #: What it reads, untiled.
    tensor: str
    #: Why the reader needs all of it, where it is known that it does; empty otherwise.
    barrier: str


@dataclass(frozen=True, slots=True)
class CutStory:
    """How an operator is cut, and what it shares the scratchpad with."""

    #: The untiled operator.
    operator: str
    #: Its cuts; none where it runs whole.
    axes: tuple[AxisCut, ...]
    #: Operators that its tiles take turns with, itself included.
    group: tuple[str, ...]
    #: The step of its tile at which the most is taken.
    step: int
    #: Room, and what is taken then.
    capacity_bytes: int
    occupied_bytes: int
    #: The tile's operands, results and workspace, and its weights.
    own_bytes: int
    own_weight_bytes: int
    #: What is kept for later steps: parts of activations, and weights.
    kept_map_bytes: int
    kept_weight_bytes: int
    #: The largest of the four: ``tile``, ``weights of the tile``, ``maps kept`` or ``weights kept``.
    limit: Literal["tile", "weights of the tile", "maps kept", "weights kept"]
    #: The largest that is kept, by untiled tensor, with its bytes.
    largest: tuple[tuple[str, int], ...]
    #: Where the group ends: who outside of it reads what it makes.
    readers: tuple[Reader, ...]


def explain_cut(
    plan: Plan, name: str, timeline: Timeline | None = None, barriers: Mapping[str, str] | None = None
) -> CutStory | None:
    """Tell how an untiled operator is cut; None where the plan has no such operator.

    Parameters
    ----------
    plan
        A valid plan.
    barriers
        Why operators read all of an operand, by untiled operator; see :func:`barriers_of`.
    """
    timeline = timeline if timeline is not None else timeline_of(plan)
    graph = plan.graph
    steps = [i for i, step in enumerate(timeline.steps) if untiled_name(graph.operator(step.operator)) == name]
    if not steps:
        return None
    tightest = max(steps, key=lambda i: (timeline.steps[i].occupied_bytes, -i))
    operator = graph.operator(timeline.steps[tightest].operator)
    sums = {"tile": scratch_bytes(operator, plan.accelerator)}
    sums |= {"weights of the tile": 0, "maps kept": 0, "weights kept": 0}
    kept: dict[str, int] = {}
    for stay in timeline.stays:
        if not stay.start <= tightest < stay.end or (stay.in_place_of is not None and stay.start == tightest):
            continue
        weight = graph.tensors[stay.tensor].kind is TensorKind.WEIGHT
        own = stay.tensor in operator.operands or stay.tensor in operator.outputs
        sums[("weights of the tile" if weight else "tile") if own else ("weights kept" if weight else "maps kept")] += (
            stay.space_bytes
        )
        if not own:
            root = root_name(graph.tensors[stay.tensor])
            kept[root] = kept.get(root, 0) + stay.space_bytes
    group = next((g.operators for g in fused_groups(graph, plan.schedule) if g.start <= tightest < g.end), (name,))
    limit: Literal["tile", "weights of the tile", "maps kept", "weights kept"] = "tile"
    for key in ("weights of the tile", "maps kept", "weights kept"):
        if sums[key] > sums[limit]:
            limit = key
    return CutStory(
        operator=name,
        axes=_axes(graph, name),
        group=group,
        step=tightest,
        capacity_bytes=plan.accelerator.capacity_bytes,
        occupied_bytes=timeline.steps[tightest].occupied_bytes,
        own_bytes=sums["tile"],
        own_weight_bytes=sums["weights of the tile"],
        kept_map_bytes=sums["maps kept"],
        kept_weight_bytes=sums["weights kept"],
        limit=limit,
        largest=tuple(sorted(kept.items(), key=lambda item: (-item[1], item[0]))),
        readers=_readers(graph, group, barriers or {}),
    )


def _axes(graph: Graph, name: str) -> tuple[AxisCut, ...]:
    tiles = [(o.tile, o.accumulation) for o in graph.operators if o.tile is not None and o.tile.root == name]
    spans: dict[int | Literal["sum"], list[tuple[int, int]]] = {
        axis: [tile.box[axis] for tile, _ in tiles] for axis in range(len(tiles[0][0].box) if tiles else 0)
    }
    spans["sum"] = [(step.start, step.stop) for _, step in tiles if step]
    found = []
    for axis, cut in spans.items():
        edges = sorted({start for start, _ in cut} | {max((stop for _, stop in cut), default=0)})
        sizes = [b - a for a, b in pairwise(edges)]
        if len(sizes) > 1:
            found.append(AxisCut(axis, len(sizes), min(sizes), max(sizes)))
    return tuple(found)


def _readers(graph: Graph, group: tuple[str, ...], barriers: Mapping[str, str]) -> tuple[Reader, ...]:
    inside = set(group)
    found = {}
    for operator in graph.operators:
        if untiled_name(operator) not in inside:
            continue
        for name in operator.outputs:
            for reader in graph.consumers(name):
                who = untiled_name(graph.operator(reader))
                if who not in inside:
                    tensor = root_name(graph.tensors[name])
                    found[who, tensor] = Reader(who, tensor, barriers.get(who, ""))
    return tuple(found.values())


def barriers_of(graph: Graph, sites: Mapping[str, NodeSite]) -> dict[str, str]:
    """Say of each untiled operator that cannot be cut why, or along which axes its elements read all of an operand."""
    from cosma.access.operator import operator_access

    found = {}
    for operator in graph.operators:
        access = operator_access(graph, sites, operator)
        why = access.why_whole()
        if not why:
            inputs = set(operator.inputs)
            read = {name: axes for name, axes in access.reads_whole().items() if name in inputs and len(axes) > 1}
            if read:
                name, axes = next(iter(read.items()))
                why = f"each element of its result reads {name} whole along axes {', '.join(map(str, axes))}"
        if why:
            found[operator.name] = why
    return found
