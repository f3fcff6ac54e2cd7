"""Curves fall, bounds stay below, knees are corners."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

import cosma.studies.point_planner as planner_module
from cosma import Accelerator, Graph, InputError, Operator, Tensor, TensorKind, compile, save_graph
from cosma.compiler import CompileResult
from cosma.studies.curve import make_curve
from cosma.studies.curve_views import curve_csv, curve_text, render_curve
from cosma.studies.points import CurvePoint, corners, mark_knees, monotone, suffices
from cosma.units import format_size
from tests.onnx_files import save_network

KIB = 1024


def comb(teeth: int = 6) -> Graph:
    """Results that are read again on the way back, in reverse: the more capacity, the more of them stay."""
    tensors = [Tensor("x", KIB, TensorKind.INPUT), Tensor("y", KIB, TensorKind.OUTPUT)]
    operators = []
    last = "x"
    for i in range(teeth):
        tensors += [Tensor(f"keep{i}", (i + 1) * KIB), Tensor(f"go{i}", 3 * KIB), Tensor(f"back{i}", KIB)]
        operators += [
            Operator(f"split{i}", "Conv", (last,), (f"keep{i}",)),
            Operator(f"go{i}", "Conv", (f"keep{i}",), (f"go{i}",)),
        ]
        last = f"go{i}"
    for i in reversed(range(teeth)):
        operators.append(Operator(f"back{i}", "Concat", (last, f"keep{i}"), (f"back{i}",)))
        last = f"back{i}"
    operators.append(Operator("end", "Conv", (last,), ("y",)))
    return Graph(tensors, operators, "comb")


@pytest.mark.parametrize("mode", [{}, {"operands": "resident", "reserved": 256}])
def test_curve(mode: dict[str, object]) -> None:
    curve = make_curve(comb(), Accelerator(scratchpad="1GiB", **mode), points=12, strategy="existing", effort=0.2)
    points = curve.points
    assert 3 <= len(points) <= 12
    assert curve.compulsory_bytes == 2 * KIB
    for a, b in pairwise(points):
        assert a.capacity_bytes < b.capacity_bytes
        assert a.noncompulsory_bytes >= b.noncompulsory_bytes
        assert a.bound_bytes >= b.bound_bytes
    assert all(p.bound_bytes <= p.noncompulsory_bytes for p in points)
    assert points[-1].noncompulsory_bytes == 0
    if mode:
        assert points[0].capacity_bytes == curve.smallest_bytes
    again = Accelerator(scratchpad="2MiB", **mode)
    assert curve == make_curve(comb(), again, points=12, strategy="existing", effort=0.2)
    rows = list(csv.DictReader(io.StringIO(curve_csv(curve))))
    assert [int(row["capacity"]) for row in rows] == [p.capacity_bytes for p in points]
    assert sum(row["knee"] == "yes" for row in rows) == sum(p.knee for p in points) >= 1
    assert curve_text(curve).count("\n") == len(points)


def test_points_go_on_from_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each compile starts from the best plan for less and the next one for more; it never moves more than the first."""
    measured: dict[int, int] = {}
    started = 0
    compile_ = planner_module.run_compile

    def watched(graph: Graph, accelerator: Accelerator, **options: Any) -> CompileResult:
        nonlocal started
        capacity = accelerator.scratchpad
        starts = [plan.accelerator.scratchpad for plan in options["starts"]]
        smaller = [c for c in measured if c < capacity]
        larger = [c for c in measured if c > capacity]
        assert len(starts) == bool(smaller) + bool(larger)
        if smaller:
            assert measured[starts[0]] == min(measured[c] for c in smaller)
        if larger:
            assert starts[-1] == min(larger)
        result = compile_(graph, accelerator, **options)
        started += bool(starts)
        measured[capacity] = result.plan.traffic.noncompulsory
        assert all(measured[capacity] <= measured[c] for c in smaller)
        return result

    monkeypatch.setattr(planner_module, "run_compile", watched)
    make_curve(comb(4), Accelerator(scratchpad="1GiB", operands="resident"), points=8, effort=0.1)
    assert len(measured) >= 4
    assert started == len(measured) - 1


def test_fixed_methods_make_curves_without_starts() -> None:
    curve = make_curve(comb(3), Accelerator(scratchpad="1GiB"), points=4, strategy="e1", effort=0.1)
    assert len(curve.points) >= 2


@pytest.mark.parametrize("strategy", ["e1", "auto"])
def test_bounds_hold_for_plans_that_do_not_copy(tmp_path: Path, strategy: str) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "w"], ["y"], kernel_shape=[1, 1]),
    ]
    model = save_network(tmp_path / "join.onnx", nodes, {"x": (1, 4, 8, 8)}, {"w": (4, 8, 1, 1)})
    accelerator = Accelerator(scratchpad="1MiB", alignment=16, zero_copy=True)
    curve = make_curve(model, accelerator, strategy=strategy, effort=0.05, points=3, lowest=2048, highest=4096)
    least = [compile(model, accelerator.replace(scratchpad=p.capacity_bytes), effort=0.05) for p in curve.points]
    moved = [plan.traffic.noncompulsory for plan in least]
    assert all(point.bound_bytes <= here for point, here in zip(curve.points, moved, strict=True))
    if strategy == "e1":  # which copies: its own certificates would exceed the best plans
        assert any(point.noncompulsory_bytes > here for point, here in zip(curve.points, moved, strict=True))


def test_steps_begin_at_what_plans_take() -> None:
    """The plan of a point fits from ``suffices_bytes`` on, so the curve falls there and a knee is named by it."""
    accelerator = Accelerator(scratchpad="1GiB", operands="resident", reserved=256)
    curve = make_curve(comb(4), accelerator, points=6, strategy="existing", effort=0.1)
    begins = corners(curve.points)
    assert begins == sorted(set(begins))
    for point, begin in zip(curve.points, begins, strict=True):
        assert suffices(point) <= begin <= point.capacity_bytes
        found = compile(comb(4), accelerator.replace(scratchpad=suffices(point)), effort=0.5)
        assert point.bound_bytes <= found.traffic.noncompulsory <= point.noncompulsory_bytes
    assert any(suffices(point) < point.capacity_bytes for point in curve.points)
    assert all(f"knee from {format_size(suffices(p))}" in curve_text(curve) for p in curve.points if p.knee)
    # A plan for more holds where it fits, however little was found there.
    far = [CurvePoint(10, 9, 0), CurvePoint(20, 8, 0), CurvePoint(40, 2, 1, suffices_bytes=15)]
    assert [(p.noncompulsory_bytes, suffices(p), p.bound_bytes) for p in monotone(far)] == [(9, 10, 1), (2, 15, 1),
                                                                                            (2, 15, 1)]  # fmt: skip


def test_knees_are_corners() -> None:
    def marked(*values: tuple[int, int]) -> list[int]:
        return [p.capacity_bytes for p in mark_knees([CurvePoint(c, t, 0) for c, t in values]) if p.knee]

    assert marked((1, 100), (2, 20), (3, 10), (4, 0)) == [2, 4]
    assert marked((1, 30), (2, 20), (3, 10), (4, 0)) == [4]
    assert marked((1, 5), (2, 5), (3, 5)) == []
    assert marked((1, 100), (2, 30), (5, 30), (6, 0), (9, 0)) == [2, 6]
    assert mark_knees([]) == ()


def test_figures() -> None:
    pytest.importorskip("matplotlib")
    curve = make_curve(comb(3), Accelerator(scratchpad="1GiB"), points=5, effort=0.2)
    assert render_curve(curve, "png", dpi=50).startswith(b"\x89PNG")
    assert render_curve(curve, "svg") == render_curve(curve, "svg")


def test_wrong_ranges() -> None:
    with pytest.raises(InputError, match="empty"):
        make_curve(comb(2), Accelerator(scratchpad="1GiB"), lowest=10 * KIB, highest=KIB)
    with pytest.raises(InputError, match="at least 2"):
        make_curve(comb(2), Accelerator(scratchpad="1GiB"), points=1)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.curve import curve

    save_graph(comb(3), tmp_path / "comb.json")
    curve(tmp_path / "comb.json", strategy="e2", effort=0.1, points=5, lowest=None, highest="40KiB",
          output=tmp_path / "c.csv", figure=None)  # fmt: skip
    assert "knee" in capsys.readouterr().out
    assert (tmp_path / "c.csv").read_text().startswith("capacity,noncompulsory,lower_bound")
