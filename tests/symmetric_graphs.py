"""Random small instances with planted branches that can trade places, and some in which one of them is spoilt.

Between tensors of a trunk and a join stand two or three copies of one small random branch; operators are listed copy
by copy or in turn. Modes and capacities are those of :mod:`tests.random_graphs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.problem import Problem, build_problem
from tests.random_graphs import Draw, Shape, draw_accelerator, draw_size

SHAPE = Shape()


@dataclass(frozen=True, slots=True)
class Planted:
    """An instance, and whether all copies of its branch are equal."""

    graph: Graph
    accelerator: Accelerator
    equal: bool

    def problem(self) -> Problem:
        """The instance as arrays."""
        return build_problem(self.graph, self.accelerator)


def plant(draw: Draw, shape: Shape = SHAPE) -> Planted:
    """Build one instance out of integers."""
    tensors: dict[str, Tensor] = {}

    def add(name: str, kind: TensorKind = TensorKind.INTERMEDIATE, size_bytes: int | None = None) -> str:
        tensors[name] = Tensor(name, draw_size(draw, shape) if size_bytes is None else size_bytes, kind)
        return name

    trunk = [add(f"x{i}", TensorKind.INPUT) for i in range(draw(1, 2))]
    stem = [Operator("stem", "Conv", (trunk[0],), (add("stem"),))] if draw(0, 1) else []
    trunk += [operator.outputs[0] for operator in stem]
    copies = draw(2, 3)
    length = draw(1, 2 if copies == 3 else 3)
    first = _draw_branch(draw, add, trunk, length)
    branches = [first]
    renamed: dict[str, str] = {}
    for k in range(1, copies):
        renamed = {name: f"{name}'{k}" for name in tensors if name.startswith("b")}
        for name, other in list(renamed.items()):
            if "'" not in name:
                add(other, tensors[name].kind, tensors[name].size_bytes)
        branches.append(
            [
                Operator(
                    f"{operator.name}'{k}",
                    operator.type,
                    tuple(renamed.get(t, t) for t in operator.inputs),
                    tuple(renamed[t] for t in operator.outputs),
                    tuple(renamed.get(t, t) for t in operator.weights),
                )
                for operator in first
            ]
        )
    spoilt = draw(0, 3) == 3
    if spoilt:
        name = branches[-1][draw(0, length - 1)].outputs[0]
        tensors[name] = replace(tensors[name], size_bytes=tensors[name].size_bytes + shape.unit)
    inner = [o for row in branches for o in row] if draw(0, 1) else [row[i] for i in range(length) for row in branches]
    ends = [row[-1].outputs[0] for row in branches]
    same = copies == 2 and not spoilt and draw(0, 1)
    join = add("join", TensorKind.OUTPUT, tensors[ends[0]].size_bytes if same else None)
    joined = Operator("join", "Add" if same else "Concat", tuple(ends), (join,))
    operators = [*stem, *inner, joined]
    if draw(0, 1):
        # Something beside the branches: what the trunk holds may be needed after them.
        late = add("late", TensorKind.OUTPUT)
        operators.append(Operator("late", "Concat", (join, trunk[draw(0, len(trunk) - 1)]), (late,)))
    graph = Graph(tensors.values(), operators, "planted")
    return Planted(graph, draw_accelerator(draw, graph, shape), not spoilt)


def _draw_branch(draw: Draw, add: Callable[..., str], trunk: list[str], length: int) -> list[Operator]:
    """A chain with side inputs; its tensors begin with ``b``."""
    made: list[str] = []
    found: list[Operator] = []
    for i in range(length):
        inputs = [made[-1] if made else trunk[draw(0, len(trunk) - 1)]]
        if draw(0, 2) == 2:
            other = [*trunk, *made][draw(0, len(trunk) + len(made) - 1)]
            inputs += [other] if other not in inputs else []
        weights = (add(f"bw{i}", TensorKind.WEIGHT),) if draw(0, 2) == 2 else ()
        # A result that nobody reads is an output now and then.
        outputs = [add(f"b{i}_0")]
        if draw(0, 4) == 4:
            outputs.append(add(f"b{i}_1", TensorKind.OUTPUT))
        found.append(Operator(f"b{i}", "MatMul" if len(inputs) > 1 else "Conv", tuple(inputs), tuple(outputs), weights))
        made.append(outputs[0])
    return found


def random_planted(seed: int, shape: Shape = SHAPE) -> Planted:
    """Return the instance of a seed, the same on every machine."""
    generator = np.random.default_rng([seed, 7])
    return plant(lambda low, high: int(generator.integers(low, high + 1)), shape)


def random_symmetric_problem(seed: int) -> Problem:
    """Return the instance of a seed as arrays."""
    return random_planted(seed).problem()
