"""What lies off-chip for a constant: itself, or the constants it is computed from where those are smaller.

A constant that is generated (``Expand``, ``Tile``, ``ConstantOfShape``, ``Range``, a mask) counts what it is generated
from, and nothing where only shapes and attributes decide it. A constant that is computed to something smaller
(a ``Slice`` of a weight, a ``Cast`` to a narrower type) counts the result. A dequantized constant always counts its
quantized form: that is what integer kernels read. A bias of 32-bit integers counts without its scale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cosma.errors import GraphError
from cosma.frontend.parameters import parameter_positions, type_only_positions
from cosma.frontend.values import Value, dtype_name
from cosma.graph.dtypes import size_of

if TYPE_CHECKING:
    from cosma.frontend.evaluate import Evaluator
    from cosma.frontend.nodes import Node


#: ONNX's number of the type that biases are quantised to. They have the scale of the product that they are added to, so
#: an integer kernel adds them as they are and reads no scale of theirs.
_INT32 = 6


def data_operands(node: Node, operands: Iterable[Value | None], opset: int) -> list[Value]:
    """Operands whose content a node reads as data: no parameters, and none of which only the type is used."""
    skipped = type_only_positions(node) | parameter_positions(node, opset)
    return [operand for i, operand in enumerate(operands) if operand is not None and i not in skipped]


def settle_stored(value: Value, node: Node, sources: Iterable[Value], holders: Mapping[str, Value]) -> None:
    """Decide what a folded constant is stored as, and set its ``stored`` and ``equal_to``.

    ``sources`` are the constants it is computed from as data.
    """
    sources = list(sources)
    dequantised = node.type == "DequantizeLinear" and node.domain in ("", "com.microsoft")
    if dequantised and sources and sources[0].element == _INT32:
        del sources[1:]
    stored = tuple(dict.fromkeys(name for source in sources for name in source.stored))
    own = stored_bytes(value.shape, value.element)
    sizes = [stored_bytes(holders[name].shape, holders[name].element) for name in stored if name in holders]
    known = [size for size in sizes if size is not None]
    if own is None or len(known) < len(stored):
        value.stored = (value.root,)
        return
    if sum(known) < own or not sum(known) or dequantised:
        value.stored = stored
        return
    value.stored = (value.root,)
    if sum(known) == own and len(stored) == 1:
        # Stored as it is or as its source, the bytes are the same: what else is read decides.
        value.equal_to = holders[stored[0]].equal_to or stored[0]


def distinct_rows(
    node: Node, operands: tuple[Value | None, ...], evaluator: Evaluator, values: dict[str, Value]
) -> tuple[Node, tuple[Value | None, ...]] | None:
    """Take a Gather of constants that names rows repeatedly for a Gather from the distinct rows.

    Returns the node and operands that yield the same from the distinct rows, which are added to ``values``; None where
    those are no fewer bytes than the table or than the result. The evaluator gives the content of the indices.
    """
    if node.type != "Gather" or node.domain or operands[0] is None or operands[1] is None:
        return None
    table, index = operands[0], operands[1]
    content: Any = evaluator.array(index)
    axis, rank = node.integer("axis", 0) or 0, len(table.shape)
    if content is None or not -rank <= axis < rank:
        return None
    import numpy as np
    from onnx import helper

    from cosma.frontend.nodes import make_node

    axis, size = axis % rank, table.shape[axis % rank]
    rows, where = np.unique(np.where(content < 0, content + size, content), return_inverse=True)
    if len(rows) >= min(size, content.size):
        return None
    shape = (*table.shape[:axis], len(rows), *table.shape[axis + 1 :])
    name = f"{table.root}[distinct {index.root}]"
    pick, place = f"{name} rows", f"{name} places"
    if table.name not in values or {name, pick, place} & values.keys():
        return None
    for made, array, stored in ((pick, rows, ()), (place, where.reshape(content.shape), index.stored)):
        values[made] = Value(
            made, 7, array.shape, made, constant=True, stored=stored, array=array.astype(np.int64), evaluated=True
        )
    found = Value(name, table.element, shape, name, constant=True, stored=(name,))
    maker = make_node(helper.make_node("Gather", [table.name, pick], [name], axis=axis))
    found.source = (maker, (table, values[pick]), 0)
    values[name] = found
    settle_stored(found, maker, [table], values)
    again = make_node(helper.make_node("Gather", [name, place], [node.first_output], node.name, axis=axis))
    return again, (found, values[place])


def share_equals(read: Iterable[Value]) -> dict[str, str]:
    """For constants read, as large as the one they come from: the source, where that serves several readers.

    A transposed copy of a table that is also read as it is, or two transposed copies of it, need one table off-chip.
    Returns by name of the stored constant the name it is read under instead.
    """
    names: dict[str, None] = {}
    sources: dict[str, str] = {}
    for value in read:
        names.update(dict.fromkeys(value.stored))
        if value.equal_to is not None:
            sources[value.root] = value.equal_to
    wanted = Counter(sources.values())
    return {name: source for name, source in sources.items() if source in names or wanted[source] > 1}


def stored_bytes(shape: tuple[int, ...], element: int) -> int | None:
    """Bytes that a tensor takes off-chip; None where its element type (ONNX's number) has no fixed width."""
    try:
        return size_of(shape, dtype_name(element))
    except GraphError:
        return None
