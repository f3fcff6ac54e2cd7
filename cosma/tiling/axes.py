"""Axes along which the search cuts each tensor: rows, channels and columns, kept the same through a network.

An operator that only moves elements, or that works on each by itself, keeps the axes of what it reads: tokens stay
rows and heads stay channels through the reshapes and transposes of an attention block, so that one stripe or one group
of channels can run through all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosma.access import Box
from cosma.access.operator import OperatorAccess, SumStep
from cosma.graph import Graph, TensorKind
from cosma.tiling.rows import channel_axes, row_axis

#: Row axis, channel axis and column axis; -1 where there is none.
Axes = tuple[int, int, int]
#: Which of them is which.
ROWS, CHANNELS, COLUMNS = 0, 1, 2
#: Operators between a graph input and the first contraction, at the most; not measured.
LONGEST_PATH = 8


def tensor_axes(graph: Graph, access: Sequence[OperatorAccess]) -> dict[str, Axes]:
    """Axes of every tensor of a graph.

    Graph inputs have those that the first contraction gives to its first factor. A result has those
    of its largest operand, where it follows them, and those that are usual for its rank elsewhere.
    """
    axes = {tensor.name: usual_axes(tensor.shape) for tensor in graph.tensors.values()}
    maker = {name: one for one in access for name in one.operator.outputs}
    for tensor in graph.tensors.values():
        if tensor.kind is TensorKind.INPUT:
            axes[tensor.name] = _wanted(graph, maker, tensor.name) or axes[tensor.name]
    seen: set[str] = set()
    for one in access:
        own = _result_axes(graph, one, axes)
        for name in one.operator.outputs:
            if len(one.shapes.get(name, ())) == len(one.shapes.get(one.result, ())):
                axes[name] = own
        for name in one.operator.weights:
            if max(axes[name]) < 0 or name not in seen:  # the first that cuts a weight says along what
                axes[name] = _weight_axes(one, name, own)
            seen.add(name)
    return axes


def row_axes(graph: Graph, access: Sequence[OperatorAccess]) -> dict[str, int]:
    """Axis of the rows of every tensor: of results that which their operand's rows become, else that of the rank."""
    rows = {tensor.name: row_axis(len(tensor.shape or ())) for tensor in graph.tensors.values()}
    maker = {name: one for one in access for name in one.operator.outputs}
    for tensor in graph.of_kind(TensorKind.INPUT):
        wanted = _wanted(graph, maker, tensor.name)
        rows[tensor.name] = rows[tensor.name] if wanted is None or wanted[ROWS] < 0 else wanted[ROWS]
    for one in access:
        shape, operand = one.shapes.get(one.result, ()), _carrier(graph, one)
        if operand is None or one.shapes[operand][rows[operand]] < 2:
            continue
        may = [a for a, allowed in enumerate(one.cuts()) if allowed and shape[a] > 1]
        following = [a for a, read in _narrowed(one, may).items() if rows[operand] in read.get(operand, [])]
        if following and rows[one.result] not in following:
            rows.update({n: following[0] for n in one.operator.outputs if len(one.shapes.get(n, ())) == len(shape)})
    return rows


def usual_axes(shape: Sequence[int] | None) -> Axes:
    """Axes of a tensor of which nothing else is known; only feature maps have columns."""
    rank = 0 if shape is None else len(shape)
    if rank < 2:
        return -1, -1, -1
    return row_axis(rank), {2: 1, 3: 2}.get(rank, 1), 3 if rank == 4 else -1


def slab(shape: Sequence[int], spans: Mapping[int, tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Region that is whole but along some axes."""
    return tuple(spans.get(i, (0, size)) for i, size in enumerate(shape))


def _narrowed(one: OperatorAccess, axes: Sequence[int]) -> dict[int, dict[str, list[int]]]:
    """For each axis, the axes of each operand of which a slice of the result reads less than the whole result does."""
    shape = one.shapes[one.result]
    every = one.reads(slab(shape, {})) if axes else {}
    found = {}
    for axis in axes:
        middle = shape[axis] // 2
        reads = one.reads(slab(shape, {axis: (middle, middle + 1)}))
        found[axis] = {
            name: [i for i, (span, all_of) in enumerate(zip(box, every[name], strict=True)) if span != all_of]
            for name, box in reads.items()
        }
    return found


def _parted(box: Box | None, shape: Sequence[int]) -> list[int]:
    """Axes of which a region holds a part."""
    if box is None:
        return []
    return [i for i, (span, size) in enumerate(zip(box, shape, strict=True)) if span != (0, size)]


def _result_axes(graph: Graph, one: OperatorAccess, axes: Mapping[str, Axes]) -> Axes:
    """Axes of the result of an operator whose operands have theirs."""
    shape, allowed = one.shapes.get(one.result, ()), one.cuts()
    usual = usual_axes(shape)
    operand = _carrier(graph, one)
    if operand is None or not any(allowed):
        return usual
    may = [a for a, size in enumerate(shape) if allowed[a] and size > 1]
    narrowed = {a: read.get(operand, []) for a, read in _narrowed(one, may).items()}
    found = [-1, -1, -1]
    by_weights = channel_axes(one)
    if by_weights:
        # Of several axes that cut a weight, that of a state, say, what an operator works on element by element keeps
        # the channels it has.
        channels = axes[operand][CHANNELS]
        kept = next((a for a, read in narrowed.items() if channels in read and a in by_weights), -1)
        found[CHANNELS] = kept if kept >= 0 and one.reduced() <= 1 else by_weights[0]
    for role in (ROWS, CHANNELS, COLUMNS):
        followed = axes[operand][role]
        if found[role] < 0 and followed >= 0:
            found[role] = next((a for a, read in narrowed.items() if followed in read and a not in found), -1)
    for role in (ROWS, CHANNELS, COLUMNS):
        if found[role] < 0 and usual[role] not in found:
            found[role] = usual[role]
    free = [a for a in narrowed if a not in found]
    for role in (ROWS, COLUMNS):
        if free and (found[role] < 0 or shape[found[role]] < 2):
            found[role] = free.pop(0)
    # What the operator yields as a whole may be read in parts, such as a normalised axis that a product sums over.
    left = [a for a, size in enumerate(shape) if size > 1 and a not in found]
    for role in (CHANNELS, ROWS, COLUMNS):
        if left and (found[role] < 0 or shape[found[role]] < 2):
            found[role] = left.pop()
    return found[ROWS], found[CHANNELS], found[COLUMNS]


def _carrier(graph: Graph, one: OperatorAccess) -> str | None:
    """The operand whose axes a result keeps: the first of a product, the largest else; None for none."""
    names = [name for name in one.operator.inputs if len(one.shapes.get(name, ())) > 1]
    if not names:
        return None
    return names[0] if one.reduced() > 1 else max(names, key=lambda name: graph.tensors[name].size_bytes)


def _wanted(graph: Graph, maker: Mapping[str, OperatorAccess], name: str) -> Axes | None:
    """Axes of a graph input as the first contraction behind it wants them; None where the way there branches."""
    path: list[tuple[OperatorAccess, str]] = []
    while True:
        readers = graph.consumers(name)
        one = None if not readers else maker.get(graph.operator(readers[0]).outputs[0])
        if one is None or not any(one.cuts()):
            return None
        path.append((one, name))
        if one.reduced() > 1:
            if one.operator.inputs[0] != name:
                return None  # the axes of a second factor are others
            break
        if len(one.operator.inputs) != 1 or len(path) > LONGEST_PATH:
            return None
        name = one.result
    wanted = usual_axes(path[-1][0].shapes[path[-1][1]])
    for one, operand in reversed(path[:-1]):
        shape, back = one.shapes[one.result], []
        for axis in wanted:
            may = axis >= 0 and shape[axis] > 1 and one.cuts()[axis]
            read = _narrowed(one, [axis])[axis].get(operand, []) if may else []
            back.append(read[0] if len(read) == 1 and read[0] not in back else -1)
        wanted = back[ROWS], back[CHANNELS], back[COLUMNS]
    return wanted


def _weight_axes(one: OperatorAccess, weight: str, own: Axes) -> Axes:
    """A weight's channels are the axis that channels of the result select; its rows the axis summed over, if any."""
    result, shape = one.shapes.get(one.result, ()), one.shapes.get(weight, ())
    found = [-1, -1, -1]
    for role in (CHANNELS, ROWS, COLUMNS):
        axis = own[role]
        if axis < 0 or result[axis] < 2 or not one.cuts()[axis]:
            continue
        read = one.reads(slab(result, {axis: (0, 1)})).get(weight)
        found[role] = next((i for i in _parted(read, shape) if i not in found), -1)
    summed = _summed_axis(one, weight, found[CHANNELS])
    if summed >= 0:
        return summed, found[CHANNELS], -1
    return found[ROWS], found[CHANNELS], found[COLUMNS]


def _summed_axis(one: OperatorAccess, weight: str, channels: int) -> int:
    """Axis of a weight that partial sums cut; -1 for none."""
    shape = one.shapes.get(weight, ())
    if one.reduced() < 2:
        return -1
    read = one.reads(slab(one.shapes[one.result], {}), SumStep((0, 1), True, True)).get(weight)
    return next((axis for axis in _parted(read, shape) if axis != channels), -1)
