"""Constraints on networks that are fused, cut into tiles, planned in modes, or planned from an earlier plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import cosma
from cosma import Accelerator, Constraints, Execute, InfeasibleError, Load, Plan
from cosma.plan.instructions import Allocate
from tests.onnx_files import save_network
from tests.planning import diamond


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two branches of convolutions and activations over maps of 16 KiB (float32), added."""
    weights = {"w1": (4, 4, 3, 3), "w2": (4, 4, 1, 1), "w3": (4, 4, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="conv2"),
        helper.make_node("Sigmoid", ["c"], ["d"], name="gate"),
        helper.make_node("Conv", ["b", "w3"], ["e"], name="conv3", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "e"], ["y"], name="add"),
    ]
    return save_network(tmp_path / "branches.onnx", nodes, {"x": [1, 4, 32, 32]}, weights)


ROOMY = Accelerator(scratchpad="80KiB", weights="scratchpad", fusion="epilogue")


def steps(plan: Plan) -> dict[str, int]:
    return {name: i for i, name in enumerate(plan.schedule)}


def test_what_a_constraint_names_is_not_fused_away(network: Path) -> None:
    fused = cosma.compile(network, ROOMY.replace(operands="resident"), effort=0.2)
    assert "a" not in fused.graph.tensors
    forced = Constraints(addresses={"a": 4096}, before=[("gate", "conv3")])
    plan = cosma.compile(network, ROOMY.replace(operands="resident"), effort=0.2, constraints=forced)
    assert cosma.replay(plan).valid
    places = [i.address for i in plan.instructions if isinstance(i, Load | Allocate) and i.tensor == "a"]
    assert places == [4096]
    assert steps(plan)["gate"] < steps(plan)["conv3"]
    assert {"add", "gate", "conv3"} <= set(plan.schedule) | {"add"}


def test_constraints_reach_parts_and_tiles(network: Path) -> None:
    forced = Constraints(
        resident=["b"], never_on_chip=["x"], before=[("conv2", "conv3")], alignments={"c": 256},
        workspaces={"conv3": 512}, excluded=[("16KiB", "17KiB")],
    )  # fmt: skip
    plan = cosma.compile(
        network, ROOMY.replace(scratchpad="72KiB"), effort=0.3, tiling="rows=8", constraints=forced, off_chip=True
    )
    assert cosma.replay(plan, model=None).valid
    assert "b" in plan.graph.roots
    kept = set(plan.accelerator.constraints.resident)
    assert kept == {part.name for part in plan.graph.parts_of("b")}
    assert set(plan.accelerator.constraints.never_on_chip) == {part.name for part in plan.graph.parts_of("x")}
    first = max(step for name, step in steps(plan).items() if plan.graph.operator(name).tile is not None
                and plan.graph.operator(name).tile.root == "conv2")  # type: ignore[union-attr]  # fmt: skip
    second = min(step for name, step in steps(plan).items() if plan.graph.operator(name).tile is not None
                 and plan.graph.operator(name).tile.root == "conv3")  # type: ignore[union-attr]  # fmt: skip
    assert first < second
    spaces = [i.workspace for i in plan.instructions if isinstance(i, Execute) and i.workspace is not None]
    assert len(spaces) >= 4
    assert plan.off_chip is not None
    assert set(plan.off_chip.areas["inputs"].offsets) == {"x"}


def test_parts_of_a_tensor_with_an_address_lie_where_they_lie_in_it(network: Path) -> None:
    # Rows of one channel are no range of the map; the map itself is cut along channels.
    forced = Constraints(addresses={"c": 0})
    plan = cosma.compile(
        network, ROOMY.replace(operands="resident"), effort=0.2, tiling="channels=2", constraints=forced
    )
    assert cosma.replay(plan).valid
    for part in plan.graph.parts_of("c"):
        assert part.region is not None
        wanted = part.region.offset((1, 4, 32, 32))
        assert wanted is not None
        at = {i.address for i in plan.instructions if isinstance(i, Load | Allocate) and i.tensor == part.name}
        assert at == {4 * wanted}
    with pytest.raises(InfeasibleError, match="address 0 of 'c'"):
        cosma.compile(network, ROOMY, effort=0.2, tiling="rows=8", constraints=forced)


@pytest.mark.parametrize("strategy", ["auto", "e2"])
def test_modes_and_constraints(network: Path, strategy: str) -> None:
    stationary = Accelerator(scratchpad="40KiB", operands="stationary", weights="scratchpad", fusion="epilogue")
    forced = Constraints(never_on_chip=["y"], excluded=[(0, 1024)], workspaces={"conv1": 1000})
    plan = cosma.compile(network, stationary, strategy=strategy, effort=0.3, constraints=forced)
    assert cosma.replay(plan).valid
    assert not any(isinstance(i, Allocate) and i.tensor == "y" for i in plan.instructions)


@pytest.mark.parametrize("strategy", ["auto", "exact", "divide"])
def test_a_plan_made_without_constraints_is_a_start_all_the_same(strategy: str) -> None:
    accelerator = Accelerator(scratchpad=512, alignment=16, operands="resident")
    free = cosma.compile(diamond(), accelerator, strategy="e1")
    assert steps(free)["left"] < steps(free)["right"]
    forced = Constraints(before=[("right", "left")], addresses={"a": 128})
    result = cosma.compile_outcome(
        diamond(), accelerator, strategy=strategy, effort=0.2, constraints=forced, starts=[free]
    )
    assert steps(result.plan)["right"] < steps(result.plan)["left"]
    assert cosma.replay(result.plan).valid
    assert result.starts[0].why_not
    again = cosma.compile_outcome(
        diamond(), accelerator, strategy=strategy, effort=0.2, constraints=forced, starts=[result.plan]
    )
    assert not again.starts[0].why_not


def test_accelerator_files_take_ranges(tmp_path: Path) -> None:
    path = tmp_path / "part.toml"
    path.write_text('scratchpad = "64KiB"\nreserved = [["0", "4KiB"], [61440, 65536]]\noperands = "resident"\n')
    part = cosma.find_accelerator(path).accelerator
    assert part.reserved == 0
    assert part.reserved_ranges == ((0, 4096), (61440, 65536))
    assert part.windows == ((4096, 61440),)
    assert part.usable_bytes == 57344
    with pytest.raises(cosma.AcceleratorError, match="ends beyond the scratchpad"):
        part.replace(scratchpad="32KiB")
    with pytest.raises(cosma.AcceleratorError, match="reserved"):
        Accelerator(scratchpad=64, reserved=[(0, 8, 16)])


def test_a_plan_of_constraints_is_compiled_again_from_what_it_says() -> None:
    forced = Constraints(before=[("right", "left")], never_on_chip=["x"])
    first = cosma.compile(diamond(), Accelerator(scratchpad=384), effort=0.2, constraints=forced)
    again = cosma.compile(first.graph, first.accelerator, effort=0.2)
    assert again.accelerator.constraints == forced
    assert again.traffic == first.traffic


def test_a_chain_of_takeovers_does_not_bring_together_what_has_no_common_address() -> None:
    graph = cosma.Graph(
        [cosma.Tensor("x", 64, "input"), *(cosma.Tensor(name, 64) for name in "abc"), cosma.Tensor("y", 64, "output")],
        [
            cosma.Operator("one", "Conv", ["x"], ["a"]),
            cosma.Operator("two", "Relu", ["a"], ["b"]),
            cosma.Operator("three", "Relu", ["b"], ["c"]),
            cosma.Operator("four", "Relu", ["c"], ["y"]),
        ],
    )
    part = Accelerator(scratchpad=512, alignment=64, operands="resident")
    for forced in (Constraints(addresses={"a": 64, "c": 192}), Constraints(addresses={"a": 64}, alignments={"y": 128})):
        for strategy in ("e1", "exact", "auto", "ilp"):
            plan = cosma.compile(graph, part, strategy=strategy, effort=0.2, constraints=forced)
            assert cosma.replay(plan).valid
            taken = [i.in_place_of for i in plan.instructions if isinstance(i, Allocate) and i.in_place_of]
            assert 1 <= len(taken) < 3


@pytest.mark.parametrize("operands", ["stationary", "streamable"])
def test_parts_of_what_is_never_on_chip_stream(network: Path, operands: str) -> None:
    accelerator = ROOMY.replace(operands=operands, scratchpad="24KiB")
    forced = Constraints(never_on_chip=["b"])
    plans = {
        tiling: cosma.compile(network, accelerator, effort=0.2, tiling=tiling, constraints=forced)
        for tiling in ("none", "rows=8", "auto")
    }
    assert all(cosma.replay(plan, model=network).valid for plan in plans.values())
    assert plans["auto"].traffic.total <= plans["none"].traffic.total
    tiled = plans["rows=8"]
    assert sum(operator.tile is not None for operator in tiled.graph.operators) == 12
    parts = {part.name for part in tiled.graph.parts_of("b")}
    assert parts
    assert not any(i.tensor in parts for i in tiled.instructions if isinstance(i, Load | Allocate))


def test_a_takeover_that_is_permitted_is_executed_as_one_that_the_kernel_can_make(network: Path) -> None:
    """What the table of operators allows is executed in two halves, which a convolution over its operand fails."""
    from dataclasses import replace

    from cosma.execute import run_plan

    forced = Constraints(in_place_permitted=[("c", "b")], before=[("conv3", "conv2")])
    accelerator = Accelerator(scratchpad="40KiB", operands="streamable")
    plan = cosma.compile(network, accelerator, effort=0.2, constraints=forced)
    assert any(isinstance(i, Allocate) and (i.tensor, i.in_place_of) == ("c", "b") for i in plan.instructions)
    assert run_plan(plan, network).passed
    assert not run_plan(replace(plan, accelerator=accelerator), network).passed
