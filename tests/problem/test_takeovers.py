"""Operators of which several results take over operands at once: what they need, and bounds on what they move."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest
from onnx import helper

import cosma
from cosma.csr import csr
from cosma.problem import build_problem
from cosma.problem.reductions import single_takeovers
from cosma.problem.rules import need_bytes, takeover_bytes
from cosma.problem.support import one_takeover_each
from tests.brute_force import brute_force
from tests.onnx_files import save_network
from tests.random_graphs import random_problem


def test_the_best_takeovers_are_the_best_matching() -> None:
    several = 0
    for seed in range(60):
        rng, problem = random.Random(seed), random_problem(seed)
        tensors = range(problem.tensor_count)
        pairs = [(r, u) for r in tensors[:3] for u in tensors[:4] if rng.random() < 0.5]
        rows = [pairs, *([] for _ in range(problem.operator_count - 1))]
        start, result = csr([[r for r, _ in row] for row in rows])
        made = problem.derived(
            pair_start=start, pair_result=result, pair_operand=csr([[u for _, u in row] for row in rows])[1]
        )
        best = max(
            sum(int(made.space_bytes[r]) for r, _ in chosen)
            for count in range(4)
            for chosen in combinations(pairs, count)
            if len({r for r, _ in chosen}) == count == len({u for _, u in chosen})
        )
        assert takeover_bytes(made, 0) == best
        several += not one_takeover_each(made)
    assert several > 20


@pytest.fixture
def product(tmp_path: Path) -> cosma.LoadedModel:
    """A product of 2 x 4 by 4 x 2, a Relu of it, and another product of the same operand."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        helper.make_node("Relu", ["y"], ["z"], name="relu"),
        helper.make_node("MatMul", ["x", "v"], ["u"], name="other"),
    ]
    path = tmp_path / "product.onnx"
    return cosma.load_onnx(save_network(path, nodes, {"x": [2, 4]}, {"w": (4, 2), "v": (4, 1)}, ("z", "u")))


@pytest.mark.parametrize(("capacity", "least"), [(48, 16), (56, 8), (80, 0)])
@pytest.mark.parametrize("strategy", ["e1", "e3", "existing", "divide", "exact", "auto"])
def test_bounds_hold_where_steps_of_sums_take_over_all_parts_at_once(
    product: cosma.LoadedModel, strategy: str, capacity: int, least: int
) -> None:
    """Relu reads row by row, so that a step of the product's sum yields two parts; with one takeover it needs 56."""
    tiling = cosma.Tiling({"relu": ((1,), ()), "other": ((1,), ())}, sums={"product": (2,)})
    machine = cosma.Accelerator(scratchpad=capacity, alignment=8, operands="resident", weights="scratchpad")
    plan = cosma.compile(product, machine, tiling=tiling, strategy=strategy, effort=0.2)
    problem = build_problem(plan.graph, machine)
    relaxed = single_takeovers(problem)
    assert relaxed is not None
    assert not one_takeover_each(problem)
    assert one_takeover_each(relaxed.problem)
    assert max(need_bytes(problem, v) for v in range(problem.operator_count)) == 48
    assert brute_force(problem).noncompulsory_bytes == least
    assert brute_force(relaxed.problem).noncompulsory_bytes <= least
    assert plan.certificate.lower_bound <= least <= plan.traffic.noncompulsory
