"""Networks of two repeated cells, from the genotypes their papers publish.

A cell has two inputs, the results of the two cells before it. Each of its nodes adds two of what is there already,
each passed through an operation; the nodes listed as its result are joined. Reduction cells halve the size in
the operations that read the cell's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder import Builder


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    nodes
        Per node two pairs of operation and operand: 0 is the result of the cell before the last, 1 that of the
        last, 2 the first node.
    result
        The nodes that are joined.
    """

    nodes: tuple[tuple[tuple[str, int], tuple[str, int]], ...]
    result: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell, and where they were published."""

    normal: Cell
    reduction: Cell
    source: str


def _cell(text: str, *result: int) -> Cell:
    """Read ``op operand, op operand; ...``, a node between semicolons."""
    nodes = []
    for node in text.split(";"):
        left, right = ((part.split()[0], int(part.split()[1])) for part in node.split(","))
        nodes.append((left, right))
    return Cell(tuple(nodes), result)


_PNASNET_CELL = _cell("sep5 0, max3 0; sep7 1, max3 1; sep5 1, sep3 1; sep3 4, max3 1; sep3 0, skip 1", 2, 3, 4, 5, 6)

GENOTYPES: dict[str, Genotype] = {
    "nasnet_a": Genotype(
        _cell("sep5 1, sep3 0; sep5 0, sep3 0; avg3 1, skip 0; avg3 0, avg3 0; sep3 1, skip 1", 2, 3, 4, 5, 6),
        _cell("sep5 1, sep7 0; max3 1, sep7 0; avg3 1, sep5 0; skip 3, avg3 2; sep3 2, max3 1", 4, 5, 6),
        "Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, CVPR 2018, figure 4",
    ),
    "amoebanet_a": Genotype(
        _cell("avg3 0, max3 1; sep3 0, sep5 2; sep3 0, avg3 3; sep3 1, skip 1; skip 0, avg3 1", 4, 5, 6),
        _cell("avg3 0, sep3 1; max3 0, sep7 2; sep7 0, avg3 1; max3 0, max3 1; conv7 0, sep3 5", 3, 4, 6),
        "Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019, figure 5",
    ),
    "pnasnet5": Genotype(
        _PNASNET_CELL, _PNASNET_CELL, "Liu et al., Progressive Neural Architecture Search, ECCV 2018, figure 1"
    ),
    "darts_v1": Genotype(
        _cell("sep3 1, sep3 0; skip 0, sep3 1; skip 0, sep3 1; sep3 0, skip 2", 2, 3, 4, 5),
        _cell("max3 0, max3 1; skip 2, max3 0; max3 0, skip 2; skip 2, avg3 0", 2, 3, 4, 5),
        "Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, first-order search",
    ),
    "darts_v2": Genotype(
        _cell("sep3 0, sep3 1; sep3 0, sep3 1; sep3 1, skip 0; skip 0, dil3 2", 2, 3, 4, 5),
        _cell("max3 0, max3 1; skip 2, max3 1; max3 0, skip 2; skip 2, max3 1", 2, 3, 4, 5),
        "Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, second-order search",
    ),
}


def build(name: str, genotype: Genotype, *, channels: int, cells: int, image: int, classes: int) -> tuple[Builder, str]:
    """Build a whole network, the reduction cells at one and two thirds of its depth.

    Parameters
    ----------
    name
        Name of the graph.
    genotype
        Its cells.
    channels
        Channels of the first cell's nodes; they double at each reduction.
    cells
        Number of cells.
    image
        Height and width of the input: a stem of stride 1 up to 64, of stride 8 above.
    classes
        Number of classes.

    Returns
    -------
    tuple
        The builder and the name of the network's result.
    """
    b = Builder(name, image)
    if image <= 64:
        before = last = b.conv("image", 3 * channels, 3, "stem")
        reduced = False
    else:
        x = b.relu(b.conv("image", channels // 2, 3, "stem0/a", stride=2))
        before = b.conv(x, channels, 3, "stem0/b", stride=2)
        last = b.conv(b.relu(before), channels, 3, "stem1", stride=2)
        reduced = True
    for index in range(cells):
        reduction = index in (cells // 3, 2 * cells // 3)
        channels *= 2 if reduction else 1
        cell = genotype.reduction if reduction else genotype.normal
        before, last = last, _add_cell(b, f"cell{index}", cell, before, last, channels, reduction, reduced)
        reduced = reduction
    return b, b.classify(b.relu(last), classes)


def _add_cell(
    b: Builder, label: str, cell: Cell, before: str, last: str, channels: int, reduction: bool, reduced: bool
) -> str:
    entry = (
        _factorized_reduce(b, before, channels, f"{label}/in0")
        if reduced
        else b.conv(b.relu(before), channels, 1, f"{label}/in0")
    )
    states = [entry, b.conv(b.relu(last), channels, 1, f"{label}/in1")]
    for number, node in enumerate(cell.nodes):
        parts = []
        for side, (operation, operand) in zip("ab", node, strict=True):
            stride = 2 if reduction and operand < 2 else 1
            parts.append(_operation(b, operation, states[operand], channels, stride, f"{label}/node{number}{side}"))
        states.append(b.add(*parts, f"{label}/node{number}"))
    return b.concat([states[i] for i in cell.result], f"{label}/out")


def _operation(b: Builder, operation: str, x: str, channels: int, stride: int, label: str) -> str:
    kind, size = operation.rstrip("0123456789"), int(operation[len(operation.rstrip("0123456789")) :] or 0)
    if kind == "skip":
        return x if stride == 1 else _factorized_reduce(b, x, channels, label)
    if kind in ("max", "avg"):
        return b.pool("MaxPool" if kind == "max" else "AveragePool", x, label, kernel=size, stride=stride)
    if kind == "sep":
        x = _separable(b, b.relu(x), channels, size, stride, f"{label}/first")
        return _separable(b, b.relu(x), channels, size, 1, f"{label}/second")
    if kind == "dil":
        return _separable(b, b.relu(x), channels, size, stride, label, dilation=2)
    if kind == "conv":
        x = b.conv(b.relu(x), channels, (1, size), f"{label}/wide", stride=(1, stride), bias=False)
        return b.conv(x, channels, (size, 1), f"{label}/high", stride=(stride, 1))
    raise ValueError(f"unknown operation {operation!r}")


def _separable(b: Builder, x: str, channels: int, size: int, stride: int, label: str, dilation: int = 1) -> str:
    entering = b.shapes[x][1]
    x = b.conv(x, entering, size, f"{label}/dw", stride=stride, groups=entering, dilation=dilation, bias=False)
    return b.conv(x, channels, 1, f"{label}/pw")


def _factorized_reduce(b: Builder, x: str, channels: int, label: str) -> str:
    """Halve the size by two convolutions of stride 2, the second shifted by one row and column."""
    x = b.relu(x)
    even = b.conv(x, channels // 2, 1, f"{label}/even", stride=2)
    odd = b.conv(b.shifted(x, f"{label}/shift"), channels - channels // 2, 1, f"{label}/odd", stride=2)
    return b.concat([even, odd], f"{label}/reduced")
