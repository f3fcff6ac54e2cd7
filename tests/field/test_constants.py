"""What a constant counts: the bytes that must be stored off-chip. Plans that read no others give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import cosma
from cosma import Accelerator
from cosma.execute import run_plan
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph import TensorKind
from tests.onnx_files import save_network

Case = Callable[..., "Planned"]


class Planned:
    """A model read, planned, replayed and executed."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.loaded: LoadedModel = load_onnx(path)
        self.plan = cosma.compile(self.loaded, accelerator, effort=0.2)
        assert cosma.replay(self.plan, self.loaded.graph).valid
        report = run_plan(self.plan, path)
        assert report.equal
        assert report.traffic_as_planned

    @property
    def weights(self) -> dict[str, int]:
        return {tensor.name: tensor.size_bytes for tensor in self.loaded.graph.of_kind(TensorKind.WEIGHT)}

    @property
    def compulsory(self) -> int:
        return self.plan.traffic.compulsory


@pytest.fixture(params=["stream", "scratchpad"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """Plan and execute a graph in ONNX's text form, with weights streamed and with weights in the scratchpad."""

    def run(
        text: str, weights: dict[str, np.ndarray] | None = None, *, opset: int = 20, scratchpad: int = 65_536
    ) -> Planned:
        model = parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>' + text
        )
        for name, array in (weights or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return Planned(path, Accelerator(scratchpad=scratchpad, weights=request.param))

    return run


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def test_an_expanded_row_counts_the_row(case: Case) -> None:
    found = case(
        """g (float[1024,64] x) => (float[1024,64] y) <int64[2] shape = {1024,64}>
        { b = Expand(row, shape)
          y = Add(x, b) }""",
        {"row": floats(1, 64)},
    )
    assert found.weights == {"row": 256}
    assert found.compulsory == 524544


def test_a_mask_made_from_a_shape_is_stored_nowhere(case: Case) -> None:
    found = case("""g (float[1,1,512,16] q, float[1,1,16,512] k) => (float[1,1,512,512] y)
        <int64[2] shape = {512,512}>
        { full = ConstantOfShape<value = float[1] {-10000.0}>(shape)
          m = Trilu<upper = 1>(full)
          s = MatMul(q, k)
          sm = Add(s, m)
          y = Softmax(sm) }""")
    assert found.weights == {}
    assert found.compulsory == 1114112


def test_a_grid_of_indices_made_of_ranges_is_stored_nowhere(case: Case) -> None:
    found = case("""g (float[256,257] x, float[256,256] u) => (float[256,257] y)
        <int64 zero = {0}, int64 one = {1}, int64 n = {256}, int64 m = {257}, int64[1] last = {-1},
         int64[2] hw = {256,256}>
        { rows = Range(zero, n, one)
          column = Unsqueeze(rows, last)
          gi = Expand(column, hw)
          columns = Range(one, m, one)
          gj = Expand(columns, hw)
          ui = Unsqueeze(gi, last)
          uj = Unsqueeze(gj, last)
          grid = Concat<axis = -1>(ui, uj)
          y = ScatterND(x, grid, u) }""")
    assert found.weights == {}
    assert found.compulsory == 4 * (2 * 256 * 257 + 256 * 256)


@pytest.mark.parametrize(
    ("nodes", "counted"),
    [
        ("c = Tile(row, two_one)", {"row": 256}),
        ("c = Pad(row, bottom)", {"row": 256}),
        ("twice = Concat<axis = 0>(row, row)\n c = Mul(twice, scale)", {"row": 256, "scale": 4}),
        ("flags = Less(row, scale)\n big = Expand(flags, shape)\n c = Cast<to = 1>(big)", {"flags": 64}),
        ("base = Expand(row, shape)\n c = Where(mask, base, scale)", {"mask": 128, "row": 256, "scale": 4}),
        ("base = Expand(scale, shape)\n c = ScatterND(base, at, row)", {"scale": 4, "at": 8, "row": 256}),
        ("c = OneHot(ids, sixty_four, values)", {"ids": 16, "values": 8}),
        ("eye = EyeLike(plane)\n c = Mul(eye, scale)", {"scale": 4}),
        ("h = Cast<to = 1>(half)\n c = Neg(h)", {"half": 256}),
    ],
)
def test_what_is_generated_counts_what_it_is_generated_from(
    case: Case, nodes: str, counted: dict[str, int]
) -> None:
    found = case(
        f"""g (float[2,64] x) => (float[2,64] y)
        <int64[2] two_one = {{2,1}}, int64[4] bottom = {{0,0,1,0}}, int64[2] shape = {{2,64}}, float scale = {{0.5}},
         int64[1,1] at = {{1}}, int64[2] ids = {{3,5}}, int64 sixty_four = {{64}}, float[2] values = {{0.25, 4.0}}>
        {{ {nodes}
          y = Add(x, c) }}""",
        {
            "row": floats(1, 64),
            "plane": floats(2, 64),
            "mask": floats(2, 64) > 0,
            "half": floats(2, 64).astype(np.float16),
        },
    )
    assert found.weights == counted
    assert found.compulsory == 1024 + sum(counted.values())


@pytest.mark.parametrize(
    ("nodes", "counted"),
    [
        ("c = Slice(table, zero, two)", {"c": 512}),
        ("c = Gather<axis = 0>(table, ids)", {"c": 512}),
        ("c, rest = Split<axis = 0>(table, parts)", {"c": 512}),
        ("sum = Add(big, table2)\n c = Mul(sum, scale)", {"c": 512}),
        ("n = ReduceMean<keepdims = 1>(table, zero)\n c = Expand(n, shape)", {"n": 256}),
    ],
)
def test_what_is_computed_to_something_smaller_counts_the_result(
    case: Case, nodes: str, counted: dict[str, int]
) -> None:
    found = case(
        f"""g (float[2,64] x) => (float[2,64] y)
        <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[2] ids = {{3,5}}, int64[2] parts = {{2,98}},
         float scale = {{0.5}}, int64[2] shape = {{2,64}}>
        {{ {nodes}
          y = Add(x, c) }}""",
        {"table": floats(100, 64), "big": floats(2, 64), "table2": floats(2, 64)},
    )
    assert found.weights == counted


def test_rows_that_constant_indices_name_again_count_once(case: Case) -> None:
    found = case(
        """g (float[32,64] x) => (float[32,64] y)
        { c = Gather(table, ids)
          y = Add(x, c) }""",
        {"table": floats(500, 64), "ids": np.array([7, 499, 7, -1] * 8)},
    )
    assert found.weights == {"table[distinct ids]": 512, "ids": 256}
    small = case(
        "g (float[32,64] x) => (float[32,64] y) { c = Gather(table, ids)\n y = Add(x, c) }",
        {"table": floats(3, 64), "ids": np.array([0, 1, 2, 1] * 8)},
    )
    assert small.weights == {"table": 768, "ids": 256}


def test_content_that_lies_in_the_file_counts_however_uniform_it_is(case: Case) -> None:
    found = case("g (float[2,64] x) => (float[2,64] y) { y = Add(x, w) }", {"w": np.zeros((2, 64), np.float32)})
    assert found.weights == {"w": 512}
    literal = case("g (float[3] x) => (float[3] y) { c = Constant<value_floats = [1.0, 1.0, 1.0]>()\n y = Add(x, c) }")
    assert literal.weights == {"c": 12}


def test_a_stored_constant_behind_two_folded_ones_counts_once(case: Case) -> None:
    found = case(
        """g (float[8,64] x) => (float[8,64] y, float[4,64] z) <int64[2] eight = {8,64}, int64[2] four = {4,64}>
        { a = Expand(row, eight)
          b = Expand(row, four)
          y = Add(x, a)
          head = ReduceSum<keepdims = 1>(x)
          z = Add(b, head) }""",
        {"row": floats(1, 64)},
    )
    assert found.weights == {"row": 256}


def test_one_table_serves_whoever_reads_it_and_whoever_reads_it_transposed(case: Case) -> None:
    found = case(
        """g (float[4,64] x) => (float[4,64] y)
        { t = Transpose<perm = [1,0]>(table)
          s = MatMul(x, t)
          y = MatMul(s, table) }""",
        {"table": floats(32, 64)},
    )
    assert found.weights == {"table": 8192}
    alone = case(
        "g (float[4,64] x) => (float[4,32] s) { t = Transpose<perm = [1,0]>(table)\n s = MatMul(x, t) }",
        {"table": floats(32, 64)},
    )
    assert alone.weights == {"t": 8192}


def test_a_dequantized_weight_counts_its_quantized_form_also_behind_arithmetic(case: Case) -> None:
    found = case(
        """g (float[4,64] x) => (float[4,32] y) <float scale = {0.1}, float gain = {2.0}, int64[2] shape = {32,64}>
        { w = DequantizeLinear(q, scale)
          g2 = Expand(gain, shape)
          scaled = Mul(w, g2)
          t = Transpose<perm = [1,0]>(scaled)
          y = MatMul(x, t) }""",
        {"q": np.arange(32 * 64, dtype=np.int8).reshape(32, 64)},
    )
    assert found.weights == {"q": 2048, "scale": 4, "gain": 4}
    assert any("quantized" in note for note in found.loaded.notes)


def test_a_branch_that_is_taken_generates_constants_too(tmp_path: Path) -> None:
    def branch(value: float) -> onnx.GraphProto:
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [64, 64])
        fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [value])
        node = helper.make_node("ConstantOfShape", ["shape"], ["c"], value=fill)
        return helper.make_graph([node], "b", [], [helper.make_tensor_value_info("c", 1, [64, 64])], [shape])

    nodes = [
        helper.make_node("If", ["yes"], ["bias"], then_branch=branch(1.0), else_branch=branch(2.0)),
        helper.make_node("Add", ["x", "bias"], ["y"]),
    ]
    shape, yes = [64, 64], {"yes": np.array(True)}
    path = save_network(tmp_path / "if.onnx", nodes, {"x": shape}, yes, {"y": shape}, opset=20, ir_version=10)
    found = Planned(path, Accelerator(scratchpad=65_536))
    assert found.weights == {}
    assert found.compulsory == 2 * 16384
