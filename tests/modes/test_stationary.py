"""Plans and bounds under ``operands = stationary`` against a search over all plans in all modes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosma import Accelerator, Execute, Graph, InputError, Mode, Operator, Tensor, compile, replay
from cosma.compiler import Limits, run_compile
from cosma.compiler.modes import choose_modes, fitting_modes
from cosma.errors import CosmaWarning, InfeasibleError
from cosma.heuristics import EXISTING, Method, run_method
from cosma.lowering import lift
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.problem import build_problem, noncompulsory_bytes
from cosma.problem.feasibility import infeasible
from cosma.states.search import search_states
from cosma.validator import Verdict, replay_instructions
from tests.brute_force import TooLargeError, brute_force, brute_force_modes
from tests.modes.instances import instances

pytestmark = pytest.mark.filterwarnings("ignore:everything is streamed")


def chosen_modes(graph: Graph, accelerator: Accelerator) -> Graph | None:
    """The graph with a mode for each operator; None where some operator fits in none."""
    every = fitting_modes(graph, accelerator)
    return choose_modes(every, accelerator) if infeasible(build_problem(every, accelerator), every) is None else None


@pytest.mark.parametrize(
    ("strategy", "seed", "count"),
    [("e1", 1, 60), ("e2", 2, 60), ("e3", 3, 60), ("auto", 4, 40), ("exact", 5, 40), ("divide", 6, 40), ("ilp", 7, 25),
     ("depth-first+cost-aware-belady+greedy-by-size", 8, 40)],
)  # fmt: skip
def test_no_bound_is_above_the_optimum_and_no_plan_below(strategy: str, seed: int, count: int) -> None:
    checked = optimal = 0
    for graph, accelerator in instances(seed, count):
        try:
            best = brute_force_modes(graph, accelerator).noncompulsory_bytes
        except TooLargeError:
            continue
        try:
            plan = run_compile(graph, accelerator, strategy=strategy, limits=Limits(effort=0.2)).plan
        except InfeasibleError:
            assert best is None
            continue
        assert best is not None
        assert plan.certificate.lower_bound <= best <= plan.traffic.noncompulsory
        assert replay(plan).valid
        checked += 1
        optimal += plan.traffic.noncompulsory == best
    assert checked > count // 2
    if strategy in ("auto", "exact", "ilp"):
        assert optimal >= 0.9 * checked


def test_dynamic_programming_agrees_where_each_operator_has_one_mode() -> None:
    checked = 0
    for graph, accelerator in instances(11, 120):
        chosen = chosen_modes(graph, accelerator)
        if chosen is None:
            continue
        problem = build_problem(chosen, accelerator)
        try:
            best = brute_force_modes(chosen, accelerator).noncompulsory_bytes
        except TooLargeError:
            continue
        found = search_states(problem, most_states=100_000)
        assert found.cost_bytes == best
        assert brute_force(problem).noncompulsory_bytes == best
        checked += 1
    assert checked > 60


def test_plans_with_addresses_are_never_below_the_search_with_addresses() -> None:
    checked = 0
    for graph, accelerator in instances(12, 12, operators=3):
        if accelerator.scratchpad > 400:
            continue
        try:
            best = brute_force_modes(graph, accelerator, addresses=True).noncompulsory_bytes
            plan = compile(graph, accelerator, strategy="exact", effort=0.3)
        except (TooLargeError, InfeasibleError):
            continue
        assert best is not None
        assert plan.certificate.lower_bound <= best <= plan.traffic.noncompulsory
        checked += 1
    assert checked > 3


def test_plans_lift_to_their_own_decisions() -> None:
    for graph, accelerator in instances(13, 40):
        chosen = chosen_modes(graph, accelerator)
        if chosen is None:
            continue
        problem = build_problem(chosen, accelerator)
        for method in EXISTING.values():
            realised = run_method(problem, method)
            report = replay_instructions(chosen, accelerator, realised.instructions)
            assert report.valid, report.violations[0]
            assert report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)
            again = lift(problem, realised.instructions)
            assert noncompulsory_bytes(problem, again) <= report.traffic.noncompulsory


def test_a_smaller_result_leaves_no_room_of_its_operand_while_the_operator_runs() -> None:
    """The operand is read whole until the end, so what the result does not take of it is not free for another one."""
    graph = Graph(
        [
            Tensor("x", 96, "input"),
            Tensor("s", 64, "input"),
            Tensor("a", 96, "intermediate"),
            Tensor("r", 32, "intermediate"),
            Tensor("y", 32, "output"),
        ],
        [
            Operator("relu", "Relu", ["x"], ["a"], modes=[Mode("all", ("x", "a"))]),
            Operator("add", "Add", ["a", "s"], ["r"], modes=[Mode("one", ("s",))]),
            Operator("cat", "Concat", ["r", "s"], ["y"], modes=[Mode("all", ("r", "s", "y"))]),
        ],
    )
    accelerator = Accelerator(scratchpad=128, alignment=32, operands="stationary")
    problem = build_problem(graph, accelerator)
    assert problem.pairs_of(1)
    for method in (*EXISTING.values(), Method("given", "belady", "greedy-by-size")):
        report = replay_instructions(graph, accelerator, run_method(problem, method).instructions)
        assert report.valid, (method, report.violations[0])
        assert report.traffic.noncompulsory == 64


def test_files_keep_modes_and_workspaces() -> None:
    written = 0
    for graph, accelerator in instances(14, 20):
        try:
            plan = compile(graph, accelerator, strategy="existing")
        except InfeasibleError:
            continue
        text = plan_to_json(plan)
        assert '"version": 2' in text
        again = plan_from_json(text)
        assert plan_to_json(again) == text
        assert replay(again).valid
        written += '"workspace"' in text
    assert written > 5


def convolution() -> Graph:
    """A tensor of 64 bytes through an operator that keeps its weights, and one that streams nothing."""
    kept = Mode("weight-stationary", ("x", "y"), 24)
    return Graph(
        [
            Tensor("x", 64, "input"),
            Tensor("w", 16, "weight"),
            Tensor("y", 64, "intermediate"),
            Tensor("z", 16, "output"),
        ],
        [Operator("conv", "Conv", ["x"], ["y"], ["w"], modes=[kept]), Operator("other", "NonZero", ["y"], ["z"])],
    )


ROOM = Accelerator(scratchpad=128, alignment=16, operands="stationary", weights="scratchpad", in_place=False)


def verdicts(change: dict[str, object] | None, graph: Graph | None = None, accelerator: Accelerator = ROOM) -> set[str]:
    plan = compile(convolution(), ROOM, strategy="e2")
    instructions = tuple(
        replace(i, **change) if change and isinstance(i, Execute) and i.operator == "conv" else i  # type: ignore[arg-type]
        for i in plan.instructions
    )
    found = replay_instructions(graph or plan.graph, accelerator, instructions).violations
    return {violation.verdict for violation in found}


def test_a_workspace_must_be_there_within_bounds_aligned_and_apart() -> None:
    assert verdicts(None) == set()
    assert verdicts({"workspace": None}) == {Verdict.WORKSPACE_ABSENT}
    assert verdicts({"workspace": 112}) == {Verdict.WORKSPACE_OUT_OF_BOUNDS}
    assert verdicts({"workspace": -16}) >= {Verdict.WORKSPACE_OUT_OF_BOUNDS}
    plan = compile(convolution(), ROOM, strategy="e2")
    at = next(i.address for i in plan.instructions if getattr(i, "tensor", "") == "w" and hasattr(i, "address"))
    assert verdicts({"workspace": at}) == {Verdict.WORKSPACE_OVERLAP}
    place = next(i.workspace for i in plan.instructions if isinstance(i, Execute) and i.operator == "conv")
    assert place is not None
    assert Verdict.WORKSPACE_MISALIGNED in verdicts({"workspace": place + 1})


def test_a_workspace_counts_in_the_peak() -> None:
    plan = compile(convolution(), ROOM, strategy="e2")
    assert plan.peak_bytes >= 16 + 32  # the weight and its operator's workspace


def test_only_what_a_mode_names_may_stream() -> None:
    graph = convolution()
    less = Graph(
        graph.tensors.values(),
        [replace(o, modes=[Mode("narrow", (), 24)]) if o.name == "conv" else o for o in graph.operators],
    )
    plan = compile(graph, ROOM, strategy="e2")
    streamed = {t for i in plan.instructions if isinstance(i, Execute) and i.operator == "conv" for t in i.streamed}
    assert streamed  # 64 bytes in, 64 out and the rest do not fit at once
    report = replay_instructions(less, ROOM, plan.instructions)
    assert {v.verdict for v in report.violations} == {Verdict.STREAMING_FORBIDDEN}
    assert "narrow" in report.violations[0].message


def test_modes_allow_together_what_one_of_them_allows() -> None:
    both = [Mode("one", ("x",)), Mode("other", ("y",))]
    graph = Graph(
        [Tensor("x", 64, "input"), Tensor("y", 64, "output")], [Operator("v", "Op", ["x"], ["y"], modes=both)]
    )
    accelerator = Accelerator(scratchpad=64, alignment=16, operands="stationary", in_place=False)
    plan = compile(graph, accelerator, strategy="exact")
    assert plan.certificate.status == "optimal"
    report = replay_instructions(graph, accelerator, [Execute("v", ("x", "y"))])
    assert {v.verdict for v in report.violations} == {Verdict.STREAMING_FORBIDDEN}


def test_a_graph_without_nodes_cannot_be_cut() -> None:
    with pytest.raises(InputError, match="only models read from ONNX files can be cut"):
        compile(convolution(), ROOM, tiling="rows=2")


def test_a_graph_that_says_nothing_of_its_operators_stays_resident() -> None:
    graph = Graph([Tensor("x", 64, "input"), Tensor("y", 64, "output")], [Operator("v", "Relu", ["x"], ["y"])])
    with pytest.warns(CosmaWarning, match="nothing is streamed"):
        plan = compile(graph, Accelerator(scratchpad=128, operands="stationary", in_place=False), strategy="e1")
    assert plan.traffic.streamed == 0
    with pytest.warns(CosmaWarning), pytest.raises(InfeasibleError, match="does not fit"):
        compile(graph, Accelerator(scratchpad=64, operands="stationary", in_place=False), strategy="e1")


def test_an_operator_that_fits_in_no_mode_is_named_with_its_least_need() -> None:
    with pytest.raises(InfeasibleError) as caught:
        compile(convolution(), ROOM.replace(scratchpad=64), strategy="e1")
    # NonZero holds y and z at once: 64 and 16 bytes.
    assert caught.value.operator == "other"
    assert caught.value.needed_bytes == 80
