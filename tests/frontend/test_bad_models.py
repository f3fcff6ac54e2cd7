"""One trap per file: each plans, or fails with the right message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cosma.errors import ModelLoadError
from cosma.frontend import LoadedModel, load_onnx

FAILS = {
    "custom_op_without_value_info": r"node 'a' \(com.example.Frobnicate\).*'a'.*value_info",
    "cyclic": r"cycle of 2 nodes: a -> b -> a",
    "duplicate_initializer": r"two initializers are named 'c'",
    "duplicate_tensor": r"'a' is produced twice, by node 'a' \(Relu\) and node 'a' \(Sigmoid\)",
    "dynamic_batch": r"dynamic dimensions: N \('x' axis 0\).*for example N=1$",
    "dynamic_seq": r"dynamic dimensions: seq .*for example seq=1$",
    "dynamic_unnamed": r"dynamic dimensions: x\.0 .*for example x\.0=1$",
    "functions_recursive": r"local\.Rec -> local\.Rec",
    "if_nested_2000": r"nest 2001 deep.*protobuf reads 100",
    "incompatible_shapes": r"node 'y' \(Add\).*'x' float32\[1,8,16,16\], 'c' float32\[3,5\]",
    "no_nodes_with_input": r"no graph outputs",
    "no_outputs": r"no graph outputs",
    "node_output_shadows_initializer": r"node 'c' \(Relu\) produces 'c', which is a graph input or initializer",
    "node_output_shadows_input": r"node 'x' \(Relu\) produces 'x', which is a graph input or initializer",
    "not_protobuf_text": r"is plain text, not an ONNX protobuf file",
    "self_loop": r"cycle of 1 nodes: y -> y",
    "truncated_half": r"truncated.*needs 24581 bytes and 12280 are left",
    "undefined_input": r"node 'y' \(Add\) reads 'ghost'",
    "undefined_output": r"graph output 'z' is produced by no node",
    "unknown_dtype": r"graph input 'x' has element type elem_type 99",
    "unknown_rank": r"graph input 'x' .* has no shape",
    "value_info_contradicts": r"'a' is float32\[1,4,16,16\], but node 'a' \(Relu\) yields float32\[1,8,16,16\]",
    "value_info_wrong_dtype": r"'a' is float16\[1,8,16,16\], but node 'a' \(Relu\) yields float32\[1,8,16,16\]",
}

MAP = 1 * 8 * 16 * 16 * 4  # bytes of the tensor most of these models pass around

#: Operators left, and sizes of tensors that show the trap was understood.
PLANS: dict[str, tuple[int, dict[str, int]]] = {
    "chain_20000": (20000, {}),
    "com_microsoft_fused": (2, {"a": MAP, "w": 8 * 8 * 9 * 4}),
    "complex64": (0, {"x": 4 * 8}),
    "constant_only": (0, {}),
    "disconnected": (2, {"y": MAP, "y2": 20}),
    "duplicate_graph_input": (1, {"x": MAP}),
    "duplicate_graph_output": (1, {"y": MAP}),
    "expand_where_shape": (1, {"y": 3 * MAP}),
    "external_no_location": (1, {"big": 32768 * 32768 * 4, "y": 32768 * 4}),
    "fanout_5000": (5001, {}),
    "fp8_bf16_f64": (4, {"a": MAP // 4, "b": MAP // 2, "c": 2 * MAP, "y": MAP}),
    "if_captured": (2, {"z": MAP, "k": 4}),
    "if_nested_20": (1, {}),
    "intermediate_is_output": (2, {"a": MAP}),
    "ir_future": (3, {}),
    "names_invalid_utf8": (2, {"\\xff": MAP}),
    "names_numeric": (2, {"0": 16, "1": 16, "-1": 16}),
    "names_unicode": (9, {}),
    "opset1": (4, {"c": MAP, "n": MAP, "a": MAP, "y": 40, "w": 2304, "fw": 81920}),
    "opset1_upsample_removed": (1, {"y": 4 * MAP}),
    "optional_empty_io": (1, {"a": MAP, "hi": 4}),
    "optional_input": (1, {"x": 16, "y": 1}),
    "qdq_small": (18, {}),
    "real_torch_cond": (4, {"a.weight": 16384, "b.weight": 16384}),
    "reshape_zero_and_minus1": (0, {"x": MAP}),
    "same_input_twice": (1, {"x": MAP, "y": MAP}),
    "scalars": (2, {"s": 4}),
    "scan": (1, {"hn": 32, "os": 160}),
    "sequence_types": (1, {"y": MAP // 8, "s[7]": MAP // 8}),
    "shape_subgraph": (0, {"x": MAP}),
    "sparse_initializer": (1, {"sp": 64 * 32 * 4}),
    "training_gradient": (1, {"y": MAP}),
    "unsorted": (2, {"a": MAP}),
    "unused_initializer": (1, {"y": MAP}),
    "unused_input": (1, {"y": MAP}),
    "view_chain": (0, {"x": MAP}),
    "zero_batch_dim_value": (1, {"x": 0, "y": 0}),
}


@pytest.fixture(scope="session")
def bad(shared_models: Path) -> Path:
    return shared_models / "bad"


def test_every_file_is_accounted_for(bad: Path) -> None:
    assert {path.stem for path in bad.glob("*.onnx")} == FAILS.keys() | PLANS.keys()


@pytest.mark.parametrize("name", FAILS)
def test_it_fails_with_the_right_message(name: str, bad: Path) -> None:
    with pytest.raises(ModelLoadError, match=FAILS[name]):
        load_onnx(bad / f"{name}.onnx")


@pytest.mark.parametrize("name", PLANS)
def test_it_plans(name: str, bad: Path, check: Callable[[LoadedModel], None]) -> None:
    loaded = load_onnx(bad / f"{name}.onnx")
    check(loaded)
    count, sizes = PLANS[name]
    assert len(loaded.finest_graph.operators) == count
    assert {tensor: loaded.graph.tensors[tensor].size_bytes for tensor in sizes} == sizes


def test_dynamic_models_plan_once_bound(bad: Path) -> None:
    assert load_onnx(bad / "dynamic_batch.onnx", dims={"N": 3}).graph.tensors["y"].size_bytes == 3 * MAP
    assert load_onnx(bad / "dynamic_seq.onnx", dims={"seq": 10}).graph.tensors["y"].size_bytes == 400
    assert load_onnx(bad / "dynamic_unnamed.onnx", dims={"x.0": 5}).graph.tensors["y"].size_bytes == 160


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("duplicate_graph_output", "listed twice"),
        ("duplicate_graph_input", "listed twice"),
        ("ir_future", "IR version 999"),
        ("names_invalid_utf8", "not UTF-8"),
        ("unsorted", "were sorted"),
        ("unused_input", "unused graph inputs: u"),
        ("zero_batch_dim_value", "holds no element"),
        ("sparse_initializer", "count as the dense tensors"),
        ("constant_only", "no operator is left"),
        ("training_gradient", "reach no graph output"),
    ],
)
def test_what_was_assumed_is_noted(name: str, note: str, bad: Path) -> None:
    assert any(note in text for text in load_onnx(bad / f"{name}.onnx").notes)


def test_names_are_kept_as_they_are(bad: Path) -> None:
    loaded = load_onnx(bad / "names_unicode.onnx")
    names = loaded.graph.tensors.keys()
    assert any("\n" in name for name in names)
    assert any(len(name) == 5000 for name in names)
    assert any(not name.isascii() for name in names)
