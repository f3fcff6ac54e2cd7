"""What became of every node: operator, view, folded or dropped, and which operator stands for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosma.frontend.loaded import NodeFate, NodeRecord
from cosma.frontend.nodes import Node
from cosma.frontend.records import Step
from cosma.frontend.values import Value
from cosma.text import counted


def tensors_of(value: Value) -> Iterator[Value]:
    """The tensors a value is made of: itself, or the elements of a sequence."""
    if value.elements is None:
        yield value
    else:
        yield from value.elements


def fates_of(steps: Sequence[Step], outputs: Sequence[Value]) -> list[NodeFate]:
    """What became of each step once only what reaches an output through data is kept."""
    needed = {id(part) for value in outputs for part in (value, *tensors_of(value))}
    fates = []
    for step in reversed(steps):
        if step.fate is NodeFate.FOLDED:
            fates.append(NodeFate.FOLDED)
            continue
        if not any(id(value) in needed for value in step.results):
            # Only the shape of what it yields was used.
            fates.append(NodeFate.FOLDED)
            continue
        fates.append(step.fate)
        needed.update(id(part) for value in step.reads for part in (value, *tensors_of(value)))
    return fates[::-1]


def owners_of(steps: Sequence[Step], fates: Sequence[NodeFate], names: dict[int, str]) -> dict[int, str]:
    """Operator that stands for each step: itself, its operand's producer, or else the first that reads it."""
    owners: dict[int, str] = {}  # by identity of the step
    behind: dict[int, str] = {}  # operator that produced a value, by identity of the value
    waiting: dict[int, Step] = {}  # views of graph inputs, by identity of their results
    for step, fate in zip(steps, fates, strict=True):
        if fate is NodeFate.OPERATOR:
            owner = owners[id(step)] = names[id(step)]
            stack = [part for value in step.reads for part in (value, *tensors_of(value))]
            while stack:
                view = waiting.pop(id(stack.pop()), None)
                if view is not None and id(view) not in owners:
                    owners[id(view)] = owner
                    stack.extend(view.reads)
            behind.update((id(value), owner) for value in step.results)
        elif fate is NodeFate.VIEW:
            parts = [part for value in step.reads for part in (value, *tensors_of(value))]
            maker = next((behind[id(part)] for part in parts if id(part) in behind), None)
            if maker is None:
                waiting.update((id(value), step) for value in step.results)
                continue
            owners[id(step)] = maker
            behind.update((id(value), maker) for value in step.results)
    return owners


def records_of(
    steps: Sequence[Step],
    fates: Sequence[NodeFate],
    owners: dict[int, str],
    nodes: Sequence[Node],
    live: Sequence[bool],
) -> tuple[NodeRecord, ...]:
    """One record per node in the order of execution, dead ones last."""
    records = [
        NodeRecord(step.node.first_output, step.node.qualified_type, fate, owners.get(id(step)))
        for step, fate in zip(steps, fates, strict=True)
    ]
    records += [
        NodeRecord(node.first_output, node.qualified_type, NodeFate.DEAD)
        for node, alive in zip(nodes, live, strict=True)
        if not alive
    ]
    return tuple(records)


def summary_of(records: Sequence[NodeRecord], spliced: int, running: Sequence[Step]) -> Iterator[str]:
    """What a reader of the model should know of its nodes, one sentence each.

    ``spliced`` If nodes were replaced by one of their branches; the steps in ``running`` are operators.
    """
    count = {fate: sum(record.fate is fate for record in records) for fate in NodeFate}
    if spliced:
        yield f"If nodes of known condition, replaced by the branch taken: {spliced}"
    if count[NodeFate.VIEW]:
        yield f"views, which move no data: {counted(count[NodeFate.VIEW], 'node')}"
    if count[NodeFate.FOLDED]:
        yield f"known before the model runs, and folded: {counted(count[NodeFate.FOLDED], 'node')}"
    if count[NodeFate.DEAD]:
        yield f"dropped, as they reach no graph output: {counted(count[NodeFate.DEAD], 'node')}"
    tables = {rows.table.root for step in running for table in step.tables for rows in table.rows}
    if tables:
        yield f"read by rows, of which those count that indices select: {counted(len(tables), 'constant table')}"
    constants = {value.root: value for value in constants_read(running)}
    dequantized = {name for name, value in constants.items() if value.is_computed and _is_dequantized(value)}
    if dequantized:
        yield "dequantized constants count as they are stored: quantized, with their scales and zero points"
    others = sum(value.is_computed and name not in dequantized for name, value in constants.items())
    if others:
        yield f"counted as what they are computed from, which is smaller: {counted(others, 'constant')}"
    bodies = sum(step.node.subgraphs for step in running)
    if bodies:
        yield f"with bodies of which the weights are counted and nothing between nodes: {counted(bodies, 'operator')}"
    generated = sum(not value.stored for value in constants.values())
    if generated:
        free = counted(generated, "generated constant")
        yield f"without off-chip bytes, as they follow from shapes and attributes: {free}"


def _is_dequantized(value: Value) -> bool:
    """Whether quantized constants are among what a constant is computed from."""
    stack, seen = [value], set()
    while stack:
        top = stack.pop()
        if id(top) in seen or not top.is_computed or top.source is None:
            continue
        seen.add(id(top))
        node, operands, _ = top.source
        if node.type == "DequantizeLinear":
            return True
        stack.extend(operand for operand in operands if operand is not None)
    return False


def constants_read(running: Sequence[Step]) -> Iterator[Value]:
    """Constants that operators read whole."""
    for step in running:
        tables = {id(table.operand) for table in step.tables}
        for value in step.reads:
            yield from (part for part in tensors_of(value) if part.constant and id(part) not in tables)
