"""Operands of tiles in few address ranges: neighbouring stripes side by side, windows that roll."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import cosma
from cosma.graph import Region
from cosma.graph.join import Piece
from cosma.plan.instructions import Allocate, Load
from cosma.problem.homes import stripe_lines
from cosma.validator.ranges import count_ranges, pieces_touched

MACHINE = cosma.Accelerator(scratchpad="8KiB", operands="resident", weights="scratchpad")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three convolutions over maps of 16 KiB (int8) whose stripes need two rows of their neighbours."""
    nodes = [
        helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], name=f"c{i}", pads=[1, 1, 1, 1]) for i in range(3)
    ]
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info("t0", TensorProto.FLOAT, [1, 4, 64, 64])],
        [onnx.ValueInfoProto(name="t3")],
        [onnx.numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), f"w{i}") for i in range(3)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("pieces") / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def most_ranges(plan: cosma.Plan) -> int:
    """Most ranges of an operand at the step that touches it, by the addresses that the plan gives."""
    address: dict[str, int] = {}
    size = {name: tensor.size_bytes for name, tensor in plan.graph.tensors.items()}
    most = 1
    for step in plan.instructions:
        if isinstance(step, Load | Allocate):
            address[step.tensor] = step.address
        elif type(step).__name__ == "Execute":
            for _, pieces in pieces_touched(plan.graph, plan.graph.operator(step.operator)):
                most = max(most, count_ranges(pieces, {p.tensor: address[p.tensor] for p in pieces}, size))
    return most


@pytest.mark.parametrize("tiling", ["stripes=8", "stripes=16"])
def test_no_operand_has_more_ranges(chain: Path, tiling: str) -> None:
    free = cosma.compile(chain, MACHINE, dtype="int8", tiling=tiling, effort=0.2)
    assert most_ranges(free) > 4
    for pieces in (1, 2, 4):
        plan = cosma.compile(chain, MACHINE.replace(pieces=pieces), dtype="int8", tiling=tiling, effort=0.2)
        assert most_ranges(plan) <= pieces
        assert cosma.replay(plan, cosma.load_onnx(chain).finest_graph.with_dtype("int8"), model=chain).valid
        # Maps of 16 KiB roll through 8 KiB, and less is moved than if both maps between went off-chip and came back.
        assert plan.peak_bytes <= 8192
        if pieces > 1:
            assert plan.traffic.noncompulsory < 2 * 2 * 16384


def test_the_judge_counts_ranges(chain: Path) -> None:
    """The plan that nobody bound is refused by a machine that takes two ranges."""
    free = cosma.compile(chain, MACHINE, dtype="int8", tiling="stripes=8", effort=0.2)
    found = cosma.replay(replace(free, accelerator=MACHINE.replace(pieces=2)))
    assert {str(violation.verdict) for violation in found.violations} == {"pieces-exceeded"}


def test_stripes_off_the_alignment_are_refused(chain: Path) -> None:
    """A stripe of 7 rows and 64 columns of 4 channels ends at no multiple of 512: nothing can follow it there."""
    coarse = MACHINE.replace(pieces=2, alignment=512, scratchpad="16KiB")
    with pytest.raises(cosma.InfeasibleError, match="address ranges"):
        cosma.compile(chain, coarse, dtype="int8", tiling="stripes=8", effort=0.1)


def test_automatic_tilings_keep_to_it(chain: Path) -> None:
    plan = cosma.compile(chain, MACHINE.replace(pieces=2), dtype="int8", tiling="auto", effort=0.3)
    assert most_ranges(plan) <= 2


def stripe(name: str, start: tuple[int, int], stop: tuple[int, int]) -> Piece:
    return Piece(name, Region("r", start, stop))


def test_lines_of_stripes() -> None:
    a, b, c = stripe("a", (0, 0), (4, 8)), stripe("b", (0, 8), (4, 10)), stripe("c", (0, 10), (4, 16))
    assert stripe_lines([c, a, b]) == [("a", "b", "c")]
    assert stripe_lines([c, a]) == [("a",), ("c",)]
    grid = [stripe(f"{i}{k}", (i, 2 * k), (i + 1, 2 * k + 2)) for i in range(2) for k in range(3)]
    assert stripe_lines(grid) == [("00", "01", "02"), ("10", "11", "12")]


def test_ranges_of_stripes() -> None:
    pieces = [stripe("a", (0, 0), (4, 8)), stripe("b", (0, 8), (4, 10)), stripe("c", (0, 10), (4, 16))]
    size = {"a": 32, "b": 8, "c": 24}
    assert count_ranges(pieces, {"a": 0, "b": 32, "c": 40}, size) == 1
    assert count_ranges(pieces, {"a": 0, "b": 32, "c": 64}, size) == 2
    assert count_ranges(pieces, {"b": 0, "c": 8, "a": 32}, size) == 2
    # Side by side in the wrong order is no range, nor is what lies off-chip between other rows.
    assert count_ranges(pieces, {"c": 0, "b": 24, "a": 32}, size) == 3
    assert count_ranges(pieces, {}, size) == 3
