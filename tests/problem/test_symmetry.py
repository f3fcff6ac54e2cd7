from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.accelerator import Accelerator
from cosma.errors import InfeasibleError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.joint import build_joint
from cosma.joint.monolith import warm_start
from cosma.lowering import realise
from cosma.problem import (
    Problem,
    build_problem,
    check_feasible,
    decisions_from_gaps,
    noncompulsory_bytes,
    occupancy_bytes,
)
from cosma.problem.precedence import windows_of
from cosma.problem.symmetry import Symmetry, arrange, ordered_pairs, symmetries_of
from cosma.replacement import optimal_replacement
from cosma.solvers import load_profile, solve
from cosma.states import search_states
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import random_order, random_problem
from tests.symmetric_graphs import Planted, plant, random_planted, random_symmetric_problem


def branches(count: int, length: int, *, spoilt: bool = False, nested: bool = False) -> Problem:
    """A stem, equal chains between it and a join, and room for three tensors; nested: the chains end in pairs."""
    tensors = {"x": Tensor("x", 64, TensorKind.INPUT), "stem": Tensor("stem", 64, TensorKind.INTERMEDIATE)}
    operators = [Operator("stem", "Conv", ("x",), ("stem",))]
    ends = []
    for k in range(count):
        last = "stem"
        for i in range(length):
            name = f"b{k}_{i}"
            tensors[name] = Tensor(name, 32 if spoilt and k == i == 0 else 64, TensorKind.INTERMEDIATE)
            operators.append(Operator(name, "Conv", (last,), (name,)))
            last = name
        if not nested:
            ends.append(last)
        for j in range(2 if nested else 0):
            name = f"b{k}_end{j}"
            tensors[name] = Tensor(name, 64, TensorKind.INTERMEDIATE)
            operators.append(Operator(name, "Relu", (last,), (name,)))
            ends.append(name)
    tensors["y"] = Tensor("y", 64, TensorKind.OUTPUT)
    operators.append(Operator("join", "Concat", tuple(ends), ("y",)))
    room = 64 * (count * (2 if nested else 1) + 1)
    return build_problem(Graph(tensors.values(), operators, "branches"), Accelerator(scratchpad=room))


def feasible(problem: Problem) -> bool:
    try:
        check_feasible(problem)
    except InfeasibleError:
        return False
    return True


def check_optimum(problem: Problem) -> bool:
    """States named up to symmetry have the same optimum, and the order that comes out reaches it."""
    if not feasible(problem):
        return False
    try:
        truth = brute_force(problem, most_states=5_000).noncompulsory_bytes
    except TooLargeError:
        return False
    plain = search_states(problem, symmetric=False)
    broken = search_states(problem)
    assert plain.cost_bytes == broken.cost_bytes == broken.bound_bytes == truth
    position = {v: i for i, v in enumerate(broken.order)}
    assert sorted(position) == list(range(problem.operator_count))
    assert all(position[int(u)] < i for v, i in position.items() for u in problem.predecessors_of(v))
    assert optimal_replacement(problem, broken.order)[1] == truth
    assert search_states(problem, ceiling_bytes=truth).cost_bytes is None
    for most_states in (1, 4):
        assert search_states(problem, most_states=most_states).bound_bytes <= (truth or 0)
    return broken.expanded < plain.expanded


@pytest.mark.parametrize("block", range(4))
def test_the_optimum_stays(block: int) -> None:
    assert sum(check_optimum(random_symmetric_problem(seed)) for seed in range(60 * block, 60 * block + 60)) > 15


@given(seed=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_optimum_stays_shrinking(seed: st.DataObject) -> None:
    check_optimum(plant(lambda low, high: seed.draw(st.integers(low, high))).problem())


def test_the_program_keeps_its_optimum() -> None:
    smaller = 0
    for seed in range(24):
        problem = random_symmetric_problem(seed)
        plain, broken = build_joint(problem), build_joint(problem, ordered=ordered_pairs(problem))
        smaller += broken.model.variable_count < plain.model.variable_count
        found = [solve(joint.model, load_profile("cp-sat")).objective for joint in (plain, broken)]
        assert found[0] == found[1]
    assert smaller > 12


def test_the_program_with_addresses_keeps_its_optimum_and_takes_a_warm_start() -> None:
    checked = 0
    for seed in range(40):
        problem = random_symmetric_problem(seed)
        symmetries = symmetries_of(problem)
        if problem.operator_count > 6 or not symmetries or not feasible(problem):
            continue
        # An order with the branches the wrong way round: the plan must be renamed before the program knows it.
        order = max((random_order(problem, k) for k in range(8)), key=lambda row: row)
        plan = realise(problem, decisions_from_gaps(problem, order, lambda _: False))
        plain = build_joint(problem, addresses="intervals")
        broken = build_joint(problem, addresses="intervals", ordered=ordered_pairs(problem, symmetries))
        values = warm_start(broken, plan, symmetries)
        assert broken.model.violations(values) == []
        assert broken.model.value(values) == noncompulsory_bytes(problem, plan.decisions)
        profile = load_profile("cp-sat")
        assert solve(broken.model, profile).objective == solve(plain.model, profile).objective
        checked += 1
    assert checked >= 10


def renames_to_itself(problem: Problem, symmetry: Symmetry) -> bool:
    """Spell out what a symmetry is, from the arrays alone."""
    to, tensor = symmetry.operators, symmetry.tensors
    for v in range(problem.operator_count):
        w = to.get(v, v)
        for row in (problem.operands_of, problem.results_of):
            if sorted(tensor.get(t, t) for t in row(v).tolist()) != sorted(row(w).tolist()):
                return False
        pairs = sorted((tensor.get(r, r), tensor.get(u, u)) for r, u in problem.pairs_of(v))
        if pairs != sorted(problem.pairs_of(w)):
            return False
    columns = (problem.size_bytes, problem.space_bytes, problem.starts_off_chip, problem.must_store)
    return all(column[t] == column[u] for column in columns for t, u in tensor.items())


def test_every_symmetry_renames_the_instance_to_itself() -> None:
    for problem in [*map(random_symmetric_problem, range(200)), *map(random_problem, range(200))]:
        for symmetry in symmetries_of(problem):
            assert renames_to_itself(problem, symmetry)
            assert all(symmetry.operators[w] == v != w for v, w in symmetry.operators.items())


def test_planted_branches_are_found_and_spoilt_ones_are_not() -> None:
    def has_symmetry(planted: Planted) -> bool:
        return bool(symmetries_of(planted.problem()))

    # An epilogue that absorbs the join takes one branch apart.
    rows = [p for p in map(random_planted, range(200)) if p.accelerator.fusion == "none"]
    assert all(has_symmetry(p) for p in rows if p.equal)
    assert symmetries_of(branches(2, 3, spoilt=True)) == ()


def test_pairs_name_first_operators_only() -> None:
    problem = branches(3, 2)
    names = [tuple(problem.operator_names[v] for v in pair) for pair in ordered_pairs(problem)]
    assert names == [("b0_0", "b1_0"), ("b1_0", "b2_0")]
    nested = branches(2, 1, nested=True)
    names = [tuple(nested.operator_names[v] for v in pair) for pair in ordered_pairs(nested)]
    assert sorted(names) == [("b0_0", "b1_0"), ("b0_end0", "b0_end1"), ("b1_end0", "b1_end1")]


@pytest.mark.parametrize("nested", [False, True])
def test_every_order_can_be_renamed_to_keep_all_pairs(nested: bool) -> None:
    problem = branches(2, 1, nested=True) if nested else branches(3, 2)
    symmetries, pairs = symmetries_of(problem), ordered_pairs(problem)
    for seed in range(100):
        order = random_order(problem, seed)
        before = decisions_from_gaps(problem, order, lambda g, seed=seed: bool(g * seed % 3))
        after, _ = arrange(problem, before, symmetries)
        position = {v: i for i, v in enumerate(after.order)}
        assert all(position[u] < position[v] for u, v in pairs)
        assert all(position[int(u)] < i for v, i in position.items() for u in problem.predecessors_of(v))
        assert noncompulsory_bytes(problem, after) == noncompulsory_bytes(problem, before)
        assert occupancy_bytes(problem, after).tolist() == occupancy_bytes(problem, before).tolist()


def test_orders_to_look_at_get_fewer() -> None:
    """Three equal chains of two: of the 90 orders of their operators one in six is left."""
    problem = branches(3, 2)
    pairs = ordered_pairs(problem)
    chains = [[problem.operator_names.index(f"b{k}_{i}") for i in range(2)] for k in range(3)]
    every = permutations(v for chain in chains for v in chain)
    orders = [row for row in every if all(row.index(a) < row.index(b) for a, b in chains)]
    kept = [row for row in orders if all(row.index(u) < row.index(v) for u, v in pairs)]
    assert (len(orders), len(kept)) == (90, 15)
    windows = windows_of(problem, pairs)
    # The stem and the other two first operators stand before the third.
    assert windows.earliest[chains[2][0]] == 3


def test_the_search_has_less_to_do() -> None:
    problem = branches(4, 3)
    problem = build_problem(problem.graph, problem.accelerator.replace(scratchpad=64 * 5, operands="resident"))
    broken, plain = search_states(problem), search_states(problem, symmetric=False)
    assert broken.cost_bytes == plain.cost_bytes
    assert broken.expanded * 5 < plain.expanded
