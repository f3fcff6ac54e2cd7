"""State: caches updated in place, and caches that grow where they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import cosma
from cosma.compiler import Limits, run_compile
from cosma.execute import run_plan
from cosma.graph import Operator, Tensor
from cosma.graph.in_place import may_overwrite
from cosma.plan import Execute
from cosma.plan.file import plan_from_json, plan_to_json
from tests.onnx_files import save_network
from tests.zero_copy.models import save

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def _model(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: Any = ()) -> Path:
    return save_network(path, nodes, inputs, constants, outputs, opset=24, ir_version=11)


def two_caches(folder: Path) -> Path:
    """A decoder step: two caches of 64 rows, one row of each replaced, read by an Attention."""
    nodes = [
        helper.make_node("TensorScatter", ["pk", "k", "wi"], ["nk"], axis=2),
        helper.make_node("TensorScatter", ["pv", "v", "wi"], ["nv"], axis=2),
        helper.make_node("Attention", ["q", "nk", "nv"], ["o"]),
        helper.make_node("Relu", ["o"], ["y"]),
    ]
    row, cache = (FLOAT, [1, 2, 1, 16]), (FLOAT, [1, 2, 64, 16])
    inputs = {"q": row, "k": row, "v": row, "pk": cache, "pv": cache, "wi": (INT, [1])}
    return _model(folder / "caches.onnx", nodes, inputs, {"y": row, "nk": cache, "nv": cache})


def test_two_caches_hold_in_their_own_bytes(tmp_path: Path) -> None:
    model = two_caches(tmp_path)
    graph = cosma.load_onnx(model).graph
    with pytest.raises(cosma.InfeasibleError, match="needs 16640 bytes"):
        cosma.compile(model, cosma.Accelerator(scratchpad=16639, operands="resident"), effort=0.1)
    plan = cosma.compile(model, cosma.Accelerator(scratchpad=16640, operands="resident"), effort=0.1)
    assert plan.traffic.noncompulsory == 0
    assert plan.peak_bytes == 16640
    assert {i.in_place_of for i in plan.instructions if hasattr(i, "in_place_of")} >= {"pk", "pv"}
    assert cosma.replay(plan, graph, model=model).valid
    report = run_plan(plan, model)
    assert report.passed
    assert report.whole.verdict == "equal"
    assert report.highest_bytes == 16640


def test_without_in_place_they_are_spilled(tmp_path: Path) -> None:
    accelerator = cosma.Accelerator(scratchpad="24KiB", operands="resident", in_place=False)
    plan = cosma.compile(two_caches(tmp_path), accelerator, effort=0.1)
    assert plan.traffic.noncompulsory == 8192
    assert plan.certificate.status == "optimal"


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_scattered_rows(tmp_path: Path, reduction: str) -> None:
    """Rows and elements replaced or combined, written over what they replace."""
    nodes = [
        helper.make_node("ScatterND", ["x", "i", "u"], ["a"], reduction=reduction),
        helper.make_node("ScatterElements", ["a", "j", "w"], ["y"], axis=1, reduction=reduction),
    ]
    rows = numpy_helper.from_array(np.array([[1], [3]], np.int64), "i")
    columns = numpy_helper.from_array(np.array([[5, 0], [2, 7], [1, 1]][:3], np.int64)[:, :1], "j")
    inputs = {"x": (FLOAT, [4, 64]), "u": (FLOAT, [2, 64]), "w": (FLOAT, [3, 1])}
    model = _model(tmp_path / "rows.onnx", nodes, inputs, {"y": (FLOAT, [4, 64])}, [rows, columns])
    plan = cosma.compile(model, cosma.Accelerator(scratchpad=1536, operands="resident"), effort=0.1)
    assert plan.traffic.noncompulsory == 0
    assert cosma.replay(plan, cosma.load_onnx(model).graph, model=model).valid
    assert run_plan(plan, model).passed


def test_an_update_read_twice_is_not_in_place(tmp_path: Path) -> None:
    """The data of an update is a constant, or is the update too: nothing is written over it."""
    indices = numpy_helper.from_array(np.array([[3, 2, 1, 0]], np.int64), "i")
    table = numpy_helper.from_array(np.zeros((1, 4), np.float32), "t")
    shape = (FLOAT, [1, 4])
    for data in ("x", "t"):
        nodes = [
            helper.make_node("Relu", ["p"], ["x"]),
            helper.make_node("ScatterElements", [data, "i", "x"], ["y"], axis=1),
        ]
        model = _model(tmp_path / f"{data}.onnx", nodes, {"p": shape}, {"y": shape}, [indices, table])
        graph = cosma.load_onnx(model).graph
        (operator,) = (o for o in graph.operators if o.type == "ScatterElements")
        assert operator.parts[0].attribute("reads_twice") == 1
        assert not any(may_overwrite(operator, graph.tensors["y"], graph.tensors[n]) for n in operator.inputs)


def test_only_the_data_is_written_over() -> None:
    operator = Operator("s", "ScatterND", ("data", "updates"), ("r",), ("indices",))
    whole = {"dtype": "float32", "shape": (4, 4)}
    result, data = Tensor("r", 64, **whole), Tensor("data", 64, "input", **whole)
    assert may_overwrite(operator, result, data)
    assert not may_overwrite(operator, result, Tensor("updates", 64, "input", **whole))
    assert not may_overwrite(operator, result, Tensor("data", 64, "input", dtype="int32", shape=(4, 4)))
    assert not may_overwrite(operator, result, Tensor("data", 128, "input", dtype="float32", shape=(8, 4)))


# -- caches that grow -----------------------------------------------------------------------------------------------


def growing(folder: Path) -> Path:
    """The past and a new row side by side, read as one, and handed on."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["new"]),
        helper.make_node("Concat", ["past", "new"], ["present"], axis=0),
        helper.make_node("Softmax", ["present"], ["y"], axis=0),
    ]
    return save(
        folder, "growing", nodes, {"x": [1, 64], "past": [15, 64]}, {"present": [16, 64], "y": [16, 64]}
    )


@pytest.mark.parametrize("pieces", [None, 1])
def test_a_cache_that_grows_stores_what_is_new(tmp_path: Path, pieces: int | None) -> None:
    model = growing(tmp_path)
    graph = cosma.load_onnx(model).graph
    accelerator = cosma.Accelerator(scratchpad=8192, zero_copy=True, pieces=pieces, operands="resident")
    copying = cosma.compile(model, accelerator, effort=0.1)
    assert not copying.graph.joins
    plan = cosma.compile(model, accelerator, effort=0.1, states={"present": "past"})
    assert plan.graph.roots["present"].state == "past"
    assert copying.traffic.total - plan.traffic.total == 15 * 256
    stored = {i.tensor for i in plan.instructions if i.do == "store"}
    assert stored == {"new", "y"}
    again = plan_from_json(plan_to_json(plan))
    assert again.graph.roots["present"].state == "past"
    assert cosma.replay(again, graph, model=model).valid
    assert run_plan(again, model).passed


def test_an_unknown_operator_beside_a_state_is_a_violation(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["past"], ["present"])]
    model = _model(tmp_path / "step.onnx", nodes, {"past": (FLOAT, [4, 64])}, {"present": (FLOAT, [4, 64])})
    plan = cosma.compile(model, cosma.Accelerator(scratchpad=512), effort=0.1, states={"present": "past"})
    (execute,) = plan.instructions
    assert isinstance(execute, Execute)
    assert execute.streamed == ("past", "present")
    wrong = replace(plan, instructions=(replace(execute, operator="nobody"),))
    assert "unknown-name" in {v.verdict.value for v in cosma.replay(wrong).violations}


def test_what_a_state_needs_is_checked(tmp_path: Path) -> None:
    model = growing(tmp_path)
    accelerator = cosma.Accelerator(scratchpad=8192, zero_copy=True)

    def plan(states: dict[str, str]) -> cosma.Plan:
        return run_compile(model, accelerator, limits=Limits(effort=0.1), states=states).plan

    with pytest.raises(cosma.InputError, match="'new' is no graph output; the outputs are 'present', 'y'"):
        plan({"new": "past"})
    with pytest.raises(cosma.InputError, match="'new' is no graph input; the inputs are 'x', 'past'"):
        plan({"present": "new"})
    with pytest.raises(cosma.InputError, match="two next values"):
        plan({"present": "past", "y": "past"})
    record = json.loads(plan_to_json(plan({"present": "past"})))
    root = next(r for r in record["roots"] if r["name"] == "present")
    for change in ({"state": None}, {"state": "x"}, {"state": "gone"}):
        changed = json.loads(json.dumps(record))
        next(r for r in changed["roots"] if r["name"] == "present").update(change)
        report = cosma.replay(plan_from_json(json.dumps(changed)), cosma.load_onnx(model).graph, model=model)
        assert {"join-wrong", "part-size"} & {str(v.verdict) for v in report.violations}
    assert root["state"] == "past"


def test_a_window_that_moves_is_copied(tmp_path: Path) -> None:
    """What was the second row is now the first: that is another place."""
    nodes = [
        helper.make_node("Tanh", ["x"], ["new"]),
        helper.make_node("Slice", ["past", "s", "e", "a"], ["kept"]),
        helper.make_node("Concat", ["kept", "new"], ["present"], axis=0),
        helper.make_node("Softmax", ["present"], ["y"], axis=0),
    ]
    model = save(
        tmp_path, "window", nodes, {"x": [1, 64], "past": [16, 64]}, {"present": [16, 64], "y": [16, 64]},
        {"s": [1], "e": [16], "a": [0]},
    )  # fmt: skip
    plan = cosma.compile(
        model, cosma.Accelerator(scratchpad=16384, zero_copy=True), effort=0.1, states={"present": "past"}
    )
    assert "present" not in plan.graph.joins
    assert cosma.replay(plan, cosma.load_onnx(model).graph, model=model).valid
    assert run_plan(plan, model).passed


def test_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cosma.cli.app import app
    from cosma.plan.file import load_plan

    model, output = growing(tmp_path), tmp_path / "plan.json"
    command = ["compile", str(model), "--scratchpad", "8KiB", "--effort", "0.1", "-o", str(output)]
    switches = ["--zero-copy", "--pieces", "1", "--state", "present=past"]
    assert CliRunner().invoke(app, [*command, *switches]).exit_code == 0
    plan = load_plan(output)
    assert (plan.accelerator.zero_copy, plan.accelerator.pieces) == (True, 1)
    assert plan.graph.roots["present"].state == "past"
    for wrong, why in (
        (["--state", "present"], "write OUTPUT=INPUT"),
        (["--state", "present=past", "--state", "present=x"], "given twice"),
        (["--pieces", "0"], "pieces must be at least 1"),
    ):
        done = CliRunner().invoke(app, [*command, *wrong])
        assert done.exit_code != 0
        assert isinstance(done.exception, SystemExit) or why in str(done.exception)


@pytest.mark.parametrize(("scratchpad", "operands"), [(16640, "resident"), (1024, "streamable"), (10240, "stationary")])
def test_states_that_are_updated_lie_off_chip_where_their_next_values_do(
    tmp_path: Path, scratchpad: int, operands: str
) -> None:
    model = two_caches(tmp_path)
    states = {"nk": "pk", "nv": "pv"}
    accelerator = cosma.Accelerator(scratchpad=scratchpad, operands=operands)
    plan = cosma.compile(model, accelerator, effort=0.1, states=states, off_chip=True)
    assert cosma.replay(plan, model=model).valid
    assert {t.name: t.state for t in plan.graph.tensors.values() if t.state} == states
    assert plan.off_chip is not None
    outputs = plan.off_chip.areas["outputs"]
    assert {outputs.offsets[after] - outputs.offsets[before] for after, before in states.items()} == {0}
    assert not states.keys() & plan.off_chip.areas["inputs"].offsets.keys()
    assert outputs.size_bytes == 2 * 8192 + 128
    assert plan_to_json(plan_from_json(plan_to_json(plan))) == plan_to_json(plan)
    assert run_plan(plan, model).passed

    record = json.loads(plan_to_json(plan))

    def verdicts(changed: dict[str, Any]) -> set[str]:
        report = cosma.replay(plan_from_json(json.dumps(record | changed)), model=model)
        return {str(violation.verdict) for violation in report.violations}

    moved = json.loads(json.dumps(record["off_chip"]))
    moved["areas"]["outputs"]["offsets"]["pk"] = outputs.offsets["nv"]
    assert verdicts({"off_chip": moved}) == {"off-chip-absent"}
    other = [t | ({"state": "k"} if t["name"] == "nk" else {}) for t in record["tensors"]]
    assert "off-chip-absent" in verdicts({"tensors": other})
    for wrong, name in (("y", "nk"), ("pv", "nk"), ("pk", "y")):
        other = [t | ({"state": wrong} if t["name"] == name else {}) for t in record["tensors"]]
        assert "state-wrong" in verdicts({"tensors": other})


def test_a_state_that_is_read_too_late_has_a_place_of_its_own(tmp_path: Path) -> None:
    """A copy is streamed from one place to another, which cannot be the same; nor may a reader come later."""
    nodes = [
        helper.make_node("Relu", ["n"], ["new"]),
        helper.make_node("Concat", ["past", "new"], ["present"], axis=1),
        helper.make_node("Abs", ["past"], ["y"]),
    ]
    model = save(tmp_path, "late", nodes, {"past": [2, 64], "n": [2, 1]}, {"present": [2, 65], "y": [2, 64]})
    states = {"present": "past"}
    with pytest.warns(cosma.CosmaWarning, match="because 'past' is read there once 'present' is written"):
        plan = cosma.compile(model, cosma.Accelerator(scratchpad=64), effort=0.1, states=states, off_chip=True)
    assert cosma.replay(plan, model=model).valid
    assert plan.off_chip is not None
    assert set(plan.off_chip.areas["inputs"].offsets) == {"past", "n"}
    record = json.loads(plan_to_json(plan))
    record |= {"version": 2, "tensors": [t | ({"state": "past"} if t["name"] == "present" else {})
                                         for t in record["tensors"]]}  # fmt: skip
    report = cosma.replay(plan_from_json(json.dumps(record)), model=model)
    assert "state-wrong" in {str(violation.verdict) for violation in report.violations}


def test_a_join_that_begins_with_something_else_is_no_next_value(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["n"], ["new"]),
        helper.make_node("Concat", ["new", "past"], ["present"], axis=0),
    ]
    model = save(tmp_path, "other", nodes, {"past": [2, 64], "n": [2, 64]}, {"present": [4, 64]})
    with pytest.warns(cosma.CosmaWarning, match="does not begin with .past.|is read there once"):
        cosma.compile(
            model, cosma.Accelerator(scratchpad=1024, zero_copy=True), effort=0.1, states={"present": "past"}
        )
