"""Modes of operators as the table gives them, with workspaces worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import parser

import cosma
from cosma import Accelerator, Execute, Mode, compile, replay
from cosma.access.modes import modes_of
from cosma.execute import run_plan
from cosma.frontend import load_onnx
from cosma.frontend.loaded import LoadedModel
from cosma.validator.modes import check_modes


def load(folder: Path, body: str, inputs: str, outputs: str, weights: str = "") -> LoadedModel:
    """A model of a few operators in ONNX's text form."""
    head = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
    text = f"{head}\nnet ({inputs}) => ({outputs}) <{weights}> {{{body}}}"
    path = folder / "net.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    return load_onnx(path)


def modes(loaded: LoadedModel, *, keep_weights: bool = True, dtype: str | None = None) -> dict[str, Mode]:
    graph = loaded.graph if dtype is None else loaded.graph.with_dtype(dtype)
    (operator,) = graph.operators
    return {mode.name: mode for mode in modes_of(graph, loaded.sites, operator, keep_weights)}


def weights(name: str, *shape: int) -> str:
    count = 1
    for size in shape:
        count *= size
    dims = ",".join(map(str, shape))
    return f"float[{dims}] {name} = {{{','.join(['0.5'] * count)}}}"


def test_elementwise_operators_stream_what_has_the_full_shape(tmp_path: Path) -> None:
    found = modes(load(tmp_path, "y = Add (a, b)", "float[2,8] a, float[2,8] b", "float[2,8] y"))
    assert found == {"lockstep": Mode("lockstep", ("a", "b", "y"))}
    found = modes(load(tmp_path, "y = Add (a, b)", "float[2,8] a, float[8] b", "float[2,8] y"))
    assert found == {"lockstep": Mode("lockstep", ("a", "y"))}


@pytest.mark.parametrize(("stride", "dilation", "rows"), [(1, 1, 3), (2, 1, 3), (1, 2, 5)])
def test_convolutions_keep_one_of_three(tmp_path: Path, stride: int, dilation: int, rows: int) -> None:
    reach = 2 * dilation + 1
    out = (16 + 2 * dilation - reach) // stride + 1
    loaded = load(
        tmp_path,
        f"y = Conv <pads = [{','.join([str(dilation)] * 4)}], strides = [{stride},{stride}],"
        f" dilations = [{dilation},{dilation}]> (x, w, c)",
        "float[1,3,16,16] x", f"float[1,4,{out},{out}] y", f"{weights('w', 4, 3, 3, 3)}, {weights('c', 4)}",
    )  # fmt: skip
    window = rows * 16 * 3
    found = modes(loaded)
    assert found["input-stationary"] == Mode("input-stationary", ("w", "y"))
    assert found["weight-stationary"] == Mode("weight-stationary", ("x", "y"), window * 4)
    assert found["output-stationary"] == Mode("output-stationary", ("x", "w"), window * 4)
    # Counted at one byte an element, sums need four.
    narrow = modes(loaded, dtype="int8")
    assert narrow["output-stationary"].workspace_bytes == window + 4 * 4 * out * out
    # Weights that pass by cannot be what stays.
    passing = modes(loaded, keep_weights=False)
    assert set(passing) == {"input-stationary", "output-stationary"}
    assert passing["input-stationary"].may_stream == ("y",)
    assert passing["output-stationary"].may_stream == ("x",)


def test_windows_of_transposed_convolutions_repeat_with_the_stride(tmp_path: Path) -> None:
    body = "y = ConvTranspose <kernel_shape = [20,1], strides = [16,1]> (x, w)"
    loaded = load(tmp_path, body, "float[1,2,5,8] x", "float[1,2,84,8] y", weights("w", 2, 2, 20, 1))
    # Rows 32 to 35 are summed up over rows 1 and 2, each of two channels of eight elements.
    assert modes(loaded)["weight-stationary"] == Mode("weight-stationary", ("x", "y"), 2 * 2 * 8 * 4)
    less = replace(loaded.graph.operators[0], modes=(Mode("weight-stationary", ("x", "y"), 2 * 8 * 4),))
    kept = Accelerator(scratchpad=4096, operands="stationary", weights="scratchpad")
    (wrong,) = check_modes(loaded.graph.replace(operators=[less]), kept)
    assert wrong.message.endswith("it needs 128 bytes of workspace and has 64")


def test_a_product_of_a_tensor_with_itself_does_not_pass_in_two_orders(tmp_path: Path) -> None:
    loaded = load(tmp_path, "y = MatMul (x, x)", "float[8,8] x", "float[8,8] y")
    assert all("x" not in mode.may_stream for mode in modes(loaded).values())
    claimed = replace(loaded.graph.operators[0], modes=(Mode("output-stationary", ("x",), 4096),))
    kept = Accelerator(scratchpad=4096, operands="stationary", weights="scratchpad")
    (wrong,) = check_modes(loaded.graph.replace(operators=[claimed]), kept)
    assert "is more than one factor" in wrong.message


def test_depthwise_convolutions_are_windows(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, "y = Conv <group = 4, pads = [1,1,1,1]> (x, w)", "float[1,4,16,16] x", "float[1,4,16,16] y",
        weights("w", 4, 1, 3, 3),
    )  # fmt: skip
    found = modes(loaded)
    assert found == {
        "rows": Mode("rows", ("x", "y"), 4 * 3 * 16 * 4),
        "rows-out": Mode("rows-out", ("y",)),
    }


def test_pooling_and_resize_hold_the_rows_of_a_window(tmp_path: Path) -> None:
    pool = load(
        tmp_path, "y = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (x)", "float[1,4,16,16] x",
        "float[1,4,8,8] y",
    )  # fmt: skip
    assert modes(pool)["rows"] == Mode("rows", ("x", "y"), 4 * 3 * 16 * 4)


def test_row_wise_operators_hold_one_row_of_inner_axes(tmp_path: Path) -> None:
    soft = load(tmp_path, "y = Softmax <axis = -1> (x)", "float[2,8,32] x", "float[2,8,32] y")
    assert modes(soft)["rows"] == Mode("rows", ("x", "y"), 32 * 4)
    outer = load(tmp_path, "y = Softmax <axis = 1> (x)", "float[2,8,32] x", "float[2,8,32] y")
    assert set(modes(outer)) == {"resident"}  # a row of inner axes is none of its rows
    single = load(tmp_path, "y = Softmax <axis = 0> (x)", "float[1,8,32] x", "float[1,8,32] y")
    assert modes(single)["rows"] == Mode("rows", ("x", "y"), 32 * 4)  # elements by themselves, in rows all the same
    mean = load(tmp_path, "y = ReduceMean <axes = [2,3]> (x)", "float[2,8,4,4] x", "float[2,8,1,1] y")
    assert modes(mean)["rows"] == Mode("rows", ("x", "y"), 16 * 4)


def test_products_of_two_activations(tmp_path: Path) -> None:
    found = modes(load(tmp_path, "y = MatMul (a, b)", "float[4,8] a, float[8,16] b", "float[4,16] y"))
    assert found == {
        "input-stationary": Mode("input-stationary", ("b", "y")),
        "weight-stationary": Mode("weight-stationary", ("a", "y")),
        "output-stationary": Mode("output-stationary", ("a", "b")),
    }
    # The same tensor twice: it is whole in the scratchpad, or both factors pass by at once.
    found = modes(load(tmp_path, "y = MatMul (a, a)", "float[8,8] a", "float[8,8] y"))
    assert found["input-stationary"].may_stream == ("y",)


def test_moves_take_no_room(tmp_path: Path) -> None:
    found = modes(load(tmp_path, "y = Transpose <perm = [1,0]> (x)", "float[4,8] x", "float[8,4] y"))
    assert found == {"movement": Mode("movement", ("x", "y"))}
    found = modes(load(tmp_path, "y = Concat <axis = 0> (a, b)", "float[4,8] a, float[2,8] b", "float[6,8] y"))
    assert found == {"movement": Mode("movement", ("a", "b", "y"))}
    # Which rows a Gather takes it must know beforehand.
    found = modes(load(tmp_path, "y = Gather (x, i)", "float[4,8] x, int64[2] i", "float[2,8] y"))
    assert found == {"movement": Mode("movement", ("x", "y"))}


def test_other_operators_stay_resident(tmp_path: Path) -> None:
    loaded = load(tmp_path, "y, i = TopK (x, k)", "float[4,8] x", "float[4,2] y, int64[4,2] i", "int64[1] k = {2}")
    assert set(modes(loaded)) == {"resident"}


def test_what_is_fused_behind_runs_in_lockstep_with_the_result(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, "c = Conv (x, w)  s = Add (c, r)  y = Relu (s)", "float[1,3,8,8] x, float[1,4,8,8] r",
        "float[1,4,8,8] y", weights("w", 4, 3, 1, 1),
    )  # fmt: skip
    plan = compile(
        loaded, Accelerator(scratchpad="1KiB", operands="stationary", weights="scratchpad", fusion="epilogue"),
        strategy="e2", dtype="int8",
    )  # fmt: skip
    assert replay(plan).valid
    (operator,) = [o for o in plan.graph.operators if "Conv" in o.type]
    assert len(plan.graph.operators) > 1 or "r" in operator.modes[0].may_stream


def test_a_plan_with_workspaces_runs_with_real_kernels(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "a = Conv <pads = [1,1,1,1]> (x, w)  b = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)"
        "  c = Softmax <axis = -1> (b)  y = Add (c, a)",
        "float[1,3,16,16] x", "float[1,4,16,16] y", weights("w", 4, 3, 3, 3),
    )  # fmt: skip
    accelerator = Accelerator(scratchpad="3KiB", operands="stationary", weights="scratchpad", in_place=False)
    plan = compile(loaded, accelerator, effort=0.5)
    assert any(i.workspace is not None for i in plan.instructions if isinstance(i, Execute))
    report = run_plan(plan, tmp_path / "net.onnx")
    assert report.passed
    assert report.highest_bytes == 0 or report.highest_bytes <= accelerator.scratchpad
    path = tmp_path / "plan.json"
    cosma.save_plan(plan, path)
    assert cosma.load_plan(path).graph.operator(plan.graph.operators[0].name).modes
