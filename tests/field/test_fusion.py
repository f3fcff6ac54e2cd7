"""Epilogue fusion never hurts: neither traffic, nor what fits, whatever is fused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import cosma
from cosma import Accelerator, InfeasibleError
from cosma.bounds import lower_bound
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.problem import build_problem, smallest_feasible_capacity
from cosma.rewrite.fuse import (
    first_links,
    fitting,
    free_links,
    fuse,
    late_links,
    links,
    smallest_capacity,
    without_links,
)
from tests.random_graphs import Shape, random_instance

REPORTS = Path(__file__).resolve().parents[3] / "shared" / "reports"
SMALL = Shape(operators=8)
KIB = 1 << 10


def chain(*operators: tuple[str, str, tuple[str, ...], str], sizes: dict[str, int], outputs: tuple[str, ...]) -> Graph:
    made = {result for _, _, _, result in operators}
    kinds = {
        name: TensorKind.OUTPUT if name in outputs else TensorKind.INTERMEDIATE if name in made else TensorKind.INPUT
        for name in sizes
    }
    return Graph(
        [Tensor(name, size, kinds[name]) for name, size in sizes.items()],
        [Operator(name, kind, inputs, (result,), covers=(result,)) for name, kind, inputs, result in operators],
    )


#: A product that a full-size operand is added to: 3 x 16 KiB apart, 4 x 16 KiB as one operator.
NO_FIT = chain(
    ("product", "MatMul", ("q", "k"), "s"), ("sum", "Add", ("s", "m"), "y"),
    sizes={"q": 16 * KIB, "k": 16 * KIB, "m": 16 * KIB, "s": 16 * KIB, "y": 16 * KIB}, outputs=("y",),
)  # fmt: skip
#: x times a gate that is computed from x: what absorbs the product must wait for the gate.
GATE = chain(
    ("p", "Conv", ("x",), "p"), ("g1", "Conv", ("x",), "g1"), ("g2", "Conv", ("g1",), "g2"),
    ("gate", "GlobalAveragePool", ("g2",), "gate"), ("mul", "Mul", ("p", "gate"), "y"),
    sizes={"x": 64 * KIB, "p": 48 * KIB, "g1": 16 * KIB, "g2": 16 * KIB, "gate": 64, "y": 48 * KIB}, outputs=("y",),
)  # fmt: skip


def test_an_operator_is_not_made_too_large() -> None:
    accelerator = Accelerator(scratchpad="48KiB", operands="resident", fusion="epilogue")
    plan = cosma.compile(NO_FIT, accelerator, effort=0.5)
    assert plan.traffic.noncompulsory == 0
    assert [o.type for o in plan.graph.operators] == ["MatMul", "Add"]
    roomy = cosma.compile(NO_FIT, accelerator.replace(scratchpad="64KiB"), effort=0.5)
    assert roomy.traffic.noncompulsory == 0


@pytest.mark.parametrize("capacity", [130 * KIB, 132 * KIB, 144 * KIB])
def test_a_branch_does_not_wait(capacity: int) -> None:
    plain = cosma.compile(GATE, Accelerator(scratchpad=capacity), effort=1)
    fused = cosma.compile(GATE, Accelerator(scratchpad=capacity, fusion="epilogue"), effort=1)
    assert fused.traffic.noncompulsory <= plain.traffic.noncompulsory
    assert fused.traffic.noncompulsory == 0


@pytest.mark.skipif(not REPORTS.exists(), reason="the shared inputs are not beside the project")
@pytest.mark.parametrize("fusion", ["none", "epilogue"])
def test_the_shared_cases(fusion: str) -> None:
    resident = Accelerator(scratchpad="48KiB", operands="resident", fusion=fusion)
    assert cosma.compile(REPORTS / "fusion_no_fit.onnx", resident, effort=0.5).traffic.noncompulsory == 0
    for capacity in ("120KiB", "136KiB"):
        accelerator = Accelerator(scratchpad=capacity, fusion=fusion)
        assert cosma.compile(REPORTS / "gate_branch.onnx", accelerator, effort=1).traffic.noncompulsory == 0


# -- what does not fit ----------------------------------------------------------------------------------------


def test_hints_are_tried() -> None:
    base = Accelerator(scratchpad="40KiB", operands="resident")
    for accelerator in (base, base.replace(fusion="epilogue")):
        with pytest.raises(InfeasibleError) as caught:
            cosma.compile(NO_FIT, accelerator)
        error = caught.value
        assert (error.needed_bytes, error.available_bytes) == (48 * KIB, 40 * KIB)
        assert error.smallest_capacity_bytes == 48 * KIB
        assert "--" not in str(error)
        # In place is on, and fusing needs no less: neither is a remedy.
        assert [(r.setting, r.value) for r in error.remedies] == [("scratchpad", 48 * KIB), ("operands", "streamable")]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from(["none", "epilogue"]))
def test_every_remedy_works_and_no_less_does(seed: int, fusion: str) -> None:
    graph, drawn = random_instance(seed, SMALL)
    accelerator = drawn.replace(operands="resident", fusion=fusion, scratchpad=drawn.alignment + drawn.reserved)
    assume(smallest_capacity(graph, accelerator) > drawn.alignment)
    with pytest.raises(InfeasibleError) as caught:
        cosma.compile(graph, accelerator, strategy="e1")
    assert caught.value.smallest_capacity_bytes == smallest_capacity(graph, accelerator)
    for remedy in caught.value.remedies:
        changed = accelerator.replace(scratchpad=remedy.smallest_scratchpad_bytes)
        if remedy.setting != "scratchpad":
            changed = changed.replace(**{remedy.setting: remedy.value})
        cosma.compile(graph, changed, strategy="e1")
        less = changed.scratchpad - changed.alignment
        if less > changed.reserved and changed.operands == "resident":
            with pytest.raises(InfeasibleError):
                cosma.compile(graph, changed.replace(scratchpad=less), strategy="e1")


def test_the_command_line_writes_remedies_as_options(tmp_path: Path) -> None:
    from cosma.graph.json_format import save_graph

    save_graph(NO_FIT, tmp_path / "g.json")
    ran = subprocess.run(
        [sys.executable, "-m", "cosma", "compile", tmp_path / "g.json", "--scratchpad", "40KiB", "--operands",
         "resident"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 3
    smallest = "--scratchpad 49152 (the smallest, with operators cut no further)"
    assert f"try: {smallest}, or --operands streamable\n" in ran.stderr
    assert "fusion" not in ran.stderr


# -- properties -----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 100_000))
def test_fusing_never_costs_traffic_or_room(seed: int) -> None:
    graph, drawn = random_instance(seed, SMALL)
    plain, fusing = drawn.replace(fusion="none"), drawn.replace(fusion="epilogue")
    assert smallest_capacity(graph, fusing) <= smallest_capacity(graph, plain)
    assert smallest_capacity(graph, plain) == smallest_feasible_capacity(build_problem(graph, plain))
    try:
        apart = cosma.compile(graph, plain, strategy="exact", effort=2)
    except InfeasibleError:
        return
    joined = cosma.compile(graph, fusing, strategy="exact", effort=2)
    assert cosma.replay(joined, graph).valid
    assert joined.traffic.noncompulsory <= apart.traffic.noncompulsory
    assert joined.certificate.lower_bound <= joined.traffic.noncompulsory


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 100_000))
def test_a_choice_that_fits_is_found_exactly_where_there_is_one(seed: int) -> None:
    graph, drawn = random_instance(seed, SMALL)
    accelerator = drawn.replace(fusion="epilogue", operands="resident")
    least = smallest_capacity(graph, accelerator)
    for chosen in (first_links(graph), late_links(graph)):
        fit = fitting(graph, accelerator.replace(scratchpad=max(least, 64) + drawn.reserved), chosen)
        if fit is None:
            continue
        joined = fuse(graph, [link.tensor for link in fit])
        assert smallest_feasible_capacity(build_problem(joined.graph, accelerator)) <= max(least, 64)
        assert sorted(n for parts in joined.lineage.operators.values() for n in parts) == sorted(
            o.name for o in graph.operators
        )
    assert any(
        fitting(graph, accelerator.replace(scratchpad=least + drawn.reserved), chosen) is not None
        for chosen in (first_links(graph), late_links(graph))
    ) or not least


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 100_000), st.data())
def test_a_bound_without_links_holds_for_every_choice(seed: int, data: st.DataObject) -> None:
    graph, drawn = random_instance(seed, SMALL)
    accelerator = drawn.replace(fusion="epilogue")
    by_follower = {link.follower: link for link in data.draw(st.permutations(links(graph)))}
    chosen = [link.tensor for link in by_follower.values() if data.draw(st.booleans())]
    problem = build_problem(fuse(graph, chosen).graph, accelerator)
    try:
        plan = cosma.compile(problem.graph, accelerator.replace(fusion="none"), strategy="exact", effort=1)
    except InfeasibleError:
        return
    relaxed = build_problem(without_links(graph), accelerator)
    assert lower_bound(relaxed, 0.5).value_bytes <= plan.traffic.noncompulsory


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 100_000))
def test_free_links_cost_nothing(seed: int) -> None:
    graph, drawn = random_instance(seed, SMALL)
    accelerator = drawn.replace(fusion="none")
    chosen = [link.tensor for link in free_links(graph, accelerator)]
    assume(chosen)
    try:
        apart = cosma.compile(graph, accelerator, strategy="exact", effort=2)
    except InfeasibleError:
        return
    joined = cosma.compile(fuse(graph, chosen).graph, accelerator, strategy="exact", effort=2)
    if joined.certificate.status == "optimal":
        assert joined.traffic.noncompulsory <= apart.traffic.noncompulsory


def test_starts_of_every_fusion_are_welcome(tmp_path: Path) -> None:
    accelerator = Accelerator(scratchpad=144 * KIB, fusion="epilogue")
    for fusion in ("none", "epilogue"):
        first = cosma.compile(GATE, accelerator.replace(fusion=fusion), effort=0.5)
        again = cosma.compile(GATE, accelerator, effort=0.5, starts=[first])
        assert again.traffic.total <= first.traffic.total


def test_the_same_plan_comes_out_again() -> None:
    from cosma.plan.file import plan_to_json

    accelerator = Accelerator(scratchpad=120 * KIB, fusion="epilogue")
    first, second = (cosma.compile(GATE, accelerator, effort=0.5) for _ in range(2))
    assert plan_to_json(first) == plan_to_json(second)
    assert json.loads(plan_to_json(first))["solver"]["fused"] in ("all", "late", "free", "none")
