"""A memory-planning algorithm for ExecuTorch: offsets for its tensor specs by the packing engine.

::

    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.memory_planning import MemoryPlanningAlgorithmSuite, greedy
    from executorch.exir.passes import MemoryPlanningPass
    from cosma.export import executorch_memory

    suite = MemoryPlanningAlgorithmSuite([greedy, executorch_memory])
    program = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(suite)))

It takes what ExecuTorch's own algorithms take, keeps the order of the operators, and gives the lowest arena that is
found within the work limit. Alone it may be used as well; in a suite ExecuTorch takes the better of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosma.errors import InputError
from cosma.packing import WORK_LIMIT, Buffer, minimise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Memory of specs that name none, as in ExecuTorch's own algorithms; 0 is for constants.
_DEFAULT_MEMORY = 1


def executorch_memory(
    alignment: int,
    specs: Iterable[Any],
    graph_module: Any,
    graph_signature: Any,
    extra_padding: int = 0,
    *,
    work_limit: int = WORK_LIMIT,
) -> Any:
    """Give every spec an offset in its memory, the memories as low as is found.

    Deterministic: the same specs give the same offsets, in whatever order they come.

    Parameters
    ----------
    alignment
        What offsets are a multiple of, in bytes.
    specs
        ExecuTorch's ``TensorSpec`` with lifetimes, inclusive on both sides.
    graph_module
        Where submodules were planned, it says how much of each memory they take (``input_mem_buffer_sizes``).
    graph_signature
        As ExecuTorch hands it over; not looked at.
    extra_padding
        Bytes to add to each memory.
    work_limit
        Units of packing work for each memory; see :func:`cosma.packing.pack`.

    Returns
    -------
    executorch.exir.memory_planning.MemoryAlgoResult
        Offsets by spec, and the bytes of each memory.

    Raises
    ------
    InputError
        If a spec has no lifetime, or lies in the storage of one that is not planned here or is smaller.
    """
    from executorch.exir.memory_planning import (
        MemoryAlgoResult,
        SpecAllocResult,
    )

    rows = list(specs)
    for spec in rows:
        spec.realign(alignment)
    taken = list(getattr(graph_module, "input_mem_buffer_sizes", None) or ())
    memory_of = {id(spec): _DEFAULT_MEMORY if spec.mem_id is None else spec.mem_id for spec in rows}
    memories = sorted(set(memory_of.values()))
    sizes = [0] * (max([_DEFAULT_MEMORY, *memories]) + 1)
    offsets: dict[int, int] = {}
    for memory in memories:
        own = [spec for spec in rows if spec.storage_base is None and memory_of[id(spec)] == memory]
        base = taken[memory] if memory < len(taken) else 0
        base += -base % alignment
        found, height = _pack(own, alignment, work_limit)
        offsets |= {id(spec): base + offset for spec, offset in zip(own, found, strict=True)}
        sizes[memory] = (base + height if own else base) + extra_padding
    for spec in rows:
        if spec.storage_base is not None:
            offsets[id(spec)] = _within(spec, offsets)
            memory_of[id(spec)] = memory_of[id(_root(spec))]
    # One object for all: what shares bytes at different times is said by offsets and lifetimes.
    placed = {spec: SpecAllocResult(memory_of[id(spec)], 0, offsets[id(spec)]) for spec in rows}
    return MemoryAlgoResult(placed, sizes)


def _pack(specs: Sequence[Any], alignment: int, work_limit: int) -> tuple[list[int], int]:
    """Offsets of specs and the bytes they take together."""
    for spec in specs:
        if spec.lifetime[0] is None or spec.lifetime[1] is None:
            raise InputError(f"a tensor spec of {spec.allocated_memory} bytes has no lifetime")
    # Specs have no names: those with the same life and size are alike, so their order does not matter.
    order = sorted(range(len(specs)), key=lambda i: (*specs[i].lifetime, specs[i].allocated_memory))
    buffers = [
        Buffer(str(number), specs[i].lifetime[0], specs[i].lifetime[1] + 1, specs[i].allocated_memory)
        for number, i in enumerate(order)
    ]
    if not buffers:
        return [], 0
    result = minimise(buffers, alignment=alignment, work_limit=work_limit)
    found = [0] * len(specs)
    for number, i in enumerate(order):
        found[i] = result.offsets[str(number)]
    return found, max(offset + spec.allocated_memory for offset, spec in zip(found, specs, strict=True))


def _root(spec: Any) -> Any:
    """The spec in whose storage another one lies, at any depth."""
    seen = set()
    while spec.storage_base is not None:
        if id(spec) in seen:
            raise InputError("tensor specs lie in each other's storage in a circle")
        seen.add(id(spec))
        spec = spec.storage_base
    return spec


def _within(spec: Any, offsets: dict[int, int]) -> int:
    """Offset of a spec in the storage of another one."""
    root, shift = _root(spec), 0
    if id(root) not in offsets:
        raise InputError("a tensor spec lies in the storage of one that is not planned with it")
    inner = spec
    while inner.storage_base is not None:
        shift += inner.storage_base_offset
        inner = inner.storage_base
    if shift + spec.allocated_memory > root.allocated_memory:
        raise InputError(
            f"a tensor spec of {spec.allocated_memory} bytes at {shift} reaches beyond the {root.allocated_memory} "
            "bytes of the storage it lies in"
        )
    return int(offsets[id(root)]) + shift
