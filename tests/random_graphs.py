"""Random small instances, seeded or drawn by hypothesis, that cover every mode.

One builder makes both kinds: it asks a source of integers for every choice, and the source is either a numpy
generator (:func:`random_instance`) or hypothesis (:func:`instances`), which can then shrink. Choices are
written so that smaller integers mean simpler instances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.problem import Problem, build_problem
from cosma.problem.rules import working_set_bytes

#: ``draw(low, high)`` returns an integer in ``[low, high]``.
Draw = Callable[[int, int], int]

#: (type, least activations, most activations, most results, may read weights)
TYPES = (
    ("Conv", 1, 1, 1, True),
    ("Relu", 1, 1, 1, False),
    ("Add", 2, 2, 1, True),
    ("MatMul", 1, 2, 1, True),
    ("Concat", 1, 4, 1, False),
    ("Cast", 1, 1, 1, False),
    ("Split", 1, 1, 3, False),
    ("Where", 2, 3, 1, False),
    ("Equal", 1, 2, 1, True),
    ("LSTM", 1, 3, 3, True),
)
ELEMENTWISE = ("Relu", "Add", "Cast", "Where", "Equal")


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of instances to draw.

    ``unit`` is the granule of sizes in bytes and ``most_units`` the largest size in granules; ``ragged`` lets
    sizes miss the granule, so that alignment matters.
    """

    operators: int = 7
    inputs: int = 3
    weights: int = 3
    unit: int = 16
    most_units: int = 8
    ragged: bool = True
    alignments: tuple[int, ...] = (16, 1, 32, 64)


def build_instance(draw: Draw, shape: Shape = Shape()) -> tuple[Graph, Accelerator]:
    """Build one instance out of integers."""
    graph = _build_graph(draw, shape)
    return graph, draw_accelerator(draw, graph, shape)


def draw_accelerator(draw: Draw, graph: Graph, shape: Shape = Shape()) -> Accelerator:
    """Draw a mode, and a capacity from hopelessly small to ample for a graph."""
    flags = draw(0, 15)
    base = Accelerator(
        scratchpad=1 << 40,
        alignment=shape.alignments[draw(0, len(shape.alignments) - 1)],
        operands="streamable" if flags & 1 else "resident",
        weights="scratchpad" if flags & 2 else "stream",
        in_place=bool(flags & 4),
        fusion="epilogue" if flags & 8 and draw(0, 3) == 0 else "none",
    )
    # Streaming spreads out what must be inside, so capacities worth testing are smaller.
    problem = build_problem(graph, base)
    capacity = max(1, _draw_capacity(draw, problem))
    if problem.streamable and draw(0, 1):
        capacity = max(1, capacity * draw(20, 80) // 100)
    # Capacities that miss the alignment, and some bytes at the top that are not ours.
    capacity += draw(0, base.alignment - 1) if draw(0, 3) == 3 else 0
    reserved = draw(1, 2 * base.alignment) if draw(0, 3) == 3 else 0
    return base.replace(scratchpad=capacity + reserved, reserved=reserved)


def random_instance(seed: int, shape: Shape = Shape()) -> tuple[Graph, Accelerator]:
    """Return the instance of a seed, the same on every machine."""
    generator = np.random.default_rng(seed)
    return build_instance(lambda low, high: int(generator.integers(low, high + 1)), shape)


def random_problem(seed: int, shape: Shape = Shape()) -> Problem:
    """Return the instance of a seed as arrays."""
    return build_problem(*random_instance(seed, shape))


@st.composite
def instances(draw: st.DrawFn, shape: Shape = Shape()) -> tuple[Graph, Accelerator]:
    """Hypothesis strategy for (graph, accelerator)."""
    return build_instance(lambda low, high: draw(st.integers(low, high)), shape)


@st.composite
def problems(draw: st.DrawFn, shape: Shape = Shape()) -> Problem:
    """Hypothesis strategy for instances as arrays."""
    return build_problem(*draw(instances(shape)))


#: Few and coarse sizes, for oracles that enumerate addresses.
TINY = Shape(operators=4, inputs=2, weights=1, unit=16, most_units=3, ragged=False, alignments=(16, 1))


def random_order(problem: Problem, seed: int) -> list[int]:
    """Draw a topological order."""
    generator = np.random.default_rng(seed)
    waiting = np.diff(problem.predecessor_start).astype(int)
    ready = [v for v in range(problem.operator_count) if waiting[v] == 0]
    order: list[int] = []
    while ready:
        v = ready.pop(int(generator.integers(len(ready))))
        order.append(v)
        for w in problem.successors_of(v).tolist():
            waiting[w] -= 1
            if waiting[w] == 0:
                ready.append(w)
    return order


def draw_size(draw: Draw, shape: Shape) -> int:
    units = draw(0, shape.most_units + 1)
    if units == shape.most_units + 1:
        units = 0 if draw(0, 2) == 2 else 1
    else:
        units = max(1, units)
    size = units * shape.unit
    return size - draw(0, shape.unit - 1) if shape.ragged and size and draw(0, 3) == 3 else size


def _draw_operand(draw: Draw, available: list[str], consumed: set[str]) -> str:
    """Draw a recent tensor, the oldest that nobody has read (so that much is live at once), or any."""
    rule = draw(0, 3)
    if rule == 0:
        return available[-1]
    unread = [name for name in available if name not in consumed]
    if rule == 1 and unread:
        return unread[0]
    return available[len(available) - 1 - draw(0, len(available) - 1)]


def _build_graph(draw: Draw, shape: Shape) -> Graph:
    tensors: dict[str, Tensor] = {}

    def add(name: str, size_bytes: int, kind: TensorKind) -> str:
        tensors[name] = Tensor(name, size_bytes, kind)
        return name

    available = [
        add(f"x{i}", draw_size(draw, shape), TensorKind.INPUT) for i in range(draw(1, max(1, shape.inputs)))
    ]
    weights = [add(f"w{i}", draw_size(draw, shape), TensorKind.WEIGHT) for i in range(draw(0, shape.weights))]
    operators: list[Operator] = []
    consumed: set[str] = set()
    for i in range(max(draw(1, shape.operators), draw(1, shape.operators))):
        kind, least, most, most_results, reads_weights = TYPES[draw(0, len(TYPES) - 1)]
        inputs: list[str] = []
        for _ in range(draw(least, most)):
            name = _draw_operand(draw, available, consumed)
            if name not in inputs:
                inputs.append(name)
        chosen = sorted({weights[draw(0, len(weights) - 1)] for _ in range(draw(0, 2))}) if weights else []
        outputs = []
        for j in range(draw(1, most_results)):
            size = draw_size(draw, shape)
            if kind in ELEMENTWISE and draw(0, 3):
                size = tensors[inputs[draw(0, len(inputs) - 1)]].size_bytes
            outputs.append(add(f"t{i}_{j}", size, TensorKind.INTERMEDIATE))
        operators.append(
            Operator(f"op{i}", kind, tuple(inputs), tuple(outputs), tuple(chosen) if reads_weights else ())
        )
        consumed.update(inputs)
        available.extend(outputs)
    produced = [name for operator in operators for name in operator.outputs]
    for name in produced:
        # Results nobody reads are outputs, seldom dead; results somebody reads are seldom outputs too.
        if draw(0, 5) != 5 if name not in consumed else draw(0, 7) == 7:
            tensors[name] = Tensor(name, tensors[name].size_bytes, TensorKind.OUTPUT)
    return Graph(tensors.values(), operators, "random")


def _draw_capacity(draw: Draw, problem: Problem) -> int:
    """Draw a capacity: around the largest working set mostly, up to everything at once, or hopelessly small."""
    largest = max((working_set_bytes(problem, v) for v in range(problem.operator_count)), default=0)
    everything = int(problem.space_bytes.sum())
    match draw(0, 7):
        case 0:
            return everything
        case 1 | 2 | 3:
            return largest
        case 4 | 5:
            return largest * draw(100, 130) // 100
        case 6:
            return largest + draw(0, 100) * max(0, everything - largest) // 300
        case _:
            return largest * draw(40 if problem.streamable else 90, 100) // 100
