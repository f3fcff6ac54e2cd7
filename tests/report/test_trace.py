"""The cost model by hand on a tiny plan, its invariants on larger ones, and the trace file."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from cosma import Accelerator, Graph, InputError, Operator, Tensor, TensorKind, compile, save_plan
from cosma.plan.costs import estimate, read_times
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
    if not overlap:
        assert found.total_s == pytest.approx(found.compute_s + found.dma_s)
    assert min(size for _, size in found.occupancy) >= 0
    assert max(size for _, size in found.occupancy) <= plan.accelerator.capacity_bytes
    done = {event.name: event.end_s for event in found.events if event.kind == "execute"}
    begun = {event.name: event.start_s for event in found.events if event.kind == "execute"}
    for operator in plan.graph.operators:
        for before in plan.graph.predecessors(operator.name):
            assert done[before] <= begun[operator.name] + 1e-15


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
          model=None, overlap=None, costs=None)  # fmt: skip
    said = capsys.readouterr()
    assert "an estimate, not a measurement" in said.out
    assert "estimated from their bytes" in said.err
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
