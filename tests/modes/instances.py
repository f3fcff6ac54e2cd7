"""Small random graphs whose operators have modes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Mode, Operator
from cosma.problem import build_problem
from cosma.problem.rules import need_bytes, working_set_bytes
from tests.random_graphs import Shape, build_instance


def with_random_modes(graph: Graph, rng: np.random.Generator, unit: int) -> Graph:
    """Give every operator one to three modes: nothing, some or all may stream, for some workspace or none."""

    def modes(operator: Operator) -> tuple[Mode, ...]:
        touched = (*operator.operands, *operator.outputs)
        found = []
        for i in range(int(rng.integers(1, 4))):
            share = rng.choice([0.0, 0.4, 0.8, 1.0])
            streamed = tuple(name for name in dict.fromkeys(touched) if rng.random() < share)
            found.append(Mode(f"mode {i}", streamed, int(rng.integers(0, 5)) * unit * int(rng.random() < 0.5)))
        return tuple(found)

    operators = [replace(operator, modes=modes(operator)) for operator in graph.operators]
    return Graph(graph.tensors.values(), operators, graph.name)


def instances(seed: int, count: int, operators: int = 5) -> Iterator[tuple[Graph, Accelerator]]:
    """Random instances under ``operands = stationary``, most of them feasible, with little room."""
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        shape = Shape(operators=operators, inputs=2, weights=2, most_units=6, ragged=bool(i % 2))
        graph, drawn = build_instance(lambda low, high, rng=rng: int(rng.integers(low, high + 1)), shape)  # type: ignore[misc]
        graph = with_random_modes(graph, rng, shape.unit)
        accelerator = drawn.replace(
            scratchpad=1 << 40, operands="stationary", reserved=0, fusion="none", alignment=min(drawn.alignment, 32)
        )
        problem = build_problem(graph, accelerator)
        needs = [need_bytes(problem, v) for v in range(problem.operator_count)]
        most = [working_set_bytes(problem, v) for v in range(problem.operator_count)]
        low, high = max(needs, default=0), max(most, default=0)
        capacity = low + int(rng.integers(0, 4)) * max(1, high - low) // 3 + int(rng.integers(0, 2)) * shape.unit
        yield graph, accelerator.replace(scratchpad=max(capacity, accelerator.alignment))
