"""A plan's results against the untouched model run as a whole: a wrong reading of the model shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from cosma import Accelerator, compile
from cosma.execute import RunReport, execute_plan, run_plan
from cosma.execute.compare import compare
from cosma.frontend import importer, views, walk
from tests.field.commands import cosma
from tests.onnx_files import save_network

DATA = Path(__file__).parent / "data"
SMALL = Accelerator(scratchpad="32KiB")

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[2,3,8,8] x) => (float[2,4,8,8] y, float[2,16] z)
<float[4,3,3,3] w, float[4] b>
{
    c = Conv <pads = [1,1,1,1]> (x, w, b)
    r = Relu (c)
    shape = Constant <value = int64[3] {2, 4, 64}> ()
    back = Constant <value = int64[4] {2, 4, 8, 8}> ()
    flat = Reshape (r, shape)
    soft = Softmax (flat)
    y = Reshape (soft, back)
    g = GlobalAveragePool (r)
    d = Dropout (g)
    t = Concat <axis = 1> (d, d, d, d)
    z = Flatten (t)
}
"""


def save(folder: Path, text: str | onnx.ModelProto, *, absent: bool = True) -> Path:
    """Write a model; its weights carry no content."""
    model = parser.parse_model(text) if isinstance(text, str) else text
    for value in model.graph.value_info:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        tensor = TensorProto(name=value.name, data_type=1, dims=dims)
        if absent:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="absent.weights")
        model.graph.initializer.append(tensor)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def executed(path: Path, **options: Any) -> RunReport:
    return run_plan(compile(path, SMALL, strategy="e1"), path, **options)


@pytest.mark.parametrize("kernels", [None, "onnxruntime", "reference"])
@pytest.mark.parametrize("absent", [True, False], ids=["in a file that is not there", "left out of the message"])
def test_the_whole_model_agrees(tmp_path: Path, kernels: str | None, absent: bool) -> None:
    report = executed(save(tmp_path, NETWORK, absent=absent), kernels=kernels)
    assert report.passed
    assert report.whole.verdict == "equal"
    assert report.whole.reader.startswith("onnx reference" if kernels == "reference" else "onnxruntime")
    assert report.whole.reason == ""
    assert [output.name for output in report.whole.outputs] == ["y", "z"]
    assert report.invented_weights == 2


# -- wrong readings ---------------------------------------------------------------------------------------


def _reads_another_opset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Softmax works on its last axis from opset 13 on and on all from the axis before."""
    right = importer._opsets
    monkeypatch.setattr(importer, "_opsets", lambda *given: {**right(*given), "": 12})


def _takes_softmax_for_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    right = views.is_view
    monkeypatch.setattr(walk, "is_view", lambda node, *rest: node.type == "Softmax" or right(node, *rest))


def _shifts_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape is right and the numbers are not."""
    right = importer.make_node

    def wrong(proto: onnx.NodeProto) -> Any:
        if proto.op_type != "Conv":
            return right(proto)
        changed = onnx.NodeProto()
        changed.CopyFrom(proto)
        changed.attribute[0].ints[:] = [2, 2, 0, 0]
        return right(changed)

    monkeypatch.setattr(importer, "make_node", wrong)


@pytest.mark.parametrize("sabotage", [_reads_another_opset, _shifts_the_padding])
def test_a_wrong_reading_is_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Node by node with and without a plan all is equal, for both follow the same wrong reading."""
    path, plan = save(tmp_path, NETWORK), tmp_path / "plan.json"
    sabotage(monkeypatch)
    assert cosma("compile", path, "--scratchpad", "32KiB", "-o", plan).code == 0
    report = executed(path)
    assert report.equal
    assert report.traffic_as_planned
    assert report.whole.verdict == "different"
    assert not report.passed
    done = cosma("run", plan, path)
    assert done.code == 4
    assert "DIFFERENT" in done.out
    assert done.err.startswith("error: ")
    assert "the whole model run by onnxruntime" in done.err
    record = json.loads(cosma("run", plan, path, "--json").out)
    assert record["whole"]["verdict"] == "different"
    assert record["whole"]["outputs"][0]["beyond"] > 0
    monkeypatch.undo()
    assert cosma("run", plan, path).code == 0


def test_an_operator_taken_for_a_view_is_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, NETWORK)
    _takes_softmax_for_a_view(monkeypatch)
    report = executed(path)
    assert report.broken_views == ("soft",)
    assert report.whole.verdict == "different"
    assert [output.is_equal for output in report.whole.outputs] == [False, True]


def test_the_first_tensor_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _reads_another_opset(monkeypatch)
    assert executed(save(tmp_path, NETWORK)).whole.first_difference == "soft"


def test_a_normalisation_in_training_mode_is_told_from_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At opset 9 five results mean training; a reading that drops the unread ones runs it as inference."""
    nodes = [
        helper.make_node("BatchNormalization", ["x", *"sbmv"], ["h", "m2", "v2", "sm", "sv"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    inputs = {"x": (4, 3, 5, 5), **dict.fromkeys("sbmv", (3,))}
    path = save_network(tmp_path / "net.onnx", nodes, inputs, (), {"y": (4, 3, 5, 5)}, opset=9, ir_version=4)
    right = importer.make_node

    def wrong(proto: onnx.NodeProto) -> Any:
        changed = onnx.NodeProto()
        changed.CopyFrom(proto)
        del changed.output[1:]
        return right(changed)

    given = {"x": np.random.default_rng(0).normal(3, 2, (4, 3, 5, 5)).astype(np.float32)}
    monkeypatch.setattr(importer, "make_node", wrong)
    report = executed(path, inputs=given)
    assert report.equal
    assert report.whole.verdict == "different"


# -- what is in the way -----------------------------------------------------------------------------------


def test_outputs_that_nothing_moves_are_compared_too(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2,3] x, float[4] spare) => (float[3,2] v, int64[2] s, float[2,3] y)
        {
            s = Shape (x)
            shape = Constant <value = int64[2] {3, 2}> ()
            v = Reshape (x, shape)
            y = Exp (x)
        }
        """,
    )
    report = executed(path)
    assert report.whole.verdict == "equal"
    assert [(output.name, output.elements) for output in report.whole.outputs] == [("v", 6), ("s", 2), ("y", 6)]


def test_where_onnx_runtime_cannot_the_report_says_so_and_the_reference_evaluator_reads() -> None:
    report = executed(DATA / "bfloat16_add.onnx")
    assert report.whole.verdict == "equal"
    assert report.whole.reader.startswith("onnx reference")
    assert "onnxruntime" in report.whole.reason
    assert "\n" not in report.whole.reason


def test_where_nobody_can_the_report_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cosma.execute import whole

    monkeypatch.setattr(whole, "REFERENCE_LIMIT", -1)
    plan = tmp_path / "plan.json"
    assert cosma("compile", DATA / "bfloat16_add.onnx", "--scratchpad", "4KiB", "-o", plan).code == 0
    record = json.loads(cosma("run", plan, DATA / "bfloat16_add.onnx", "--json").out)
    assert record["whole"]["verdict"] == "not compared"
    assert "onnxruntime" in record["whole"]["reason"]
    assert "would take too long" in record["whole"]["reason"]
    done = cosma("run", plan, DATA / "bfloat16_add.onnx")
    assert done.code == 0
    assert "not compared" in done.out


def test_without_memory_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cosma.execute import whole

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(whole._OnnxRuntime, "run", full)
    monkeypatch.setattr(whole._Reference, "run", full)
    report = executed(save(tmp_path, NETWORK))
    assert report.passed
    assert report.whole.verdict == "not compared"
    assert "not enough memory" in report.whole.reason


def test_it_can_be_left_out(tmp_path: Path) -> None:
    path, plan = save(tmp_path, NETWORK), tmp_path / "plan.json"
    assert cosma("compile", path, "--scratchpad", "32KiB", "-o", plan).code == 0
    record = json.loads(cosma("run", plan, path, "--no-whole", "--json").out)
    assert record["whole"] == {
        "verdict": "not compared", "reader": "", "reason": "it was not asked for", "outputs": [],
        "first_difference": None,
    }  # fmt: skip


# -- what rounding is -------------------------------------------------------------------------------------


def test_rounding_is_half_the_digits_of_the_largest_value() -> None:
    ours = np.array([1000.0, 1.0, 0.0], np.float32)
    assert compare("y", ours, ours + np.float32(0.3)).is_equal
    assert compare("y", ours, ours + np.float32(0.4)).beyond == 3
    assert not compare("y", ours, np.array([1000.0, 1.0, np.nan], np.float32)).is_equal
    assert compare("y", np.array([np.nan, np.inf]), np.array([np.nan, np.inf])).is_equal
    assert not compare("y", np.array([np.inf]), np.array([-np.inf])).is_equal
    assert not compare("y", np.zeros(3, np.float32), np.zeros((1, 3), np.float32)).is_equal
    assert not compare("y", np.zeros(3, np.float32), np.zeros(3, np.float64)).is_equal


def test_integers_are_equal_and_quantised_ones_within_one() -> None:
    far = np.array([2**62, 3], np.int64)
    assert compare("y", far, far.copy()).is_equal
    assert compare("y", far, far + 1).beyond == 2
    assert compare("y", np.array([3], np.int32), np.array([4], np.int32)).beyond == 1
    assert compare("y", np.array([255, 3], np.uint8), np.array([254, 4], np.uint8)).is_equal
    assert compare("y", np.array([3], np.uint8), np.array([5], np.uint8)).beyond == 1
    assert compare("y", np.array([True]), np.array([False])).beyond == 1


# -- where ONNX Runtime infers other shapes than its kernels have ----------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1,8,17,17] x) => (float[1,8,A,B] y)
        { p = MaxPool <kernel_shape = [3,3], strides = [3,3], pads = [1,1,1,1], ceil_mode = 1> (x)
          y = Relu (p) }
        """,
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1,4,10,10] x) => (float[1,4,7,7] y) <float[4] sc = {1.0, 1.0, 0.7, 0.7}>
        { u = Resize <mode = "nearest"> (x, "", sc)
          y = Neg (u) }
        """,
    ],
    ids=["pooling with ceil_mode", "resizing by a scale"],
)
def test_the_kernel_decides_not_what_the_runtime_infers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    report = executed(path)
    assert report.whole.verdict == "equal"
    assert report.taken_over == ()


def test_a_shape_that_lies_in_another_file_reaches_the_second_reader(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2,16] x) => (float[4,8] y) <int64[2] s = {4, 8}>
        { r = Relu (x)
          y = Reshape (r, s) }
        """)
    shape = model.graph.initializer[0]
    shape.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(shape), shape.name))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="net.data")
    assert (tmp_path / "net.data").is_file()
    report = executed(path)
    assert report.whole.verdict == "equal"
    assert report.whole.reader.startswith("onnxruntime")
    assert report.invented_weights == 0


# -- types that a runtime hands out otherwise -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        """
        <ir_version: 9, opset_import: ["" : 19]>
        net (float[3,5] x) => (float8e4m3fn[3,5] y) { y = Cast <to = 17> (x) }
        """,
        """
        <ir_version: 9, opset_import: ["" : 19]>
        net (float x, float z) => (float y) { y = Add (x, z) }
        """,
    ],
    ids=["8-bit floating-point numbers", "scalars"],
)
@pytest.mark.parametrize("given", [False, True])
def test_types_and_scalars_are_taken_for_what_they_are(tmp_path: Path, text: str, given: bool) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    inputs = None
    if given:
        shape = (3, 5) if "3,5" in text else ()
        inputs = {name: np.full(shape, 3, np.float32) for name in ("x", "z")[: 2 if not shape else 1]}
    report = executed(path, inputs=inputs)
    assert report.whole.verdict == "equal"
    assert report.whole.reader.startswith("onnxruntime")


def sparse_tensor(name: str, rows: bool) -> onnx.SparseTensorProto:
    """Three values of an [8, 8] matrix, by linear positions or by rows of indices."""
    positions = np.array([[0, 0], [1, 1], [7, 7]] if rows else [0, 9, 63], np.int64)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1, 2, 3], np.float32), name), numpy_helper.from_array(positions, "at"), [8, 8]
    )


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("written", ["initializer", "node"])
def test_sparse_constants_are_what_they_stand_for(tmp_path: Path, written: str, rows: bool) -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (float[4,8] x) => (float[4,8] y) { r = MatMul (x, w)
 y = Relu (r) }""")
    if written == "initializer":
        model.graph.sparse_initializer.append(sparse_tensor("w", rows))
    else:
        node = helper.make_node("Constant", [], ["w"], sparse_value=sparse_tensor("v", rows))
        model.graph.node.insert(0, node)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    dense = np.zeros((8, 8), np.float32)
    dense[[0, 1, 7], [0, 1, 7]] = 1, 2, 3
    plan = compile(path, Accelerator(scratchpad="4KiB"), strategy="e1")
    np.testing.assert_array_equal(np.asarray(execute_plan(plan, path, inputs={"x": x}).outputs["y"]), x @ dense)
    assert run_plan(plan, path).whole.verdict in ("equal", "not compared")


def test_a_sparse_constant_that_is_nearly_empty_and_huge_is_not_expanded(tmp_path: Path) -> None:
    from cosma.frontend.sparse import dense_tensor

    sparse = sparse_tensor("w", False)
    sparse.dims[:] = [2**20, 2**20]
    assert not dense_tensor(sparse).raw_data
    for wrong in (-1, 64):
        sparse = sparse_tensor("w", False)
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0, wrong, 2], np.int64), "at"))
        assert not dense_tensor(sparse).raw_data
