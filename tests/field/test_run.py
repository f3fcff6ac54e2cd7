"""What `cosma run` takes in its stride: shape-only nodes, unread operands, types that a runtime has no kernel for."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from cosma import Accelerator, InputError, PlanInvalidError, compile
from cosma.execute import RunReport, kernels, run_plan
from cosma.execute.kernels import KernelError
from tests.field.commands import cosma
from tests.onnx_files import save_network

DATA = Path(__file__).parent / "data"
SMALL = Accelerator(scratchpad="4KiB")


def save(folder: Path, text: str | onnx.ModelProto) -> Path:
    path = folder / "net.onnx"
    model = parser.parse_model(text) if isinstance(text, str) else text
    path.write_bytes(model.SerializeToString())
    return path


def executed(path: Path, accelerator: Accelerator = SMALL, **options: object) -> RunReport:
    report = run_plan(compile(path, accelerator, strategy="e1"), path, **options)  # type: ignore[arg-type]
    assert report.equal
    assert report.traffic_as_planned
    return report


@pytest.mark.parametrize(
    ("name", "operators", "compulsory"), [("shape_only_slice", 2, 160), ("shape_only_constant", 1, 256)]
)
@pytest.mark.parametrize("kernels", [None, "reference"])
def test_a_node_of_which_only_the_shape_is_used_computes_nothing(
    name: str, operators: int, compulsory: int, kernels: str | None
) -> None:
    path = DATA / f"{name}.onnx"
    plan = compile(path, SMALL, strategy="e1")
    assert (len(plan.graph.operators), plan.traffic.compulsory) == (operators, compulsory)
    assert executed(path, kernels=kernels).operators == operators


def test_bfloat16_runs_without_further_options(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert cosma("compile", DATA / "bfloat16_add.onnx", "--scratchpad", "4KiB", "-o", plan).code == 0
    done = cosma("run", plan, DATA / "bfloat16_add.onnx")
    assert done.code == 0, done.err
    assert "reference kernels" in done.out
    assert "Add" in done.out


def test_without_a_kernel_the_message_names_the_way_out(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert cosma("compile", DATA / "bfloat16_add.onnx", "--scratchpad", "4KiB", "-o", plan).code == 0
    done = cosma("run", plan, DATA / "bfloat16_add.onnx", "--kernels", "onnxruntime")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "(Add) of bfloat16[" in done.err
    assert "--kernels reference" in done.err
    assert "ONNXRuntimeError" not in done.err
    with pytest.raises(KernelError) as caught:
        executed(DATA / "bfloat16_add.onnx", kernels="onnxruntime")
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    "element",
    [
        TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.INT4, TensorProto.UINT4,
        TensorProto.FLOAT4E2M1,
    ],
)  # fmt: skip
@pytest.mark.parametrize("operands", ["resident", "streamable"])
def test_narrow_and_new_types_lie_in_the_scratchpad_as_they_are(tmp_path: Path, element: int, operands: str) -> None:
    """An odd number of elements, so that the last byte of packed ones is not full."""
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=element),
        helper.make_node("Transpose", ["narrow"], ["turned"], perm=[1, 0]),
        helper.make_node("Cast", ["turned"], ["y"], to=TensorProto.FLOAT),
    ]
    outputs = {"y": (TensorProto.FLOAT, (5, 3)), "narrow": (element, (3, 5))}
    path = save_network(tmp_path / "net.onnx", nodes, {"x": (3, 5)}, (), outputs, opset=23, ir_version=11)
    x = np.arange(-7, 8, dtype=np.float32).reshape(3, 5)
    report = executed(path, Accelerator(scratchpad="512", operands=operands), inputs={"x": x})
    assert next(check.size_bytes for check in report.outputs if check.name == "narrow") == {
        TensorProto.BFLOAT16: 30, TensorProto.INT4: 8, TensorProto.UINT4: 8, TensorProto.FLOAT4E2M1: 8,
    }.get(element, 15)  # fmt: skip


def test_packed_elements_are_those_of_onnx() -> None:
    from cosma.execute.elements import numpy_dtype, random_array, to_array, to_bytes

    for element in (
        TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2, TensorProto.FLOAT4E2M1,
        TensorProto.BFLOAT16, TensorProto.FLOAT8E8M0, TensorProto.COMPLEX64, TensorProto.BOOL, TensorProto.INT8,
    ):  # fmt: skip
        array = random_array("x", numpy_dtype(element, "x"), (3, 5), 0)
        data = to_bytes(array, element)
        assert data.tobytes() == numpy_helper.from_array(array).raw_data
        again = to_array(data, element, (3, 5), "x")
        assert again.dtype == array.dtype
        assert again.tobytes() == array.tobytes()
    assert to_array(to_bytes(np.array([-8, 7], ml_dtypes.int4), 22), 22, (2,), "x").astype(int).tolist() == [-8, 7]


def test_an_operand_whose_value_does_not_matter(tmp_path: Path) -> None:
    """The second operand of CastLike is computed by nobody, and the kernel has something of its type all the same."""
    path = save(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4,8] x, float16[3] like) => (float16[4,8] y)
        { h = Relu (like)
          y = CastLike (x, h) }
        """,
    )
    assert executed(path).operators == 1


def test_inputs_that_nothing_reads_may_be_given(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4,8] x, float[N,3] spare) => (float[4,8] y) { y = Relu (x) }
        """,
    )
    executed(path, inputs={"x": np.ones((4, 8), np.float32), "spare": np.ones((2, 3), np.float32)})
    executed(path)
    with pytest.raises(InputError, match="spare"):
        executed(path, inputs={"spare": np.ones((2, 3), np.int64)})
    with pytest.raises(InputError, match="x, spare"):
        executed(path, inputs={"other": np.ones(1, np.float32)})


def test_a_branch_inside_a_branch_that_was_put_in_place_of_its_if(tmp_path: Path) -> None:
    """The outer branch names a tensor as the graph around it does; the inner one still reads the outer branch's."""
    path = save(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x, bool[1] c) => (float[4] y)
        {
            yes = Constant <value = bool {1}> ()
            h = Relu (x)
            z = If (yes) <
                then_branch = a () => (float[4] s) {
                    h = Exp (x)
                    s = If (c) <
                        then_branch = b () => (float[4] t) { t = Add (h, h) },
                        else_branch = d () => (float[4] u) { u = Mul (h, h) }
                    >
                },
                else_branch = e () => (float[4] v) { v = Neg (x) }
            >
            y = Add (z, h)
        }
        """,
    )
    for condition in (False, True):
        executed(path, inputs={"x": np.arange(4, dtype=np.float32), "c": np.array([condition])})


def test_a_constant_that_only_a_sequence_makes_is_computed(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2,4] x) => (float[2,4] y)
        {
            w = Constant <value = float[2,2] {1.0, 2.0, 3.0, 4.0}> ()
            s = SplitToSequence <axis = 0> (w)
            t = ConcatFromSequence <axis = 1> (s)
            y = Mul (x, t)
        }
        """,
    )
    assert executed(path).invented_weights == 0


def test_a_kernel_that_yields_another_shape_is_told_from_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    write = kernels.write
    from cosma.execute import reference

    def shorter(node: object, name: str, target: np.ndarray, found: object) -> None:
        write(node, name, target, np.asarray(found)[:1])  # type: ignore[arg-type]

    monkeypatch.setattr(reference, "write", shorter)
    with pytest.raises(PlanInvalidError, match=r"yields .*\[1.* which the plan counts as"):
        executed(DATA / "bfloat16_add.onnx", kernels="reference")
