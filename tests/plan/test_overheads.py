"""What a plan costs beside its traffic: transfers, tiles, code, ranges of operands."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

import cosma
from cosma import Accelerator, Graph, Operator, Tensor, TensorKind
from cosma.graph import Region
from cosma.plan.costs import estimate
from cosma.plan.file import plan_to_json
from cosma.plan.overheads import (
    count_ranges,
    operand_ranges,
    overhead_rows,
    overheads_of,
    padding_bytes,
    transfer_sizes,
)

MACHINE = Accelerator(scratchpad=1024, operands="resident", weights="scratchpad", min_transfer=100)


def stripes() -> Graph:
    """Two stripes of x into two of a, whose second reads a halo; both read one weight."""
    def part(root: str, start: int, stop: int, kind: TensorKind = TensorKind.INTERMEDIATE) -> Tensor:
        return Tensor(f"{root}{start}", (stop - start) * 16, kind, shape=(stop - start, 16), dtype="int8",
                      region=Region(root, (start, 0), (stop, 16)))  # fmt: skip

    x = [part("x", a, b, TensorKind.INPUT) for a, b in ((0, 3), (3, 5), (5, 8))]
    y = [part("y", a, b, TensorKind.OUTPUT) for a, b in ((0, 4), (4, 8))]
    weight = Tensor("w", 256, TensorKind.WEIGHT)
    operators = [
        Operator("c0", "Conv", ("x0", "x3"), ("y0",), ("w",), tile=Region("c", (0, 0), (4, 16))),
        Operator("c4", "Conv", ("x3", "x5"), ("y4",), ("w",), tile=Region("c", (4, 0), (8, 16))),
    ]
    roots = [
        Tensor("x", 128, TensorKind.INPUT, shape=(8, 16), dtype="int8"),
        Tensor("y", 128, TensorKind.OUTPUT, shape=(8, 16), dtype="int8"),
    ]
    return Graph([*x, *y, weight], operators, "stripes", roots)


@pytest.fixture(scope="module")
def plan() -> cosma.Plan:
    return cosma.compile(stripes(), MACHINE, strategy="existing")


def test_counts(plan: cosma.Plan) -> None:
    found = overheads_of(plan)
    assert sorted(transfer_sizes(plan)) == [32, 48, 48, 64, 64, 256]
    assert (found.transfers, found.smallest_bytes, found.median_bytes) == (6, 32, 48)
    assert (found.short_transfers, found.padding_bytes) == (5, 68 + 52 + 52 + 36 + 36)
    assert (found.operators, found.tiles, found.most_tiles, found.most_cut) == (1, 2, 2, "c")
    assert found.again_share == 0
    assert found.code_bytes == 32 * len(plan.instructions)
    assert sum(transfer_sizes(plan)) == plan.traffic.total


def test_streamed_tensors_are_transfers_too() -> None:
    graph = Graph(
        [Tensor("x", 64, TensorKind.INPUT), Tensor("w", 32, TensorKind.WEIGHT), Tensor("y", 64, TensorKind.OUTPUT)],
        [Operator("f", "Conv", ("x",), ("y",), ("w",))],
    )
    plan = cosma.compile(graph, Accelerator(scratchpad=64), strategy="existing")
    assert sorted(transfer_sizes(plan)) == [32, 64, 64]


def test_ranges_of_operands(plan: cosma.Plan) -> None:
    ranges = {(operator, root): count for operator, root, count in operand_ranges(plan)}
    assert set(ranges) == {(o, r) for o in ("c0", "c4") for r in ("x", "y", "w")}
    assert ranges["c0", "w"] == ranges["c0", "y"] == 1
    # 48 bytes end before the next multiple of 64: the parts of x are two ranges wherever they lie.
    assert ranges["c0", "x"] == ranges["c4", "x"] == 2
    assert overheads_of(plan).operands_of_ranges == {1: 4, 2: 2}


def test_neighbours_make_one_range() -> None:
    assert count_ranges([(0, 64), (64, 10)]) == 1
    assert count_ranges([(64, 10), (0, 64), (128, 8)]) == 2
    assert count_ranges([(5, 5)]) == 1


def test_what_two_tiles_compute_is_counted() -> None:
    def tile(start: int, stop: int) -> Operator:
        return Operator(f"c{start}", "Conv", ("x",), (f"y{start}",), tile=Region("c", (start,), (stop,)))

    tensors = [Tensor("x", 8, TensorKind.INPUT), *(Tensor(f"y{i}", 4, TensorKind.OUTPUT) for i in (0, 3))]
    plan = cosma.compile(Graph(tensors, [tile(0, 4), tile(3, 8)]), Accelerator(scratchpad=256), strategy="existing")
    assert overheads_of(plan).again_share == pytest.approx(1 / 8)


def test_shown_beside_the_traffic(plan: cosma.Plan) -> None:
    from cosma.report.facts import summary_rows
    from cosma.report.operators import summary_csv

    rows = {label: (value, remark) for label, value, remark in overhead_rows(overheads_of(plan), MACHINE)}
    assert rows["transfers"][0] == "6"
    assert "5 below min_transfer" in rows["transfers"][1]
    assert rows["tiles"] == ("2", "1 operators, at most 2 of one (c); none computed twice")
    assert set(rows) <= {label for label, _, _ in summary_rows(plan)}
    timed = MACHINE.replace(bandwidth_bytes_per_s=1e9, clock_hz=1e9, macs_per_cycle=1)
    found = estimate(plan, timed)
    (row,) = csv.DictReader(io.StringIO(summary_csv(plan, found, timed)))
    assert (row["transfers"], row["tiles"], row["operators"], row["code_bytes"]) == (
        "6", "2", "1", str(32 * len(plan.instructions)),
    )  # fmt: skip


def test_short_transfers_take_as_long_as_min_transfer(plan: cosma.Plan) -> None:
    timed = MACHINE.replace(bandwidth_bytes_per_s=1.0, clock_hz=1e9, macs_per_cycle=1e9, min_transfer=0)
    plain, padded = estimate(plan, timed), estimate(plan, timed.replace(min_transfer=100))
    assert padded.dma_s - plain.dma_s == pytest.approx(overheads_of(plan).padding_bytes)


def test_padding_is_what_short_transfers_lack(plan: cosma.Plan) -> None:
    for least, lacking in ((0, 0), (64, 32 + 16 + 16), (32, 0)):
        assert padding_bytes(plan.graph, MACHINE.replace(min_transfer=least), plan.instructions) == lacking


def test_a_run_counts_the_padding_of_its_best_plan() -> None:
    from cosma.compiler.limits import Limits
    from cosma.compiler.run import CompileRun
    from cosma.heuristics import run_method
    from cosma.heuristics.existing import Method
    from cosma.problem import build_problem

    def run(least: int) -> CompileRun:
        problem = build_problem(stripes(), MACHINE.replace(min_transfer=least))
        state = CompileRun(problem=problem, limits=Limits(effort=0.1))
        state.offer(run_method(problem, Method("given", "belady", "best-fit")), "first")
        return state

    assert run(0).best_padding == 0
    assert run(100).best_padding == 68 + 52 + 52 + 36 + 36


def test_files_keep_what_a_transfer_should_move(plan: cosma.Plan, tmp_path: Path) -> None:
    cosma.save_plan(plan, tmp_path / "plan.json")
    assert cosma.load_plan(tmp_path / "plan.json").accelerator == MACHINE
    assert "min_transfer" not in plan_to_json(replace(plan, accelerator=MACHINE.replace(min_transfer=0)))
