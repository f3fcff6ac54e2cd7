"""Mutated ONNX models: each is planned with a valid plan, or refused."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from cosma import load_onnx, replay
from cosma.accelerator import Accelerator
from cosma.compiler import run_compile
from cosma.errors import InfeasibleError, ModelLoadError
from cosma.plan.file import plan_from_json, plan_to_json
from tests.fuzz.runner import WrongError

HEAD = '<ir_version: 9, opset_import: ["" : 18, "com.microsoft" : 1]>\n'
TEXTS = (
    "g (float[1,3,8,8] x) => (y) <float[4,3,3,3] w = {0}> { c = Conv<pads=[1,1,1,1]>(x, w) y = Relu(c) }",
    "g (float[N,8] x) => (y) <float[8,8] w> { a = MatMul(x, w) b = Softmax(a) y = Add(a, b) }",
    "g (float[2,S,16] x) => (y) { a = Shape(x) b = Gather(a, i) c = Unsqueeze(b, z) d = Concat<axis=0>(c, m)"
    " y = Reshape(x, d) }",
    "g (float[1,4,9,9] x) => (y) { a = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)"
    " y = AveragePool<kernel_shape=[2,2], pads=[1,1,0,0]>(a) }",
    "g (float[4,6] x, bool c) => (y) { y = If(c) <then_branch = t () => (a) { a = Relu(x) },"
    " else_branch = e () => (b) { b = Neg(x) }> }",
    "g (float[4,8] x) => (o, s) { k = Constant<value_int=5>() c = Constant<value = bool {1}>() o, s = Loop(k, c, x)"
    " <body = l (int64 i, bool ci, float[4,8] v) => (bool co, float[4,8] vo, float[4,8] so)"
    " { co = Identity(ci) vo = Add(v, v) so = Relu(v) }> }",
    "g (float[1,8,4,4] x) => (y) { y = Resize<mode=\"nearest\">(x, , s) }",
    "g (float[5,6] x) => (a, b, c) { a, b = Split<axis=1, num_outputs=2>(x) v, i = TopK(x, k) c = Slice(v, n, q) }",
    "g (float[3,4] x) => (y) { s = SequenceConstruct(x, x) e = SequenceAt(s, i) y = ConcatFromSequence<axis=0>(s) }",
    "g (int64[2,3] x) => (y) <float[10,4] w> { a = Gather(w, x) b = Transpose<perm=[0,2,1]>(a) y = ReduceSum(b) }",
    "g (float[1,4,8] x) => (y) <float[1,16,8] w, float[1,16,4] r> { a, y = LSTM<hidden_size=4>(x, w, r) }",
    "g (float[4,8] x) => (y) { a, m, v = LayerNormalization(x, s) y = Einsum<equation=\"ij,kj->ik\">(a, x) }",
    "g (float[1,2,4,4] x) => (y) <float q = {0.5}, int8 z = {0}> { a = QuantizeLinear(x, q, z)"
    " b = DequantizeLinear(a, q, z) c = Sigmoid(b) y = QuantizeLinear(c, q, z) }",
    "g (float[2,4] x) => (y) { a = com.microsoft.Gelu(x) b = Pad(a, p) y = Expand(b, e) }",
)
CONSTANTS = {
    "i": (TensorProto.INT64, [], [1]), "z": (TensorProto.INT64, [1], [0]), "m": (TensorProto.INT64, [1], [-1]),
    "k": (TensorProto.INT64, [1], [3]), "s": (TensorProto.FLOAT, [4], [1, 1, 1.5, 2]),
    "p": (TensorProto.INT64, [4], [0, 1, 0, 1]), "q": (TensorProto.INT64, [2], [2, 2]),
    "e": (TensorProto.INT64, [2], [2, 6]), "n": (TensorProto.INT64, [2], [0, 0]),
}  # fmt: skip
FUNCTION = """
<ir_version: 9, opset_import: ["" : 18, "lib" : 1]>
g (float[2,4] x) => (y) { a = lib.f(x) y = lib.f(a) }
<domain: "lib", opset_import: ["" : 18]> f (u) => (v) { t = Relu(u) v = Add(t, u) }
"""
SIZES = (-(2**63), -1, 0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**40, 2**53, 2**62, 2**63 - 1)
SYMBOLS = (
    "", "N", "?", "N/2", "N-", "batch-size", "floor(N/2)", "((((N", "N*N*N*N*N", "N**99999", "1/0", "9" * 50,
    "N" * 5000, "\x1b[31m", "a b", "None", "-1", "max(N, 2)", "N//0", "(" * 3000,
)  # fmt: skip
NAMES = ("", "x", "y", "a", "\x1b]0;t\x07", "n\nm", "\u202e", "../x", "=1+1", "a" * 3000, "\u00e9")
OPERATORS = (
    "Conv", "Relu", "Add", "Reshape", "Loop", "If", "Scan", "Gather", "Slice", "Concat", "Split", "ConstantOfShape",
    "Range", "Expand", "Tile", "Shape", "Size", "NonZero", "TopK", "LSTM", "BatchNormalization", "Dropout", "Resize",
    "Upsample", "Pad", "MaxPool", "MaxUnpool", "OneHot", "Identity", "Cast", "SequenceAt", "SplitToSequence",
    "Optional", "NonMaxSuppression", "Attention", "QLinearConv", "EyeLike", "Unique", "Compress", "Einsum", "STFT",
    "Nonsense",
)  # fmt: skip


@cache
def bases() -> tuple[bytes, ...]:
    """Small models as they should be."""
    found = []
    for text in TEXTS:
        model = onnx.parser.parse_model(HEAD + text)
        used = {name for node in model.graph.node for name in node.input}
        there = {tensor.name for tensor in model.graph.initializer}
        made = {name for node in model.graph.node for name in node.output}
        for name, (kind, shape, values) in CONSTANTS.items():
            if name in used - there - made:
                model.graph.initializer.append(helper.make_tensor(name, kind, shape, values))
        for value in model.graph.value_info:
            if value.name in used - there - made:
                shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
                zeros = np.zeros(shape, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
                model.graph.initializer.append(numpy_helper.from_array(zeros, value.name))
        found.append(model.SerializeToString())
    found.append(onnx.parser.parse_model(FUNCTION).SerializeToString())
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = [*folder.glob("pytorch-operator/*/model.onnx"), *folder.glob("simple/*/model.onnx")]
    found += [path.read_bytes() for path in sorted(paths) if path.stat().st_size < 6000]
    _compile_once(found[0])
    return tuple(found)


def _compile_once(content: bytes) -> None:
    """Load what a compile needs before workers are forked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        for strategy in ("e1", "e2", "e3"):
            run_compile(path, Accelerator(scratchpad=512), strategy=strategy)
        # What does not fit is told whether tiles would: kernels of the choice of tilings.
        with suppress(InfeasibleError):
            run_compile(path, Accelerator(scratchpad=64, operands="resident"), strategy="e1")


def case(seed: int) -> str:
    """Mutate one model, read it, and plan it where it can be read."""
    draw = random.Random(seed)
    content = make(draw)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        try:
            model = load_onnx(path)
        except ModelLoadError as error:
            symbols = getattr(error, "symbols", None)
            if not symbols:
                raise
            model = load_onnx(path, dims={symbol: draw.choice((0, 1, 2, 4, 2**31)) for symbol in symbols})
    if len(model.graph.operators) > 300:
        return "read, large"
    accelerator = Accelerator(
        scratchpad=draw.choice((64, 512, 4096, 2**20)),
        operands=draw.choice(("streamable", "resident")),
        weights=draw.choice(("stream", "scratchpad")),
        fusion=draw.choice(("none", "epilogue")),
    )
    try:
        plan = run_compile(model, accelerator, strategy=draw.choice(("e1", "e2", "e3"))).plan
    except InfeasibleError:
        return "infeasible"
    report = replay(plan_from_json(plan_to_json(plan)))
    if not report.valid:
        raise WrongError(f"its own plan is invalid: {report.violations[0]}")
    return "planned"


def make(draw: random.Random) -> bytes:
    """Make a mutated model."""
    content = draw.choice(bases()[: len(TEXTS) + 1] if draw.random() < 0.6 else bases())
    if draw.random() < 0.2:
        return _bytes(draw, content)
    model = ModelProto.FromString(content)
    try:
        for _ in range(draw.choice((1, 1, 2, 3))):
            draw.choice(MUTATIONS)(draw, model)
        content = model.SerializeToString()
    except (ValueError, TypeError, EncodeError, DecodeError, IndexError):
        return _bytes(draw, content)  # protobuf takes no such value
    return _bytes(draw, content) if draw.random() < 0.05 else content


def _bytes(draw: random.Random, content: bytes) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 8))):
        if not content:
            return content
        at = draw.randrange(len(content))
        match draw.randrange(6):
            case 0:
                content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
            case 2:
                content = content[:at]
            case 3:
                content = content[:at] + content[at + draw.randrange(1, 9) :]
            case 4:
                content = content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:]
            case _:
                end = draw.randrange(len(content))
                content = content[: max(at, end)] + content[min(at, end) :]
    return content


def _graphs(model: ModelProto) -> list[GraphProto]:
    found = [model.graph]
    for graph in found:
        for node in graph.node:
            found += [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found


def _node(draw: random.Random, model: ModelProto) -> NodeProto:
    nodes = [node for graph in _graphs(model) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    return draw.choice(nodes)


def _types(model: ModelProto) -> list[TypeProto]:
    return [v.type for g in _graphs(model) for v in (*g.input, *g.output, *g.value_info)]


def _dims(draw: random.Random, model: ModelProto) -> None:
    kind = draw.choice(_types(model))
    shape = kind.tensor_type.shape
    match draw.randrange(6):
        case 0 | 1 if shape.dim:
            draw.choice(shape.dim).dim_value = draw.choice(SIZES)
        case 2 | 3 if shape.dim:
            draw.choice(shape.dim).dim_param = draw.choice(SYMBOLS)
        case 4:
            shape.dim.add().dim_value = draw.choice(SIZES)
        case _:
            kind.tensor_type.ClearField("shape") if draw.random() < 0.5 else kind.Clear()


def _elements(draw: random.Random, model: ModelProto) -> None:
    draw.choice(_types(model)).tensor_type.elem_type = draw.choice((*range(28), 99, -1))


def _wires(draw: random.Random, model: ModelProto) -> None:
    node = _node(draw, model)
    names = [n for g in _graphs(model) for o in g.node for n in (*o.input, *o.output)]
    ends = draw.choice((node.input, node.output))
    match draw.randrange(4):
        case 0 if ends:
            ends[draw.randrange(len(ends))] = draw.choice([*names, *NAMES])
        case 1:
            ends.append(draw.choice([*names, *NAMES]))
        case 2 if ends:
            del ends[draw.randrange(len(ends))]
        case _:
            node.name = draw.choice(NAMES)


def _attributes(draw: random.Random, model: ModelProto) -> None:
    node = _node(draw, model)
    if not node.attribute or draw.random() < 0.2:
        names = ("axis", "axes", "perm", "to", "pads", "strides", "dilations", "group", "value", "ceil_mode")
        name = draw.choice(names)
        node.attribute.append(helper.make_attribute(name, draw.choice(([draw.choice(SIZES)], draw.choice(SIZES), 1.5))))
        return
    attribute = draw.choice(node.attribute)
    match draw.randrange(7):
        case 0:
            attribute.i = draw.choice(SIZES)
        case 1:
            attribute.f = draw.choice((float("nan"), float("inf"), -1.0, 0.0, 1e38))
        case 2:
            attribute.type = draw.randrange(16)
        case 3:
            node.attribute.append(attribute)
        case 4:
            node.attribute.remove(attribute)
        case 5 if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(SIZES)
        case _:
            attribute.ints.extend(draw.choice(((), (1,), (0, 0), (2**62,) * 3)))
            attribute.s = draw.choice((b"", b"\xff\xfe", b"SAME_UPPER", b"nearest", b"ij->ji", b"a" * 9000))


def _operator(draw: random.Random, model: ModelProto) -> None:
    node = _node(draw, model)
    if draw.random() < 0.8:
        node.op_type = draw.choice(OPERATORS)
    else:
        node.domain = draw.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "lib", "x"))


def _opsets(draw: random.Random, model: ModelProto) -> None:
    match draw.randrange(4):
        case 0:
            draw.choice(model.opset_import).version = draw.choice((-1, 0, 1, 5, 7, 9, 11, 13, 17, 21, 23, 99, 2**40))
        case 1:
            model.opset_import.append(helper.make_opsetid(draw.choice(("", "lib", "x")), draw.choice((1, 13, 18))))
        case 2:
            del model.opset_import[:]
        case _:
            model.ir_version = draw.choice((-1, 0, 3, 99))


def _structure(draw: random.Random, model: ModelProto) -> None:
    graph = draw.choice(_graphs(model))
    rows = draw.choice((graph.node, graph.node, graph.input, graph.output, graph.initializer))
    if not rows:
        return
    match draw.randrange(5):
        case 0:
            rows.append(draw.choice(rows))
        case 1:
            del rows[draw.randrange(len(rows))]
        case 2:
            kept = list(rows)
            del rows[:]
            rows.extend(reversed(kept))
        case 3:
            node = _node(draw, model)
            inner = helper.make_attribute("body", graph)
            for _ in range(draw.choice((1, 3, 30))):
                outer = helper.make_graph([helper.make_node("If", [node.input[0]], ["z"])], "n", [], [])
                outer.node[0].attribute.append(inner)
                inner = helper.make_attribute(draw.choice(("then_branch", "body", "else_branch")), outer)
            node.attribute.append(inner)
        case _:
            if model.functions:
                function = draw.choice(model.functions)
                call = helper.make_node(function.name, [function.input[0]], ["w"], domain=function.domain)
                function.node.append(call)
                model.functions.append(draw.choice(model.functions))


def _constants(draw: random.Random, model: ModelProto) -> None:
    tensors = [t for g in _graphs(model) for t in g.initializer]
    if not tensors:
        return
    tensor = draw.choice(tensors)
    match draw.randrange(7):
        case 0 if tensor.dims:
            tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(SIZES)
        case 1:
            tensor.dims.append(draw.choice(SIZES))
        case 2:
            tensor.data_type = draw.choice((*range(28), 99))
        case 3:
            tensor.raw_data = draw.choice((b"", b"\x00", b"\xff" * 64, tensor.raw_data[:-1], tensor.raw_data * 2))
        case 4:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", draw.choice(("", "../../secret", "/dev/zero", "w.bin", "."))),
                               ("offset", draw.choice(("0", "-1", "x", "9" * 30))), ("length", "8")):  # fmt: skip
                tensor.external_data.add(key=key, value=value)
        case 5:
            tensor.name = draw.choice(NAMES)
        case _:
            values = draw.choice((tensor.int64_data, tensor.float_data))
            if values:
                values[draw.randrange(len(values))] = draw.choice(SIZES)
            else:
                tensor.int64_data.extend((2**62, -1))


MUTATIONS = (_dims, _dims, _elements, _wires, _attributes, _attributes, _operator, _opsets, _structure, _constants)
