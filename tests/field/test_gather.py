"""Tables that are read by rows: what indices select counts, and plans that bring no more give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import cosma
from cosma import Accelerator, Execute, Load, Plan
from cosma.execute import run_plan
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph import Rows, TensorKind
from tests.onnx_files import save_network

MODES = [("stream", "streamable"), ("scratchpad", "streamable"), ("scratchpad", "resident")]


class Planned:
    """A model read, planned, replayed and executed with the given inputs."""

    def __init__(self, path: Path, accelerator: Accelerator, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        self.path = path
        self.loaded: LoadedModel = load_onnx(path)
        self.plan: Plan = cosma.compile(self.loaded, accelerator, effort=0.2)
        assert cosma.replay(self.plan, self.loaded.graph).valid
        report = run_plan(self.plan, path, inputs=inputs)
        assert report.equal
        assert report.traffic_as_planned

    @property
    def weights(self) -> dict[str, int]:
        return {tensor.name: tensor.size_bytes for tensor in self.loaded.graph.of_kind(TensorKind.WEIGHT)}


Case = Callable[..., Planned]


@pytest.fixture(params=MODES, ids=lambda mode: "-".join(mode))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """Plan and execute a graph in ONNX's text form in one mode of the accelerator."""
    weights_mode, operands = request.param

    def run(
        text: str,
        weights: dict[str, np.ndarray[Any, Any]],
        inputs: dict[str, np.ndarray[Any, Any]] | None = None,
        *,
        scratchpad: int = 65_536,
    ) -> Planned:
        header = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1, "ai.onnx.ml" : 1]>'
        model = parser.parse_model(header + text)
        for name, array in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return Planned(
            path, Accelerator(scratchpad=scratchpad, weights=weights_mode, operands=operands), inputs or {}
        )

    return run


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


IDS = np.array([[4999, 0, 17, -1]])
TABLE = {"E": floats(5000, 64)}


def test_an_embedding_reads_the_rows_of_its_tokens(case: Case) -> None:
    found = case("g (int64[1,4] ids) => (float[1,4,64] y) { e = Gather(E, ids)\n y = Relu(e) }", TABLE, {"ids": IDS})
    assert found.weights == {"E[ids]": 1024}
    assert found.plan.traffic.total == found.plan.traffic.compulsory == 32 + 1024 + 1024
    assert found.plan.graph.tensors["E[ids]"].rows == Rows("E", ("ids",))


def test_a_gather_along_another_axis_reads_columns(case: Case) -> None:
    found = case(
        "g (int64[3] ids) => (float[100,3] y) { e = Gather<axis = 1>(E, ids)\n y = Relu(e) }",
        {"E": floats(100, 64)},
        {"ids": np.array([63, 1, -2])},
    )
    assert found.weights == {"E[:, ids]": 1200}


def test_more_indices_than_rows_read_the_table_once(case: Case) -> None:
    found = case(
        "g (int64[200] ids) => (float[200,64] y) { e = Gather(E, ids)\n y = Relu(e) }", {"E": floats(100, 64)},
        scratchpad=262_144,
    )  # fmt: skip
    assert found.weights == {"E": 25_600}


def test_single_elements_are_read_alone(case: Case) -> None:
    found = case(
        "g (int64[2,64] ids) => (float[2,64] y) { e = GatherElements<axis = 0>(E, ids)\n y = Relu(e) }",
        TABLE,
        {"ids": np.random.default_rng(2).integers(-5000, 5000, (2, 64))},
    )
    assert found.weights == {"E[ids along 0]": 512}


@pytest.mark.parametrize(
    ("batch", "shape", "indices", "name", "size"),
    [
        (0, (3, 64), [[1, 2], [39, 4], [-1, -5]], "E[[ids]]", 3 * 64 * 4),
        (1, (40, 64), [[i % 5] for i in range(40)], "E[:, [ids]]", 40 * 64 * 4),
    ],
)
def test_index_tuples_read_what_they_name(
    case: Case, batch: int, shape: tuple[int, int], indices: list[list[int]], name: str, size: int
) -> None:
    ids = np.array(indices, np.int64)
    found = case(
        f"""g (int64[{ids.shape[0]},{ids.shape[1]}] ids) => (float[{shape[0]},{shape[1]}] y)
        {{ e = GatherND<batch_dims = {batch}>(E, ids)
           y = Relu(e) }}""",
        {"E": floats(40, 5, 64)},
        {"ids": ids},
    )
    assert found.weights == {name: size}


def test_a_slice_at_a_computed_position_reads_what_it_cuts(case: Case) -> None:
    found = case(
        """g (int64[1] start, int64[1] stop) => (float[8,64] y) <int64[1] axis = {0}, float[8,64] e>
        { e = Slice(E, start, stop, axis)
          y = Relu(e) }""",
        TABLE,
        {"start": np.array([4990]), "stop": np.array([4998])},
    )
    assert found.weights == {"E[slice start, stop]": 2048}


def test_a_table_that_is_also_the_last_projection_counts_rows_and_whole(case: Case) -> None:
    found = case(
        """g (int64[4] ids) => (float[4,100] y)
        { e = Gather(E, ids)
          r = Relu(e)
          t = Transpose<perm = [1,0]>(E)
          y = MatMul(r, t) }""",
        {"E": floats(100, 64)},
        {"ids": np.array([5, 99, 0, 5])},
    )
    assert found.weights == {"E[ids]": 1024, "t": 25_600}


def test_rows_of_one_table_by_the_same_indices_are_one(case: Case) -> None:
    found = case(
        """g (int64[4] ids, int64[4] others) => (float[4,64] y)
        <int64[2] square = {2,2}, int64[2] back = {4,64}>
        { a = Gather(E, ids)
          shaped = Reshape(ids, square)
          b = Gather(E, shaped)
          flat = Reshape(b, back)
          c = Gather(E, others)
          ab = Mul(a, flat)
          y = Add(ab, c) }""",
        TABLE,
        {"ids": np.array([5, 99, 0, 5]), "others": np.array([1, 2, 3, 4])},
    )
    assert found.weights == {"E[ids]": 1024, "E[others]": 1024}


def test_an_embedding_bag_reads_the_rows_it_adds(case: Case) -> None:
    found = case(
        """g (int64[2,3] ids) => (float[2,64] y) <int64[1] axis = {1}>
        { e = Gather(E, ids)
          y = ReduceSum<keepdims = 0>(e, axis) }""",
        TABLE,
        {"ids": np.array([[5, 99, 0], [1, 1, 2]])},
    )
    assert found.weights == {"E[ids]": 1536}


def test_rows_of_a_dequantized_table_are_rows_of_the_quantized_one(case: Case) -> None:
    found = case(
        """g (int64[4] ids) => (float[4,64] y)
        { E = DequantizeLinear<axis = 0>(Q, scale, zero)
          e = Gather(E, ids)
          y = Relu(e) }""",
        {
            "Q": np.random.default_rng(3).integers(-128, 127, (500, 64)).astype(np.int8),
            "scale": np.abs(floats(500)) + 0.1,
            "zero": np.random.default_rng(4).integers(-9, 9, 500).astype(np.int8),
        },
        {"ids": np.array([5, 99, 0, 499])},
    )
    assert found.weights == {"Q[ids]": 256, "scale[ids]": 16, "zero[ids]": 4}


def test_one_scale_for_all_rows_is_read_whole(case: Case) -> None:
    found = case(
        """g (int64[4] ids) => (float[4,64] y) <float scale = {0.1}>
        { E = DequantizeLinear(Q, scale)
          e = Gather(E, ids)
          y = Relu(e) }""",
        {"Q": np.random.default_rng(3).integers(-128, 127, (500, 64)).astype(np.int8)},
        {"ids": np.array([5, 99, 0, 499])},
    )
    assert found.weights == {"Q[ids]": 256, "scale": 4}


def test_rows_of_packed_elements_are_bytes_of_them(tmp_path: Path) -> None:
    node = helper.make_node(
        "GatherBlockQuantized", ["Q", "ids", "scales"], ["y"], domain="com.microsoft",
        block_size=16, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    path = _microsoft(tmp_path, [node], {"ids": (7, [4])}, {"y": [4, 64]}, {"scales": np.abs(floats(500, 4))})
    model = onnx.load(path)
    content = [(i % 16) - 8 for i in range(500 * 64)]
    model.graph.initializer.append(helper.make_tensor("Q", onnx.TensorProto.INT4, [500, 64], content))
    model.opset_import[0].version = 21
    onnx.save(model, path)
    weights = load_onnx(path).graph.of_kind(TensorKind.WEIGHT)
    assert {tensor.name: tensor.size_bytes for tensor in weights} == {"Q[ids]": 128, "scales[ids]": 64}


def test_a_generated_table_is_stored_nowhere_rows_neither(case: Case) -> None:
    found = case(
        """g (int64[4] ids) => (float[4,64] y) <int64[2] shape = {5000,64}, float half = {0.5}>
        { ones = ConstantOfShape<value = float[1] {1.0}>(shape)
          E = Mul(ones, half)
          e = Gather(E, ids)
          y = Relu(e) }""",
        {},
        {"ids": np.array([5, 99, 0, 499])},
    )
    assert found.weights == {"half": 4}


def test_indices_that_are_computed_come_before_their_rows(case: Case) -> None:
    found = case(
        """g (float[4,16] x) => (float[4,64] y)
        { ids = ArgMax<axis = 1, keepdims = 0>(x)
          e = Gather(E, ids)
          y = Relu(e) }""",
        TABLE,
    )
    assert found.weights == {"E[ids]": 1024}
    moved = [i for i in found.plan.instructions if isinstance(i, Load) and i.tensor == "E[ids]"]
    if not moved:
        return
    where = found.plan.instructions.index(moved[0])
    rest = [i for i in found.plan.instructions if i is not moved[0]]
    early = replace(found.plan, instructions=(moved[0], *rest))
    assert where > next(k for k, i in enumerate(found.plan.instructions) if isinstance(i, Execute))
    assert "rows-unknown" in {violation.verdict for violation in cosma.replay(early).violations}
    unsaid = {t.name: replace(t, rows=None) for t in found.plan.graph.tensors.values()}
    silent = replace(found.plan, graph=cosma.Graph(unsaid.values(), found.plan.graph.operators, "net"))
    assert cosma.replay(silent).valid
    assert [v.verdict for v in cosma.replay(silent, found.loaded.graph).violations] == ["model-mismatch"]


def test_row_sets_survive_the_plan_file(case: Case, tmp_path: Path) -> None:
    found = case("g (int64[1,4] ids) => (float[1,4,64] y) { e = Gather(E, ids)\n y = Relu(e) }", TABLE, {"ids": IDS})
    cosma.save_plan(found.plan, tmp_path / "plan.json")
    again = cosma.load_plan(tmp_path / "plan.json")
    assert again.graph.tensors["E[ids]"].rows == Rows("E", ("ids",))
    assert cosma.replay(again, found.loaded.graph).valid
    assert run_plan(again, found.path, inputs={"ids": IDS}).equal


def _microsoft(tmp_path: Path, nodes: list[onnx.NodeProto], inputs: Any, outputs: Any, weights: Any) -> Path:
    return save_network(tmp_path / "ms.onnx", nodes, inputs, weights, outputs, opset=20, ir_version=10)


@pytest.mark.parametrize(("weights_mode", "operands"), MODES)
def test_embed_layer_normalization_reads_rows_of_its_three_tables(
    tmp_path: Path, weights_mode: Any, operands: Any
) -> None:
    names = ["ids", "segments", "word", "position", "segment", "gamma", "beta"]
    node = helper.make_node("EmbedLayerNormalization", names, ["y", "m"], domain="com.microsoft")
    path = _microsoft(
        tmp_path,
        [node],
        {"ids": (6, [1, 8]), "segments": (6, [1, 8])},
        {"y": [1, 8, 64]},
        {
            "word": floats(1000, 64), "position": floats(512, 64), "segment": floats(2, 64),
            "gamma": floats(64), "beta": floats(64),
        },
    )  # fmt: skip
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("m", 6, [1]))
    onnx.save(model, path)
    accelerator = Accelerator(scratchpad=65_536, weights=weights_mode, operands=operands)
    found = Planned(path, accelerator, {"ids": np.arange(8, dtype=np.int32)[None] * 100})
    assert found.weights == {"word[ids]": 2048, "position[:8]": 2048, "segment": 512, "gamma": 256, "beta": 256}


@pytest.mark.parametrize(("weights_mode", "operands"), MODES)
def test_gather_block_quantized_reads_rows_of_data_and_scales(
    tmp_path: Path, weights_mode: Any, operands: Any
) -> None:
    node = helper.make_node(
        "GatherBlockQuantized", ["data", "ids", "scales"], ["e"], domain="com.microsoft",
        block_size=16, gather_axis=0, quantize_axis=1, bits=8,
    )  # fmt: skip
    path = _microsoft(
        tmp_path,
        [node, helper.make_node("Relu", ["e"], ["y"])],
        {"ids": (7, [4])},
        {"y": [4, 64]},
        {
            "data": np.random.default_rng(5).integers(0, 255, (500, 64)).astype(np.uint8),
            "scales": np.abs(floats(500, 4)),
        },
    )
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("e", 1, [4, 64]))
    onnx.save(model, path)
    accelerator = Accelerator(scratchpad=65_536, weights=weights_mode, operands=operands)
    found = Planned(path, accelerator, {"ids": np.array([0, 7, 499, 7])})
    assert found.weights == {"data[ids]": 256, "scales[ids]": 64}


def test_a_name_of_the_model_is_never_taken_for_rows(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["E", "ids"], ["e"]), helper.make_node("Add", ["e", "E[ids]"], ["y"])]
    path = _microsoft(tmp_path, nodes, {"ids": (7, [4]), "E[ids]": (1, [4, 64])}, {"y": [4, 64]}, TABLE)
    found = Planned(path, Accelerator(scratchpad=65_536), {"ids": np.array([5, 99, 0, 499])})
    assert found.weights == {"E[ids]'": 1024}
