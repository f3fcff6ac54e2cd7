"""Constant tables of which an operator reads only the rows that its indices name.

One table says which operators do: adding one is one line. What is read is a *row set*, a weight of its own whose size
is that of the selected elements; the table itself is not read. Where the rows are no fewer bytes than the table, the
table is read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cosma.frontend.stored import data_operands, stored_bytes
from cosma.graph.semantics import ELEMENTWISE

if TYPE_CHECKING:
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Operands, Value

#: ``take``: whole slices along an axis, as ``Gather``. ``elements``: as ``GatherElements``. ``nd``: as ``GatherND``.
#: ``slice``: as ``Slice``. ``first``: as many of the first rows as the last axis of the index operand is long.
Kind = Literal["take", "elements", "nd", "slice", "first"]


@dataclass(slots=True, eq=False)
class RowSet:
    """The elements of one stored constant that an operator selects while the model runs."""

    #: The stored constant.
    table: Value
    #: How indices select; for ``nd`` the axis is the number of batch dimensions.
    kind: Kind
    axis: int
    #: What selects, in operand order; None for an absent operand.
    indices: tuple[Value | None, ...]
    #: Shape of what is selected.
    shape: tuple[int, ...]
    #: Name as a tensor of the graph; given when the graph is assembled.
    name: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes that are read; 0 where the element type has no width."""
        return stored_bytes(self.shape, self.table.element) or 0

    @property
    def label(self) -> str:
        """Name of the row set: the table's, and in brackets what selects."""
        given = ", ".join(index.root for index in self.indices if index is not None and not index.constant)
        match self.kind:
            case "take":
                inside = ":, " * self.axis + given
            case "elements":
                inside = f"{given} along {self.axis}"
            case "nd":
                inside = ":, " * self.axis + f"[{given}]"
            case "slice":
                inside = f"slice {given}"
            case "first":
                inside = f":{self.shape[0]}"
        return f"{self.table.root}[{inside}]"


@dataclass(frozen=True, slots=True, eq=False)
class TableRead:
    """What an operator reads of a constant operand instead of reading it whole."""

    #: The constant.
    operand: Value
    #: Row sets of the stored constants it is made of.
    rows: tuple[RowSet, ...]
    #: Names of stored constants that are read whole with them, such as scales.
    whole: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Table:
    """One table operand of an operator type: its position and how it is selected from."""

    position: int
    kind: Kind
    indices: tuple[int, ...]
    axis: Callable[[Node], int] = lambda _: 0
    #: Used where the operand at this position is absent.
    unless: int | None = None


def _axis(name: str, default: int) -> Callable[[Node], int]:
    return lambda node: node.integer(name, default) or 0


_QUANTIZED_AXIS = _axis("gather_axis", 0)

#: By domain and operator type.
TABLES: dict[tuple[str, str], tuple[_Table, ...]] = {
    ("", "Gather"): (_Table(0, "take", (1,), _axis("axis", 0)),),
    ("", "GatherElements"): (_Table(0, "elements", (1,), _axis("axis", 0)),),
    ("", "GatherND"): (_Table(0, "nd", (1,), _axis("batch_dims", 0)),),
    ("", "Slice"): (_Table(0, "slice", (1, 2, 3, 4)),),
    ("ai.onnx.ml", "ArrayFeatureExtractor"): (_Table(0, "take", (1,), lambda _: -1),),
    # docs/ContribOperators.md of ONNX Runtime: data, indices, scales, zero_points
    ("com.microsoft", "GatherBlockQuantized"): tuple(_Table(i, "take", (1,), _QUANTIZED_AXIS) for i in (0, 2, 3)),
    # the same: input_ids, segment_ids, word, position and segment embedding, gamma, beta, mask, position_ids
    ("com.microsoft", "EmbedLayerNormalization"): (
        _Table(2, "take", (0,)),
        _Table(3, "take", (8,)),
        _Table(3, "first", (0,), unless=8),
        _Table(4, "take", (1,)),
    ),
}


def table_reads(
    node: Node, operands: Operands, results: Sequence[Value], opset: int, holders: Mapping[str, Value]
) -> tuple[TableRead, ...]:
    """Find the constant operands of which a node reads rows."""
    found = []
    for table in TABLES.get((node.domain, node.type), ()):
        operand = _at(operands, table.position)
        if operand is None or not operand.constant or not operand.stored:
            continue
        if table.unless is not None and _at(operands, table.unless) is not None:
            continue
        indices = tuple(_at(operands, i) for i in table.indices)
        if indices[0] is None or sum(other is operand for other in operands) > 1:
            continue
        read = _table_read(operand, node, table, indices, results[0], opset, holders)
        if read is not None:
            found.append(read)
    return tuple(found)


def _at(operands: Operands, position: int) -> Value | None:
    return operands[position] if position < len(operands) else None


def _table_read(
    operand: Value,
    node: Node,
    table: _Table,
    indices: tuple[Value | None, ...],
    result: Value,
    opset: int,
    holders: Mapping[str, Value],
) -> TableRead | None:
    """Return the cheapest way to read rows of a constant, None where reading it whole is no dearer."""
    rank = len(operand.shape)
    axis = table.axis(node)
    if not rank or not -rank <= axis < rank:
        return None
    axis %= rank

    def select(value: Value, along: int) -> RowSet:
        return RowSet(value, table.kind, along, indices, _shape(value, table.kind, along, indices, result))

    sizes = {name: stored_bytes(holders[name].shape, holders[name].element) for name in operand.stored}
    whole_bytes = sum(size or 0 for size in sizes.values())
    choices = []
    parts = _parts(operand, axis, table.kind, select, opset)
    if parts is not None:
        choices.append(TableRead(operand, *parts))
    if not operand.is_computed or not _is_quantized(operand):
        choices.append(TableRead(operand, (select(operand, axis),)))

    def cost(read: TableRead) -> int:
        held = (holders[name] for name in read.whole)
        return sum(rows.size_bytes for rows in read.rows) + sum(stored_bytes(v.shape, v.element) or 0 for v in held)

    best = min(choices, key=cost, default=None)
    return best if best is not None and cost(best) < whole_bytes else None


def _is_quantized(value: Value) -> bool:
    return value.source is not None and value.source[0].type == "DequantizeLinear"


def _shape(
    table: Value, kind: Kind, axis: int, indices: tuple[Value | None, ...], result: Value
) -> tuple[int, ...]:
    index = indices[0]
    assert index is not None
    match kind:
        case "take":
            return (*table.shape[:axis], *index.shape, *table.shape[axis + 1 :])
        case "elements":
            return index.shape
        case "nd":
            return (*index.shape[:-1], *table.shape[axis + index.shape[-1] :]) if index.shape else result.shape
        case "slice":
            return result.shape
        case "first":
            return (min(index.shape[-1], table.shape[0]), *table.shape[1:])


def _parts(
    value: Value, axis: int, kind: Kind, select: Callable[[Value, int], RowSet], opset: int
) -> tuple[tuple[RowSet, ...], tuple[str, ...]] | None:
    """Row sets of the stored constants that a constant is made of element by element, and what is read whole."""
    if not value.is_computed:
        return ((select(value, axis),), ()) if value.stored else ((), ())
    if value.source is None or value.source[0].domain or value.source[0].type not in ELEMENTWISE:
        return None
    node, operands, _ = value.source
    rows: list[RowSet] = []
    whole: list[str] = []
    scale_axis = (node.integer("axis", 1) or 0) % len(value.shape)
    for operand in data_operands(node, operands, opset):
        # A vector of scales is as long as the table has rows.
        per_row = node.type == "DequantizeLinear" and len(operand.shape) == 1 < len(value.shape) and scale_axis == axis
        along = 0 if per_row else axis
        aligned = operand.shape == value.shape
        if kind == "take" and not aligned and (per_row or len(operand.shape) == len(value.shape)):
            aligned = operand.shape[along] == value.shape[axis]
        inner = _parts(operand, along, kind, select, opset) if aligned and value.shape[axis] > 1 else None
        rows += inner[0] if inner is not None else ()
        whole += inner[1] if inner is not None else operand.stored
    return tuple(rows), tuple(dict.fromkeys(whole))

