from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

import cosma
from cosma.accelerator import Accelerator, Operands
from cosma.compiler import Limits, run_compile
from cosma.compiler.strategies import STRATEGIES, WITH_STARTS
from cosma.errors import FormatError, InfeasibleError, InputError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.parameters.compiler import AutoParameters, CompileParameters
from cosma.plan import Plan
from cosma.plan.file import plan_to_json, save_plan
from cosma.plan.instructions import Execute
from tests.planning import diamond, plan_for
from tests.random_graphs import Shape, random_instance

ROOM = Shape(operators=24, inputs=3, weights=4, most_units=16)
RESIDENT = Accelerator(scratchpad=448, operands=Operands.RESIDENT, in_place=False)


def smaller(graph: Graph, accelerator: Accelerator) -> Plan | None:
    """A plan for less scratchpad, if there is one."""
    less = accelerator.replace(scratchpad=accelerator.reserved + max(1, accelerator.capacity_bytes * 4 // 5))
    try:
        return cosma.compile(graph, less, effort=1.5)
    except InfeasibleError:
        return None


@pytest.mark.parametrize("strategy", WITH_STARTS)
def test_a_start_is_never_lost(strategy: str) -> None:
    """Plans for 4/5 of the capacity start plans for all of it, in every mode; the order of the latter starts the
    former."""
    looked, used = 0, 0
    for seed in range(12):
        graph, accelerator = random_instance(seed, dataclasses.replace(ROOM, operators=8 if strategy == "ilp" else 24))
        start = smaller(graph, accelerator)
        if start is None:
            continue
        looked += 1
        result = run_compile(graph, accelerator, strategy=strategy, limits=Limits(effort=0.1), starts=[start])
        assert result.plan.traffic.noncompulsory <= start.traffic.noncompulsory
        assert cosma.replay(result.plan).valid
        (report,) = result.starts
        assert report.realised is not None
        assert not report.why_not
        assert result.plan.solver["starts"] == [hashlib.sha256(plan_to_json(start).encode()).hexdigest()]
        used += "start" in result.found_by
        again = run_compile(graph, accelerator, strategy=strategy, limits=Limits(effort=0.1), starts=[start])
        assert plan_to_json(again.plan) == plan_to_json(result.plan)
        back = run_compile(graph, start.accelerator, strategy=strategy, limits=Limits(effort=0.1), starts=[result.plan])
        assert cosma.replay(back.plan).valid
    assert looked >= 5
    assert used >= 1


def test_no_effort_and_an_interrupt_keep_the_start() -> None:
    for seed in range(60):
        graph, accelerator = random_instance(seed, ROOM)
        try:
            start = cosma.compile(graph, accelerator, effort=1.5)
        except InfeasibleError:
            continue
        if start.traffic.noncompulsory < plan_for(graph, accelerator, "existing").traffic.noncompulsory:
            break
    else:
        pytest.fail("no instance on which search beats the existing methods")
    for options in ({"limits": Limits(effort=0)}, {"interrupted": lambda: True}):
        result = run_compile(graph, accelerator, starts=[start], **options)
        assert result.plan.traffic.noncompulsory <= start.traffic.noncompulsory
    alone = run_compile(graph, accelerator, strategy="existing", starts=[start])
    assert alone.found_by == alone.plan.solver["found_by"] == "start 1"
    assert alone.plan.traffic == start.traffic
    assert alone.plan.instructions == start.instructions


def test_a_long_network_starts_too() -> None:
    long = CompileParameters(auto=AutoParameters(most_operators_as_one=10))
    looked = 0
    for seed in range(6):
        graph, accelerator = random_instance(seed, ROOM)
        start = smaller(graph, accelerator)
        if start is None or len(graph.operators) <= 10:
            continue
        looked += 1
        for starts in ([start], [start, start]):
            plan = cosma.compile(graph, accelerator, effort=0.1, starts=starts, parameters=long)
            assert plan.traffic.noncompulsory <= start.traffic.noncompulsory
            assert cosma.replay(plan).valid
    assert looked >= 2


def test_another_mode_lends_its_order() -> None:
    graph = diamond()
    plan = cosma.compile(graph, Accelerator(scratchpad=448))
    streamed = cosma.compile(graph, Accelerator(scratchpad=64))
    result = run_compile(graph, RESIDENT, strategy="existing", starts=[plan, streamed])
    first, second = result.starts
    assert (first.name, second.name) == ("start 1", "start 2")
    assert second.realised is None
    assert second.hint == second.order
    assert "streaming-forbidden" in second.why_not
    assert [graph.operators[v].name for v in second.order] == list(streamed.schedule)
    assert len(result.plan.solver["starts"]) == 2
    assert cosma.replay(result.plan, graph).valid


def test_a_coarser_alignment_is_fine_and_a_finer_one_is_not() -> None:
    graph = diamond()
    coarse = plan_for(graph, RESIDENT.replace(alignment=128, scratchpad=1024))
    (start,) = run_compile(graph, RESIDENT.replace(scratchpad=1024), starts=[coarse]).starts
    assert start.realised is not None
    odd = Graph(
        [Tensor("x", 40, TensorKind.INPUT), Tensor("z", 40, TensorKind.INPUT), Tensor("y", 40, TensorKind.OUTPUT)],
        [Operator("o", "Conv", ("x", "z"), ("y",))],
    )
    fine = plan_for(odd, Accelerator(scratchpad=120, alignment=8, operands="resident"))
    (start,) = run_compile(odd, Accelerator(scratchpad=192, operands="resident"), starts=[fine]).starts
    assert start.realised is None
    assert "misaligned" in start.why_not


def test_files_are_read_and_named(tmp_path: Path) -> None:
    plan = plan_for(diamond(), RESIDENT)
    save_plan(plan, tmp_path / "plan.json")
    by_path = run_compile(diamond(), RESIDENT, starts=[tmp_path / "plan.json", str(tmp_path / "plan.json")])
    assert [start.source for start in by_path.starts] == [str(tmp_path / "plan.json")] * 2
    by_plan = run_compile(diamond(), RESIDENT, starts=[plan, plan])
    assert plan_to_json(by_path.plan) == plan_to_json(by_plan.plan)
    assert str(tmp_path) not in plan_to_json(by_path.plan)
    assert "starts" not in plan.solver


def renamed(change: dict[str, Any]) -> Graph:
    """The diamond with one operator replaced."""
    graph = diamond()
    operators = [dataclasses.replace(o, **change) if o.name == "right" else o for o in graph.operators]
    return Graph(graph.tensors.values(), operators, "diamond")


def resized() -> Graph:
    graph = diamond()
    tensors = [dataclasses.replace(t, size_bytes=96) if t.name == "c" else t for t in graph.tensors.values()]
    return Graph(tensors, graph.operators, "diamond")


def shortened() -> Graph:
    """The diamond without its join."""
    graph = diamond()
    tensors = [t for t in graph.tensors.values() if t.name not in "bdy"]
    kept = [dataclasses.replace(t, kind=TensorKind.OUTPUT) if t.name == "c" else t for t in tensors]
    return Graph(kept, [o for o in graph.operators if o.name in ("stem", "right")], "diamond")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (renamed({"name": "wrong"}), r"no operator 'right' \(Pool\)"),
        (renamed({"type": "Conv"}), r"operator 'right' is Conv\(a\) -> c there, Pool\(a\) -> c here"),
        (renamed({"inputs": ("x",)}), r"operator 'right' is Pool\(x\) -> c there, Pool\(a\) -> c here"),
        (resized(), r"tensor 'c' \(intermediate\) has 96 bytes there, 64 \(intermediate\) here"),
        (shortened(), r"no operator 'left' \(Relu\)"),
    ],
)
def test_plans_of_other_networks_are_refused(other: Graph, message: str) -> None:
    plan = plan_for(other, RESIDENT.replace(scratchpad=1024))
    with pytest.raises(InputError, match=r"start 1 \(diamond\) is a plan of another network: .*" + message):
        cosma.compile(diamond(), RESIDENT, starts=[plan])


def test_what_is_not_here_is_named_too() -> None:
    plan = plan_for(diamond(), RESIDENT.replace(scratchpad=1024))
    with pytest.raises(InputError, match=r"its operator 'left' \(Relu\) is not here"):
        cosma.compile(shortened(), RESIDENT, starts=[plan])


def test_fusion_and_element_type_explain_a_difference() -> None:
    graph = Graph(
        [
            Tensor("x", 256, TensorKind.INPUT, "float32", (64,)),
            Tensor("a", 256, dtype="float32", shape=(64,)),
            Tensor("y", 256, TensorKind.OUTPUT, "float32", (64,)),
        ],
        [Operator("conv", "Conv", ("x",), ("a",), covers=("a",)), Operator("relu", "Relu", ("a",), ("y",))],
    )
    room = Accelerator(scratchpad=2048)
    fused = cosma.compile(graph, room.replace(fusion="epilogue"))
    with pytest.raises(InputError, match="its fusion is epilogue, here none"):
        cosma.compile(graph, room, starts=[fused])
    narrow = cosma.compile(graph, room, dtype="int8")
    with pytest.raises(InputError, match="it counts elements as int8, this compile as it does"):
        cosma.compile(graph, room, starts=[narrow])
    assert cosma.compile(graph, room, dtype="int8", starts=[narrow]).traffic == narrow.traffic


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    plan = plan_for(diamond(), RESIDENT)
    twice = dataclasses.replace(plan, instructions=(*plan.instructions, Execute("stem")))
    with pytest.raises(InputError, match=r"start 1 \(diamond\) is no plan: operator 'stem' executes twice"):
        cosma.compile(diamond(), RESIDENT, starts=[twice])
    backwards = dataclasses.replace(plan, instructions=plan.instructions[::-1])
    with pytest.raises(InputError, match="executes before"):
        cosma.compile(diamond(), RESIDENT, starts=[backwards])
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(FormatError, match=r"no\.json"):
        cosma.compile(diamond(), RESIDENT, starts=[tmp_path / "no.json"])
    with pytest.raises(InputError, match="missing"):
        cosma.compile(diamond(), RESIDENT, starts=[tmp_path / "missing.json"])
    with pytest.raises(InputError, match=r"starts \(a sequence of plans or paths"):
        cosma.compile(diamond(), RESIDENT, starts=str(tmp_path / "no.json"))


@pytest.mark.parametrize("strategy", [*sorted(set(STRATEGIES) - set(WITH_STARTS)), "given+lru+first-fit"])
def test_fixed_methods_take_no_starts(strategy: str) -> None:
    with pytest.raises(InputError, match=f"starts are for the strategies auto.*; {strategy.split('+')[0]}"):
        cosma.compile(diamond(), RESIDENT, strategy=strategy, starts=[plan_for(diamond(), RESIDENT)])
