"""TensorFlow Lite Micro's offline-planned tensor allocation.

TFLM reads it from a metadata entry named ``OfflineMemoryAllocation``, whose buffer holds little-endian 32-bit
integers: the format's version (1), the subgraph, how many offsets follow, then for each tensor of the subgraph
its byte offset from the start of the arena's head, or -1 where TFLM is to place it itself ("Offline planned
tensor allocations" in TFLM's ``memory_management.md``).

TFLM keeps a tensor at one place from first to last use, inputs from the start, outputs to the end, and knows no
off-chip memory for activations. So only plans that spill and stream nothing can be written this way; for
others an error says what stands against it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.errors import InputError
from cosma.export.names import named_plan
from cosma.plan.timeline import Stay, timeline_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.plan import Plan

#: What TFLM looks for, and the version of the format.
METADATA_NAME, VERSION = "OfflineMemoryAllocation", 1
#: Bytes TFLM aligns every buffer of its arena to.
ARENA_ALIGNMENT = 16
#: Offsets are signed 32-bit numbers.
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Life:
    tensor: str
    start: int
    end: int
    address: int
    top: int


def tflm_offsets(plan: Plan) -> dict[str, int]:
    """Byte offset of every activation.

    Raises InputError if the plan does something TFLM cannot: spills, streaming, in-place results, an address that is no
    multiple of 16, space of an input or output that others use before or after, or a tensor cut into parts.
    """
    plan = named_plan(plan)
    if plan.graph.roots:
        root = next(iter(plan.graph.roots))
        count = len(plan.graph.parts_of(root))
        raise InputError(
            f"tensor {root!r} is cut into {count} parts with an address each, but TFLM knows one address for a tensor; "
            "plan with more scratchpad"
        )
    timeline = timeline_of(plan)
    last = len(timeline.steps)
    streamed = [
        t for t in timeline.transfers if t.kind.startswith("stream") and plan.graph.tensors[t.tensor].kind != "weight"
    ]
    if streamed:
        raise InputError(
            f"{_first(streamed[0].tensor, len(streamed))} streamed past the scratchpad, which TFLM cannot do; plan "
            "with a scratchpad large enough that nothing is (see `cosma curve`), or with operands resident"
        )
    lives: dict[str, _Life] = {}
    for stay in timeline.stays:
        tensor = plan.graph.tensors[stay.tensor]
        if tensor.kind == "weight":
            raise InputError("weights lie in the scratchpad, but TFLM reads them from the model; plan to stream them")
        _check(stay)
        if stay.tensor in lives:
            raise InputError(
                f"tensor {stay.tensor!r} is spilled and loaded again, which TFLM cannot do; plan with more scratchpad"
            )
        start = 0 if tensor.kind == "input" else stay.start
        end = last if tensor.kind == "output" else stay.end
        lives[stay.tensor] = _Life(stay.tensor, start, end, stay.address, stay.address + stay.space_bytes)
    overlap = _overlap(list(lives.values()))
    if overlap is not None:
        raise InputError(
            f"{overlap[0]!r} and {overlap[1]!r} share space at different steps, but TFLM keeps inputs from "
            "the start and outputs to the end; plan with a larger scratchpad"
        )
    return {name: life.address for name, life in lives.items()}


def tflm_metadata(
    plan: Plan, tensors: Sequence[str] | None = None, *, subgraph: int = 0, reordered: bool = False
) -> bytes:
    """Write the content of the metadata buffer.

    Parameters
    ----------
    plan
        A plan in which every activation has one place for its whole life; see :func:`tflm_offsets`.
    tensors
        Names of all tensors of the ``.tflite`` subgraph in its order; those the plan does not know get -1. Without
        it, the plan's activations in the plan's order.
    subgraph
        Index of the subgraph.
    reordered
        Whether the file's operators are put into the plan's order. TFLM runs them in the file's, which is taken to be
        that of the plan's graph.

    Raises
    ------
    InputError
        Where :func:`tflm_offsets` does, if ``tensors`` lacks one of the plan's activations, or if tensors overlap in
        the order in which the file's operators run.
    """
    offsets = tflm_offsets(plan)
    if not reordered:
        _check_file_order(plan, offsets)
    subgraph = door.integer(subgraph, "subgraph", least=0, most=_MOST)
    beyond = next((name for name, offset in offsets.items() if offset > _MOST), None)
    if beyond is not None:
        raise InputError(f"tensor {beyond!r} lies at {offsets[beyond]}; TFLM counts in 32 bits, up to {_MOST}")
    if tensors is None:
        names = [name for name in plan.graph.tensors if name in offsets]
    else:
        names = list(door.texts(tensors, "tensors"))
    missing = sorted(offsets.keys() - set(names))
    if missing:
        raise InputError(
            f"the list of tensors lacks {len(missing)} activations of the plan, such as {missing[0]!r}; list the names "
            "of the .tflite file's tensors in its order, as the plan spells them"
        )
    values = [VERSION, subgraph, len(names), *(offsets.get(name, -1) for name in names)]
    return struct.pack(f"<{len(values)}i", *values)


def _check(stay: Stay) -> None:
    if stay.in_place_of is not None:
        raise InputError(
            f"{stay.tensor!r} takes over the space of {stay.in_place_of!r} while its operator runs; TFLM does not "
            "promise that its kernels allow it: plan without in-place results"
        )
    if stay.address % ARENA_ALIGNMENT:
        raise InputError(
            f"{stay.tensor!r} lies at {stay.address}, no multiple of {ARENA_ALIGNMENT}; plan with that alignment"
        )


def _check_file_order(plan: Plan, offsets: dict[str, int]) -> None:
    """Refuse addresses at which tensors overlap when operators run in the order of the graph."""
    plan = named_plan(plan)
    graph, lives = plan.graph, []
    step = {operator.name: k for k, operator in enumerate(graph.operators)}
    for name, address in offsets.items():
        tensor, producer = graph.tensors[name], graph.producer(name)
        start = 0 if producer is None else step[producer]
        end = max((step[user] for user in graph.consumers(name)), default=start) + 1
        lives.append(
            _Life(name, start, len(step) if tensor.kind == "output" else end, address, address + tensor.size_bytes)
        )
    overlap = _overlap(lives)
    if overlap is not None:
        raise InputError(
            f"{overlap[0]!r} and {overlap[1]!r} overlap in the order in which the file's operators run, not the "
            "plan's; write the plan into the .tflite file itself, which reorders them, or plan the file's order with "
            "the strategy given+belady+first-fit"
        )


def _overlap(lives: list[_Life]) -> tuple[str, str] | None:
    """Two tensors that are alive together and share space, if there are such."""
    lives.sort(key=lambda life: (life.start, life.address))
    alive: list[_Life] = []
    for life in lives:
        alive = [other for other in alive if other.end > life.start]
        for other in alive:
            if other.address < life.top and life.address < other.top:
                return other.tensor, life.tensor
        alive.append(life)
    return None


def _first(name: str, count: int) -> str:
    return f"tensor {name!r} is" if count == 1 else f"{count} tensors, such as {name!r}, are"
