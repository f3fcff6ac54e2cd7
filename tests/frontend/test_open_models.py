"""Every network of the shared folder, checked against what its makers measured."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from cosma.frontend import LoadedModel, NodeFate, load_onnx
from cosma.graph import Graph, TensorKind

FOLDER = Path(__file__).parents[3] / "shared" / "models"
MANIFEST = FOLDER / "open" / "manifest.csv"
ROWS = list(csv.DictReader(MANIFEST.open())) if MANIFEST.exists() else []
RAW = sorted((FOLDER / "raw").glob("*.onnx")) if FOLDER.is_dir() else []

#: Where the largest operator with weights differs from the manifest, which counts what is no memory traffic here.
PARAMETERS_COUNTED = {
    "darts_v1_cifar": 24,  # starts, ends and axes of the largest operator, a Slice
    "enas_micro_cifar": 24,
    "nasnet_a_cifar": 24,
    "mobilenet_v2_224_noopt": 64,  # amounts of the largest operator, a Pad
}

#: Bytes of weights that the manifest counts and that are never read, or stored fewer times or narrower.
NOT_READ = {
    # rows of the embedding table that no token selects
    "bert_base_s128": 93_370_480, "distilbert_s128": 93_370_480, "squeezebert_s128": 93_370_424,
    "clip_vit_b32": 101_030_160, "mobilebert_s128": 15_561_968, "llama_4l_512_decode_p255": 65_534_224,
    "gru2_s64_legacy": 10_174_480, "lstm_bi2_s64": 10_174_488, "lstm_unrolled_s32": 10_207_240,
    # the same; biases and norms reached by Identity from one initializer
    "bert_base_s384_legacy": 94_222_856,
    # the same; two embeddings of 128 positions are int8 instead of float
    "bert_small_s128_int8_dynamic": 16_018_534,
    # one table instead of two, one of them transposed
    "gpt2_s128": 154_045_684, "mamba_4l_s64": 16_253_000,
    # rows of the embedding table; a mask of bool instead of float
    "llama_4l_512_s128": 65_323_244,
    # weights that are all ConstantOfShape
    "light_bvlc_alexnet": 243_860_912, "light_densenet121": 32_581_536, "light_inception_v1": 27_989_936,
    "light_resnet50": 102_433_456, "light_squeezenet": 4_939_424, "light_vgg19": 574_668_464,
    # int8 weights instead of float ones
    "mobilenet_v2_int8_qdq": 6_491_702,
    # biases expanded from a zero
    "mobilenet_v2_224_noopt": 58_960, "randwire_ws_s1_noopt": 74_796,
    # masks of bool or of one window instead of float for all, position biases gathered from small tables
    "detr_r50_480x640": 786_212, "swin2sr_x2_64": 2_165_364, "swin_tiny_224_legacy": 4_813_744,
    "swinv2_tiny_256": 1_745_068, "vit_6l_224_fp16": 38_943, "vit_b16_224": 116_559,
}  # fmt: skip

pytestmark = pytest.mark.skipif(not ROWS, reason="the folder of shared models is not beside the repository")


@pytest.fixture(scope="session")
def loaded_models() -> dict[str, LoadedModel]:
    return {row["file"]: load_onnx(MANIFEST.parent / row["file"]) for row in ROWS}


def largest(model: LoadedModel, *, weights: bool) -> int:
    return max(model.graph.working_set_bytes(operator.name, weights=weights) for operator in model.graph.operators)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_a_network_matches_its_manifest(
    row: dict[str, str], loaded_models: dict[str, LoadedModel], check: Callable[[LoadedModel], None]
) -> None:
    model = loaded_models[row["file"]]
    check(model)
    # What lies between the integer operators of the quantised network has one byte an element, not four.
    narrower = 4 if model.name == "mobilenet_v2_int8_qdq" else 1
    assert largest(model, weights=False) == int(row["max_op_bytes"]) // narrower
    views_kept = sum(node.fate in (NodeFate.VIEW, NodeFate.FUSED) for node in model.nodes)
    folded_or_views = int(row["compute_nodes"]) - len(model.graph.operators)
    assert 0 <= folded_or_views <= views_kept + sum(node.fate is NodeFate.FOLDED for node in model.nodes)
    expected = int(row["max_op_bytes_with_weights"]) - PARAMETERS_COUNTED.get(model.name, 0)
    if model.name in NOT_READ:
        assert largest(model, weights=True) <= expected
    else:
        assert largest(model, weights=True) == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_weights_are_those_of_the_manifest_less_parameters(
    row: dict[str, str], loaded_models: dict[str, LoadedModel]
) -> None:
    """Shape operands are left out; what is read in part, shared, computed or quantized counts as in ``NOT_READ``."""
    model = loaded_models[row["file"]]
    bytes_counted = sum(tensor.size_bytes for tensor in model.graph.of_kind(TensorKind.WEIGHT))
    missing = int(row["weight_bytes"]) - bytes_counted
    if model.name in NOT_READ:
        assert missing == NOT_READ[model.name]
    else:
        assert 0 <= missing <= 4_000


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.stem)
def test_raw_exporter_output_loads(path: Path, check: Callable[[LoadedModel], None]) -> None:
    model = load_onnx(path)
    check(model)
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.graph.operators


@pytest.mark.parametrize(
    "name", ["bert_base_s384_legacy", "darts_v2_imagenet_legacy", "mobilenet_v2_224_noopt", "nasnet_mobile_cl_legacy"]
)
def test_raw_and_cleaned_exports_hold_the_same_work(name: str, loaded_models: dict[str, LoadedModel]) -> None:
    """What another tool folded beforehand is folded here: the operators and the activations come out the same."""
    raw, cleaned = load_onnx(FOLDER / "raw" / f"{name}.onnx").graph, loaded_models[f"{name}.onnx"].graph

    def work(graph: Graph) -> list[tuple[str, tuple[int, ...]]]:
        return [
            (o.type, tuple(t.size_bytes for t in graph.working_set(o.name, weights=False)))
            for o in graph.operators
        ]

    assert work(raw) == work(cleaned)


@pytest.mark.parametrize("name", ["gpt2_s128", "swin2sr_x2_64", "train_resnet20_b8", "light_densenet121"])
def test_reading_twice_gives_the_same(name: str, loaded_models: dict[str, LoadedModel]) -> None:
    assert load_onnx(MANIFEST.parent / f"{name}.onnx") == loaded_models[f"{name}.onnx"]


def test_multiply_accumulates_of_well_known_networks(loaded_models: dict[str, LoadedModel]) -> None:
    def giga(name: str) -> float:
        return sum(operator.macs or 0 for operator in loaded_models[f"{name}.onnx"].graph.operators) / 1e9

    assert giga("zoo_vgg19") == pytest.approx(19.63, abs=0.01)
    assert giga("zoo_resnet50") == pytest.approx(4.09, abs=0.01)
    assert giga("mobilenet_v2_224") == pytest.approx(0.30, abs=0.01)
    assert giga("vit_b16_224") == pytest.approx(17.56, abs=0.01)
    assert giga("bert_base_s128") == pytest.approx(11.17, abs=0.01)


def nodes_that_must_run(path: Path) -> set[str]:
    """First results of all nodes that depend on an input and that an output depends on, straight from the file."""
    graph = onnx.load(path, load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        data = node.input[:1] if node.op_type == "CastLike" else node.input  # the second gives the type alone
        if node.op_type in ("Shape", "Size") or all(name in constant for name in data if name):
            constant.update(node.output)
    needed = {value.name for value in graph.output}
    found = set()
    for node in reversed(graph.node):
        if any(name in needed and name not in constant for name in node.output):
            needed.update(node.input[:1] if node.op_type == "CastLike" else node.input)
            found.add(next(name for name in node.output if name))
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_every_node_that_must_run_is_covered(row: dict[str, str], loaded_models: dict[str, LoadedModel]) -> None:
    loaded = loaded_models[row["file"]]
    covered = {output for operator in loaded.graph.operators for output in operator.covers}
    assert covered == nodes_that_must_run(MANIFEST.parent / row["file"])


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.stem)
def test_every_raw_node_that_must_run_is_covered(path: Path) -> None:
    covered = {output for operator in load_onnx(path).graph.operators for output in operator.covers}
    assert covered == nodes_that_must_run(path)


def check_operands(path: Path, loaded: LoadedModel) -> None:
    """Check every operand edge against the file: an operator reads what its node reads, through views.

    Quantised groups are taken apart: one operator stands for each node.
    """
    graph = onnx.load(path, load_external_data=False).graph
    by_output = {name: node for node in graph.node for name in node.output}
    views = {node.output for node in loaded.nodes if node.fate is NodeFate.VIEW}
    produced = {o for operator in loaded.finest_graph.operators for o in operator.outputs}
    inputs = {tensor.name for tensor in loaded.finest_graph.of_kind(TensorKind.INPUT)}

    def root(name: str) -> str:
        while name in views and name not in produced:
            name = by_output[name].input[0]
        return name

    for operator in loaded.finest_graph.operators:
        node = by_output[operator.covers[0]]
        reads = dict.fromkeys(root(name) for name in node.input if name)
        assert operator.inputs == tuple(name for name in reads if name in produced or name in inputs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_operands_are_those_of_the_file(row: dict[str, str], loaded_models: dict[str, LoadedModel]) -> None:
    check_operands(MANIFEST.parent / row["file"], loaded_models[row["file"]])
