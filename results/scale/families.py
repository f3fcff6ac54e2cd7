"""Synthetic networks of any size, of three kinds that differ in what makes them hard."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cosma.graph import Graph, Operator, Tensor, TensorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_KIB = 1024


class _Builder:
    """A network under construction; every operator has one result."""

    def __init__(self) -> None:
        self.tensors = [Tensor("x", 64 * _KIB, TensorKind.INPUT)]
        self.operators: list[Operator] = []

    def add(self, kind: str, operands: Sequence[str], kib: int) -> str:
        """Append an operator; returns the name of its result."""
        name = f"t{len(self.operators)}"
        self.tensors.append(Tensor(name, kib * _KIB))
        self.operators.append(Operator(f"o{len(self.operators)}", kind, tuple(dict.fromkeys(operands)), (name,)))
        return name

    def finish(self, operands: Sequence[str], name: str) -> Graph:
        """Read what is left and make it the network's output."""
        self.operators.append(Operator("last", "Concat", tuple(dict.fromkeys(operands)), ("y",)))
        return Graph([*self.tensors, Tensor("y", 64 * _KIB, TensorKind.OUTPUT)], self.operators, name)


def cells(operators: int, seed: int = 0) -> Graph:
    """Cells as in networks from architecture search: each reads the two before it and joins what it leaves unread."""
    rng = random.Random(seed)
    net = _Builder()
    before = ["x", "x"]
    while len(net.operators) < operators - 1:
        inside = list(dict.fromkeys(before))
        unread: dict[str, None] = {}
        for _ in range(min(15, operators - 2 - len(net.operators))):
            operands = [rng.choice(inside[-8:]) for _ in range(rng.choice((1, 1, 2)))]
            kind = "Add" if len(set(operands)) > 1 else rng.choice(("Conv", "Relu", "MaxPool"))
            for name in operands:
                unread.pop(name, None)
            inside.append(net.add(kind, operands, rng.choice((16, 32, 64))))
            unread[inside[-1]] = None
        before = [before[-1], net.add("Concat", list(unread) or before, 64)]
    return net.finish(before, f"cells-{operators}")


def wired(operators: int, seed: int = 0) -> Graph:
    """Random wiring: an operator reads what is near, and one in twenty times what lies up to 400 operators back."""
    rng = random.Random(seed)
    net = _Builder()
    names = ["x"]
    unread: dict[str, int] = {"x": 0}
    while len(net.operators) < operators - 1:
        operands = []
        oldest = next(iter(unread))
        if len(names) - unread[oldest] > 12:
            operands.append(oldest)
        while len(operands) < rng.choice((1, 2, 2, 3)):
            far = 400 if rng.random() < 0.05 else 10
            operands.append(names[-min(len(names), 1 + rng.randrange(far))])
        for name in operands:
            unread.pop(name, None)
        kind = "Add" if len(set(operands)) > 1 else rng.choice(("Conv", "Relu"))
        names.append(net.add(kind, operands, rng.choice((16, 32, 64))))
        unread[names[-1]] = len(names) - 1
    return net.finish(list(unread), f"wired-{operators}")


def transformer(operators: int, seed: int = 0) -> Graph:
    """Transformer blocks, four heads each with operators of its own: a chain of small wide parts with residuals."""
    rng = random.Random(seed)
    net = _Builder()
    stream = "x"
    while len(net.operators) < operators - 1:
        kib = rng.choice((48, 64))
        normed = net.add("LayerNormalization", [stream], 64)
        heads = []
        for _ in range(4):
            query, key, value = (net.add("MatMul", [normed], kib // 4) for _ in range(3))
            scores = net.add("MatMul", [query, key], kib)
            heads.append(net.add("MatMul", [net.add("Softmax", [scores], kib), value], kib // 4))
        stream = net.add("Add", [stream, net.add("MatMul", [net.add("Concat", heads, 64)], 64)], 64)
        hidden = net.add("MatMul", [net.add("LayerNormalization", [stream], 64)], 256)
        stream = net.add("Add", [stream, net.add("MatMul", [net.add("Gelu", [hidden], 256)], 64)], 64)
    return net.finish([stream], f"transformer-{operators}")


FAMILIES: dict[str, Callable[[int], Graph]] = {"cells": cells, "wired": wired, "transformer": transformer}
