"""What operators that only move elements move: boxes of their results that are boxes of their operands.

Concat, Split, Slice with steps of one, and Gather of neighbours in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from cosma.access import Box, NodeSite, whole
from cosma.access.operator import can_be_cut
from cosma.graph import Graph, Operator

#: Types of operators that only move elements, of which some copy nothing.
COPIES = frozenset({"Concat", "Gather", "Slice", "Split"})


@dataclass(frozen=True, slots=True)
class Move:
    """A box of a result that is a box of an operand.

    ``axes`` names the operand's axis of each axis of the result; -1 where the box has one element along the result's,
    which the operand need not have.
    """

    result: str
    into: Box
    operand: str
    box: Box
    axes: tuple[int, ...]


def moves_of(graph: Graph, operator: Operator, sites: Mapping[str, NodeSite]) -> tuple[Move, ...] | None:
    """What an operator moves; None where it does more than that, or what it does is not known."""
    if operator.fused or operator.domain or operator.tile or operator.type not in COPIES:
        return None
    names = (*operator.inputs, *operator.outputs)
    if any(graph.tensors[name].shape is None or not can_be_cut(graph, name) for name in names):
        return None
    if len({graph.tensors[name].dtype for name in names}) != 1:
        return None
    shapes = {name: graph.tensors[name].shape or () for name in names}
    site = next((sites[name] for name in operator.covers if name in sites), None)
    seen = dict(shapes)
    if site is not None:
        if not _in_order(site, operator, shapes):
            return None
        seen |= {a.value: a.shape for a in site.operands if a is not None and not a.constant}
    onto = {name: _axes_onto(seen[name], shapes[name]) for name in names}
    if any(axes is None for axes in onto.values()):
        return None
    moves: Sequence[Move] | None = None
    if operator.type in ("Concat", "Split"):
        # Constants among the operands of a Concat are copied; those of the others are no more than parameters.
        moves = _along_axis(operator, seen) if operator.type == "Split" or not operator.weights else None
    elif site is not None:
        moves = _selection(operator, seen, site, onto[operator.inputs[0]] or ())
    return None if moves is None else tuple(_in_tensors(move, shapes, onto[move.operand] or ()) for move in moves)


def _in_order(site: NodeSite, operator: Operator, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a node has the operator's operands and results, each once, in its order, the results in their shapes."""
    read = [a.value for a in site.operands if a is not None and not a.constant]
    results = [(name, shape) for name, shape in zip(site.results, site.site.results, strict=False) if name]
    return (
        tuple(read) == operator.inputs
        and tuple(name for name, _ in results) == operator.outputs
        and all(shapes[name] == shape for name, shape in results)
    )


def _axes_onto(seen: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The tensor's axis of each axis that a node sees, -1 for one of size one; None where the two differ otherwise."""
    if seen == shape:
        return tuple(range(len(shape)))
    long = [axis for axis, size in enumerate(shape) if size != 1]
    if [size for size in seen if size != 1] != [shape[axis] for axis in long]:
        return None
    rest = iter(long)
    return tuple(next(rest) if size != 1 else -1 for size in seen)


def _in_tensors(move: Move, shapes: Mapping[str, tuple[int, ...]], onto: tuple[int, ...]) -> Move:
    """A move in terms of the operand's own axes, where the node sees others of size one."""
    box = list(whole(shapes[move.operand]))
    for axis, of in enumerate(onto):
        if of >= 0:
            box[of] = move.box[axis]
    return replace(move, box=tuple(box), axes=tuple(onto[axis] if axis >= 0 else -1 for axis in move.axes))


def _along_axis(operator: Operator, shapes: Mapping[str, tuple[int, ...]]) -> list[Move] | None:
    """Concat and Split: several tensors side by side along one axis of another."""
    joining = operator.type == "Concat"
    (one,), many = (operator.outputs, operator.inputs) if joining else (operator.inputs, operator.outputs)
    stated = operator.parts[0].attribute("axis")
    axis = 0 if stated is None and not joining else stated
    shape = shapes[one]
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    if any(_without(shapes[name], axis) != _without(shape, axis) for name in many):
        return None
    ends = list(accumulate(shapes[name][axis] for name in many))
    if not ends or ends[-1] != shape[axis]:
        return None
    found = []
    axes = tuple(range(len(shape)))
    for name, end in zip(many, ends, strict=True):
        inside = whole(shapes[name])
        start = end - shapes[name][axis]
        around = tuple((start, end) if i == axis else span for i, span in enumerate(whole(shape)))
        found.append(Move(one, around, name, inside, axes) if joining else Move(name, inside, one, around, axes))
    return found


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (len(shape), *shape[:axis], *shape[axis + 1 :])


def _selection(
    operator: Operator, shapes: Mapping[str, tuple[int, ...]], site: NodeSite, onto: tuple[int, ...]
) -> list[Move] | None:
    """Slice with steps of one, and Gather of neighbours in their order: one box of the operand."""
    if len(operator.inputs) != 1 or len(operator.reads) != 1 or len(operator.outputs) != 1:
        return None
    (name,), (result,), (region,) = operator.inputs, operator.outputs, operator.reads
    if region.root != name:
        return None
    box = tuple((region.start[of], region.stop[of]) if of >= 0 else (0, 1) for of in onto)
    axes = list(range(len(box)))
    if operator.type == "Slice":
        if any(step != 1 for step in site.site.contents.get(4, ())):
            return None
    else:
        axis = site.site.integer("axis", 0) % len(axes)
        indices, shape = site.site.contents.get(1), site.site.shape(1)
        first, last = box[axis]
        if indices is None and last - first > 1:
            return None
        size = shapes[name][axis]
        rows = [first] if indices is None else [int(i) + size if i < 0 else int(i) for i in indices]
        if rows != list(range(first, last)) or shape is None or len(shape) > 1:
            return None
        if not shape:
            del axes[axis]
    if tuple(box[axis][1] - box[axis][0] for axis in axes) != shapes[result]:
        return None
    return [Move(result, whole(shapes[result]), name, box, tuple(axes))]
