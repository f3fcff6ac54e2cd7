"""The cost model by hand on a tiny plan, its invariants on larger ones, and the trace file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cosma import Accelerator, Constraints, Graph, InputError, Operator, Tensor, TensorKind, compile, save_plan
from cosma.graph import Region
from cosma.plan.costs import estimate, read_times
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.tiles import fused_groups, tile_shares
from cosma.report.operators import operator_costs, operators_csv, summary_csv
from cosma.report.trace import trace_json

FIGURES = {
    "bandwidth_bytes_per_s": 1e6,
    "dma_latency_s": 1e-3,
    "clock_hz": 1e6,
    "macs_per_cycle": 1.0,
    "energy_pj_per_byte": 100.0,
    "energy_pj_per_mac": 2.0,
}


def pair() -> Graph:
    return Graph(
        [
            Tensor("x", 1000, TensorKind.INPUT),
            Tensor("w", 4000, TensorKind.WEIGHT),
            Tensor("a", 2000),
            Tensor("y", 500, TensorKind.OUTPUT),
        ],
        [
            Operator("first", "Conv", ("x",), ("a",), ("w",), macs=6000),
            Operator("second", "Conv", ("a",), ("y",), macs=3000),
        ],
        "pair",
    )


def test_by_hand_one_after_the_other() -> None:
    plan = compile(pair(), Accelerator(scratchpad="8KiB", operands="resident", overlap=False, **FIGURES), strategy="e1")
    found = estimate(plan)
    # load x: 1 + 1 ms; stream w: 1 + 4; first: 6; second: 3; store y: 1 + 0.5
    assert found.total_s == pytest.approx(0.002 + 0.005 + 0.006 + 0.003 + 0.0015)
    assert found.dma_s == pytest.approx(0.0085)
    assert found.compute_s == pytest.approx(0.009)
    assert found.energy_j == pytest.approx(1e-12 * (5500 * 100 + 9000 * 2))
    assert not found.guessed


def test_what_is_overwritten_is_off_chip_first() -> None:
    """With overlap: an operator in place waits until the operand that it overwrites has been stored."""
    graph = Graph(
        [Tensor("x", 1000, "input"), Tensor("u", 1000, "output"), Tensor("v", 1000, "output")],
        [Operator("A", "Relu", ("x",), ("u",), macs=10), Operator("B", "Sigmoid", ("u",), ("v",), macs=10)],
    )
    figures = {"bandwidth_bytes_per_s": 1000.0, "clock_hz": 1.0, "macs_per_cycle": 10.0, "overlap": True}
    plan = compile(graph, Accelerator(scratchpad=2048, alignment=8, **figures), effort=0.1)
    steps: tuple[Instruction, ...] = (
        Load("x", 0), Allocate("u", 1000), Execute("A"), Free("x"), Store("u"), Allocate("v", 1000, "u"), Execute("B"),
        Store("v"), Free("v"),
    )  # fmt: skip
    found = {(e.kind, e.name): (e.start_s, e.end_s) for e in estimate(replace(plan, instructions=steps)).events}
    assert found["execute", "A"] == (1.0, 2.0)
    assert found["store", "u"] == (2.0, 3.0)
    assert found["execute", "B"] == (3.0, 4.0)
    assert found["store", "v"] == (4.0, 5.0)


def test_space_is_that_of_the_plan_whatever_accelerator_gives_the_figures() -> None:
    workspaces = Constraints(workspaces=[("first", 1000)])
    accelerator = Accelerator(scratchpad="16KiB", operands="resident", constraints=workspaces, **FIGURES)
    plan = compile(pair(), accelerator, strategy="e1")
    other = Accelerator(scratchpad="8KiB", alignment=1, **FIGURES)
    assert estimate(plan, other).occupancy == estimate(plan).occupancy
    assert max(taken for _, taken in estimate(plan).occupancy) >= 1024 + 2048 + 1024


def test_by_hand_overlapping() -> None:
    plan = compile(pair(), Accelerator(scratchpad="8KiB", operands="resident", **FIGURES), strategy="e1")
    found = estimate(plan)
    # The weight passes while the first operator runs: max(6, 5) ms after the load.
    assert found.total_s == pytest.approx(0.002 + 0.006 + 0.003 + 0.0015)
    slower = estimate(plan, times_s={"first": 0.0045, "second": 0.0})
    assert slower.total_s == pytest.approx(0.002 + 0.005 + 0.0 + 0.0015)
    assert estimate(plan, macs={"second": 10_000}).total_s == pytest.approx(0.002 + 0.006 + 0.010 + 0.0015)


def chain(count: int = 20) -> Graph:
    tensors = [Tensor("x", 4096, TensorKind.INPUT), Tensor("y", 4096, TensorKind.OUTPUT)]
    tensors += [Tensor(f"t{i}", 4096) for i in range(count)]
    names = ["x", *(f"t{i}" for i in range(count))]
    operators = [Operator(f"o{i}", "Conv", (a,), (b,)) for i, (a, b) in enumerate(pairwise(names))]
    operators.append(Operator("end", "Concat", (names[-1], *names[1:9]), ("y",)))
    return Graph(tensors, operators, "chain")


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("mode", [{"operands": "resident", "scratchpad": "44KiB"}, {"scratchpad": "15KiB"}])
def test_invariants(overlap: bool, mode: dict[str, str]) -> None:
    plan = compile(chain(), Accelerator(overlap=overlap, **mode, **FIGURES), strategy="e2")
    found = estimate(plan)
    assert len(found.guessed) == 21
    for engine in ("dma", "compute"):
        row = [event for event in found.events if event.engine == engine]
        assert all(a.end_s <= b.start_s + 1e-15 for a, b in pairwise(row))
    assert sum(event.size_bytes for event in found.events) == plan.traffic.total
    assert max(found.compute_s, found.dma_s) <= found.total_s + 1e-12
    assert found.total_s <= found.compute_s + found.dma_s + 1e-12
    assert found.arithmetic_s + found.streaming_s + found.waiting_s == pytest.approx(found.total_s)
    costs = operator_costs(plan, found)
    assert [cost.operator for cost in costs] == list(plan.schedule)
    for kind in ("arithmetic_s", "streaming_s"):
        assert sum(getattr(cost, kind) for cost in costs) == pytest.approx(getattr(found, kind))
    assert sum(c.off_chip_read_bytes + c.off_chip_written_bytes for c in costs) == plan.traffic.total
    assert max(cost.scratchpad_bytes for cost in costs) == plan.peak_bytes
    if not overlap:
        assert found.total_s == pytest.approx(found.compute_s + found.dma_s)
    assert min(size for _, size in found.occupancy) >= 0
    assert max(size for _, size in found.occupancy) <= plan.accelerator.capacity_bytes
    done = {event.name: event.end_s for event in found.events if event.kind == "execute"}
    begun = {event.name: event.start_s for event in found.events if event.kind == "execute"}
    for operator in plan.graph.operators:
        for before in plan.graph.predecessors(operator.name):
            assert done[before] <= begun[operator.name] + 1e-15


def test_rounding_holds_no_operator_up() -> None:
    """Where nothing is streamed, none of the time is, however long the sums."""
    chain = [Tensor("x", 999, "input"), *(Tensor(f"t{i}", 999) for i in range(99)), Tensor("y", 999, "output")]
    graph = Graph(chain, [Operator(f"o{b.name}", "Conv", (a.name,), (b.name,), macs=997) for a, b in pairwise(chain)])
    plan = compile(graph, Accelerator(scratchpad="8KiB", operands="resident", **FIGURES), strategy="e1")
    found = estimate(plan)
    assert found.streaming_s == 0
    assert not any(cost.streaming_s for cost in operator_costs(plan, found))


def test_time_is_told_apart() -> None:
    plan = compile(pair(), Accelerator(scratchpad="8KiB", operands="resident", **FIGURES), strategy="e1")
    found = estimate(plan, times_s={"first": 0.002, "second": 0.003})
    # 2 ms load; the first holds the engine for the 5 ms of its weight and computes for 2; 1.5 ms store at the end
    assert (found.arithmetic_s, found.streaming_s) == (pytest.approx(0.005), pytest.approx(0.003))
    assert found.waiting_s == pytest.approx(0.0035)
    first, second = operator_costs(plan, found)
    assert (first.bound_by, second.bound_by) == ("streaming", "arithmetic")
    assert (first.off_chip_read_bytes, first.off_chip_written_bytes) == (5000, 0)
    assert (second.off_chip_read_bytes, second.off_chip_written_bytes) == (0, 500)
    assert (second.scratchpad_read_bytes, second.scratchpad_written_bytes) == (2000, 500)


def test_tables_for_spreadsheets() -> None:
    plan = compile(pair(), Accelerator(scratchpad="8KiB", name="mine", operands="resident", **FIGURES), strategy="e1")
    found = estimate(plan)
    rows = list(csv.DictReader(io.StringIO(operators_csv(plan, found, plan.accelerator))))
    assert [row["macs"] for row in rows] == ["6000", "3000"]
    assert [int(row["cycles"]) for row in rows] == [2000 + 6000, 3000]
    assert [row["utilisation"] for row in rows] == ["0.75", "1"]
    (total,) = csv.DictReader(io.StringIO(summary_csv(plan, found, plan.accelerator)))
    assert total["accelerator"] == "mine"
    assert int(total["traffic_bytes"]) == plan.traffic.total
    assert (total["macs"], total["cycles"]) == ("9000", "12500")


@pytest.mark.parametrize(
    "graph", [lambda: pair(), lambda: chain(), lambda: tiled()], ids=["pair", "chain", "tiles"]
)
@pytest.mark.parametrize("mode", [{"scratchpad": "44KiB", "operands": "resident"}, {}, {"overlap": True}])
def test_rows_of_operators_sum_to_the_plan(graph: Callable[[], Graph], mode: dict[str, Any]) -> None:
    plan = compile(graph(), Accelerator(**({"scratchpad": "15KiB", "alignment": 1} | FIGURES | mode)), strategy="e1")
    found = estimate(plan)
    rows = list(csv.DictReader(io.StringIO(operators_csv(plan, found, plan.accelerator))))
    (total,) = csv.DictReader(io.StringIO(summary_csv(plan, found, plan.accelerator)))

    def summed(*columns: str) -> float:
        return sum(float(row[column] or 0) for row in rows for column in columns)

    assert summed("off_chip_read_bytes", "off_chip_written_bytes") == plan.traffic.total == int(total["traffic_bytes"])
    assert summed("noncompulsory_bytes") == plan.traffic.noncompulsory == int(total["noncompulsory_bytes"])
    assert summed("macs") == int(total["macs"])
    # What is stored behind the last operator belongs to none.
    stored_s = found.total_s - max(event.end_s for event in found.events if event.kind == "execute")
    assert summed("seconds") == pytest.approx(float(total["seconds"]) - stored_s)


def tiled() -> Graph:
    """Two convolutions over rows, each in two tiles that take turns, and an operator behind them."""
    def part(root: str, first: int, last: int) -> Tensor:
        box = Region(root, (0, first), (4, last))
        return Tensor(f"{root}{first}", 4 * (last - first), shape=box.shape, region=box)

    whole = [Tensor(name, 24, shape=(4, 6)) for name in ("a", "b")]
    tensors = [Tensor("x", 24, TensorKind.INPUT), Tensor("y", 24, TensorKind.OUTPUT)]
    tensors += [part(root, *rows) for root in ("a", "b") for rows in ((0, 2), (2, 6))]
    operators = []
    for first, last in ((0, 2), (2, 6)):
        for name, operand, root in (("one", "x", "a"), ("two", f"a{first}", "b")):
            box = Region(name, (0, first), (4, last))
            operators.append(Operator(f"{name}{first}", "Conv", (operand,), (f"{root}{first}",), tile=box))
    operators.append(Operator("end", "Concat", ("b0", "b2"), ("y",)))
    return Graph(tensors, operators, "tiled", roots=whole)


def test_tiles_are_told_by_their_operators() -> None:
    graph = tiled()
    shares = tile_shares(graph)
    assert [shares[name] for name in ("one0", "one2", "end")] == [Fraction(1, 3), Fraction(2, 3), 1]
    (group,) = fused_groups(graph, ("one0", "two0", "one2", "two2", "end"))
    assert (group.start, group.end, group.operators, group.tiles) == (0, 4, ("one", "two"), 4)
    assert not fused_groups(graph, ("one0", "one2", "two0", "two2", "end"))
    plan = compile(graph, Accelerator(scratchpad=64, alignment=1, **FIGURES), strategy="e1")
    found = estimate(plan)
    events = json.loads(trace_json(plan, found))["traceEvents"]
    tiles = [event for event in events if event.get("cat") == "execute" and "tile" in event["args"]]
    assert {event["name"] for event in tiles} == {"Conv one", "Conv two"}
    assert [event["args"]["tile"] for event in tiles if event["args"]["of"] == "one"] == [
        [[0, 4], [0, 2]], [[0, 4], [2, 6]],
    ]  # fmt: skip
    groups = [event["name"] for event in events if event.get("cat") == "group"]
    assert groups == ["one .. two (2 operators, 4 tiles)"]
    assert [cost.of for cost in operator_costs(plan, found)] == ["one", "two", "one", "two", "end"]


def test_trace_is_what_viewers_read() -> None:
    plan = compile(chain(), Accelerator(scratchpad="15KiB", **FIGURES), strategy="e2")
    found = estimate(plan)
    trace = json.loads(trace_json(plan, found))
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(found.events)
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in slices)
    assert {event["tid"] for event in slices} == {1, 2}
    assert trace["otherData"]["what"].startswith("estimate")


def test_times_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("operator,microseconds\nfirst,250\n\nsecond,1.5\n")
    assert read_times(path) == pytest.approx({"first": 0.00025, "second": 1.5e-6})
    for text, match in (
        ("name,time\n", "first line"),
        ("operator,seconds\na,b\n", "line 2"),
        ("operator,seconds\na,-1\n", "at least 0"),
        ("operator,seconds\na,1\na,2\n", "twice"),
        ("operator,seconds\na,1,2\n", "line 2"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            read_times(path)


def test_missing_figures_are_named() -> None:
    plan = compile(pair(), Accelerator(scratchpad="8KiB"), strategy="e1")
    with pytest.raises(InputError, match="bandwidth"):
        estimate(plan)
    with pytest.raises(InputError, match="macs_per_cycle"):
        estimate(plan, plan.accelerator.replace(bandwidth_bytes_per_s=1e9))
    known = plan.accelerator.replace(bandwidth_bytes_per_s=1e9)
    assert estimate(plan, known, times_s={"first": 1.0, "second": 1.0}).energy_j is None
    with pytest.raises(InputError, match="'third'"):
        estimate(plan, known, times_s={"third": 1.0})


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.trace import trace

    save_plan(compile(pair(), Accelerator(scratchpad="8KiB"), strategy="e1"), tmp_path / "p.json")
    trace(tmp_path / "p.json", tmp_path / "t.json", bandwidth="1MB/s", latency=None, clock=1e6, macs_per_cycle=1.0,
          model=None, overlap=None, times=None)  # fmt: skip
    said = capsys.readouterr()
    assert "an estimate, not a measurement" in said.out
    assert "estimated from bytes" in said.err
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    chosen = {"bandwidth": None, "latency": None, "clock": None, "macs_per_cycle": None, "model": None,
              "overlap": None, "times": None}  # fmt: skip
    trace(tmp_path / "p.json", None, accelerator="ethos-u65-mid", operators=tmp_path / "o.csv",
          summary=tmp_path / "s.csv", **chosen)  # fmt: skip
    assert "arithmetic" in capsys.readouterr().out
    assert (tmp_path / "o.csv").read_text().count("\n") == 3
    assert "ethos-u65-mid" in (tmp_path / "s.csv").read_text().splitlines()[1]
    with pytest.raises(InputError, match=r"the integrator chooses the clock.*--bandwidth and --clock$"):
        trace(tmp_path / "p.json", None, accelerator="nvdla-full", **chosen)
    with pytest.raises(InputError, match="which a plan file does not hold"):
        trace(tmp_path / "p.json", None, accelerator=None, **chosen)
