"""Instances with one order only, whose tensors live as drawn: address allocation stripped of everything else.

Operators form a chain through tensors of no size; each further tensor is made by one operator and read by a later
one. At a capacity equal to the most that is ever live everything may stay, if addresses are left out.
"""

from __future__ import annotations

import numpy as np

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.problem import Problem, build_problem

UNIT = 16


def forced_order(lives: list[tuple[int, int, int]], operators: int) -> Problem:
    """Build an instance from (step that makes a tensor, last step that reads it, size in units)."""
    tensors = [Tensor(f"go{i}", 0, TensorKind.INTERMEDIATE) for i in range(operators - 1)]
    tensors += [Tensor("x", 0, TensorKind.INPUT), Tensor("y", 0, TensorKind.OUTPUT)]
    tensors += [Tensor(f"t{k}", UNIT * size, TensorKind.INTERMEDIATE) for k, (_, _, size) in enumerate(lives)]
    rows = []
    for i in range(operators):
        reads = ["x" if i == 0 else f"go{i - 1}", *(f"t{k}" for k, life in enumerate(lives) if life[1] == i)]
        makes = ["y" if i == operators - 1 else f"go{i}", *(f"t{k}" for k, life in enumerate(lives) if life[0] == i)]
        rows.append(Operator(f"op{i}", "LSTM", tuple(reads), tuple(makes)))
    most = max(sum(size for first, last, size in lives if first <= i <= last) for i in range(operators))
    accelerator = Accelerator(scratchpad=UNIT * most, alignment=UNIT, operands="resident", in_place=False)
    return build_problem(Graph(tensors, rows, "forced order"), accelerator)


def random_forced_order(seed: int, operators: int = 10, room: int = 12, longest: int = 5) -> Problem:
    """Return the instance of a seed: tensors that fill ``room`` units at every step, as in a puzzle without gaps."""
    generator = np.random.default_rng([seed, 11])
    lives: list[tuple[int, int, int]] = []
    for i in range(operators - 1):
        left = room - sum(size for first, last, size in lives if first <= i <= last)
        while left > 0:
            size = int(generator.integers(1, min(left, room // 2) + 1))
            lives.append((i, min(operators - 1, i + int(generator.integers(1, longest + 1))), size))
            left -= size
    return forced_order(lives, operators)
