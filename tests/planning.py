"""Plans that tests start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.compiler import Limits, run_compile
from cosma.compiler.exact import solve_exact
from cosma.compiler.run import CompileRun
from cosma.graph import Graph, Operator, Tensor, TensorKind

if TYPE_CHECKING:
    from typing import Any

    from cosma.accelerator import Accelerator
    from cosma.plan import Plan
    from cosma.problem import Decisions, Instance


def diamond() -> Graph:
    """A stem, two branches of unlike size, and a join: 64-byte granules, small enough to reason about by hand."""
    return Graph(
        [
            Tensor("x", 64, TensorKind.INPUT),
            Tensor("w", 32, TensorKind.WEIGHT),
            Tensor("a", 128),
            Tensor("b", 128),
            Tensor("c", 64),
            Tensor("d", 128),
            Tensor("y", 128, TensorKind.OUTPUT),
        ],
        [
            Operator("stem", "Conv", ("x",), ("a",), ("w",), covers=("a",)),
            Operator("left", "Relu", ("a",), ("b",), covers=("b",)),
            Operator("right", "Pool", ("a",), ("c",), covers=("c",)),
            Operator("widen", "Conv", ("c",), ("d",), ("w",), covers=("d",)),
            Operator("join", "Add", ("b", "d"), ("y",), covers=("y",)),
        ],
        "diamond",
    )


def plan_for(graph: Graph, accelerator: Accelerator, strategy: str = "e1") -> Plan:
    """Compile with an existing method."""
    return run_compile(graph, accelerator, strategy=strategy).plan


def exact_run(problem: Instance, incumbent: Decisions, *, effort: float = 10.0, **settings: Any) -> CompileRun:
    """Run the exact method on decisions; ``settings`` are attributes of the run."""
    run = CompileRun(problem, Limits(effort=effort), **settings)
    assert run.offer(incumbent, "incumbent")
    solve_exact(run)
    return run
