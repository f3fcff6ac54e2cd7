"""How the cost of a plan grows with operators: build, existing methods, replay, per synthetic network.

Run from the repository root: ``python -m tests.benchmarks.scale [OPERATORS ...]``. Prints a Markdown table of CPU
seconds; the last columns are microseconds per operator, which stay level where growth is linear.
"""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.heuristics import EXISTING, ORDERS, run_method
from cosma.problem import build_problem
from cosma.validator import replay_instructions

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


def cells(operators: int, seed: int = 0) -> Graph:
    """A stack of cells as in networks from architecture search: each reads the two cells before it."""
    rng = random.Random(seed)
    tensors = [Tensor("x", 65536, TensorKind.INPUT)]
    nodes: list[Operator] = []
    before = ["x", "x"]
    while len(nodes) < operators - 1:
        inside = list(dict.fromkeys(before))
        for _ in range(min(11, operators - 1 - len(nodes))):
            operands = tuple(dict.fromkeys(rng.choice(inside[-6:]) for _ in range(rng.choice((1, 1, 2)))))
            name = f"t{len(nodes)}"
            kind = rng.choice(("Conv", "Relu", "MaxPool")) if len(operands) == 1 else "Add"
            nodes.append(Operator(f"o{len(nodes)}", kind, operands, (name,)))
            tensors.append(Tensor(name, 1024 * rng.choice((16, 32, 64))))
            inside.append(name)
        before = [before[-1], inside[-1]]
    read = {name for node in nodes for name in node.inputs}
    leaves = tuple(tensor.name for tensor in tensors[1:] if tensor.name not in read)
    nodes.append(Operator("last", "Concat", leaves, ("y",)))
    return Graph([*tensors, Tensor("y", 65536, TensorKind.OUTPUT)], nodes, f"cells-{operators}")


def clocked(work: Callable[[], object]) -> tuple[object, float]:
    """Return a result and the CPU seconds it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def main(sizes: tuple[int, ...]) -> None:
    """Print the table."""
    columns = ["graph", "problem", *(f"{name} order" for name in ORDERS), *EXISTING, "replay"]
    print("| operators | " + " | ".join(columns) + " | total µs per operator |")
    print("|---:" * (len(columns) + 2) + "|")
    for size in sizes:
        graph, seconds = clocked(lambda size=size: cells(size))
        assert isinstance(graph, Graph)
        row = [seconds]
        accelerator = Accelerator(scratchpad="512KiB")  # type: ignore[arg-type]
        start = time.process_time()
        problem = build_problem(graph, accelerator)
        row.append(time.process_time() - start)
        orders = {}
        for name, order in ORDERS.items():
            orders[name], seconds = clocked(lambda order=order, problem=problem: order(problem))
            row.append(seconds)
        for method in EXISTING.values():
            start = time.process_time()
            realised = run_method(problem, method, orders[method.order])  # type: ignore[arg-type]
            row.append(time.process_time() - start)
        start = time.process_time()
        report = replay_instructions(graph, accelerator, realised.instructions)
        row.append(time.process_time() - start)
        assert report.valid
        body = " | ".join(f"{seconds:.2f}" for seconds in row)
        print(f"| {size} | {body} | {1e6 * sum(row) / size:.0f} |", flush=True)


if __name__ == "__main__":
    main(tuple(int(argument) for argument in sys.argv[1:]) or SIZES)
