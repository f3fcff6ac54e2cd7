"""Chains of contractions beside an optimal mapper of fused loop nests: tilings by hand, and those that are chosen.

``python results/tiles/einsums.py`` plans every case and writes ``einsums.csv`` beside it. The mapper is AccelForge
1.0.467; its figures, and what it counts, are in the README. One byte an element, partial sums too; operands and results
lie in the scratchpad, weights as well.
"""

from __future__ import annotations

import csv
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cosma import Accelerator, compile, load_onnx, replay
from cosma.rewrite.tiling import REDUCED, Tiling, even_cuts, step_cuts

HERE = Path(__file__).resolve().parent
#: Nominal seconds of each plan.
EFFORT = 0.5
FIELDS = (
    "case", "sram_kib", "compulsory_bytes", "accelforge_bytes", "by_hand_bytes", "by_hand_tiles", "auto_bytes",
    "auto_tiles", "auto_lower_bound_bytes", "by_hand_cpu_s", "auto_cpu_s",
)  # fmt: skip

Shape = tuple[int, ...]


def _save(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Shape], outputs: dict[str, Shape],
    weights: dict[str, Shape], constants: Sequence[TensorProto] = (),
) -> Path:  # fmt: skip
    def info(values: dict[str, Shape]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

    held = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    graph = helper.make_graph(list(nodes), path.stem, info(inputs), info(outputs), [*held, *constants])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def product(path: Path) -> Path:
    """C[512,512] = A[512,512] B[512,512]."""
    square = (512, 512)
    return _save(path, [helper.make_node("MatMul", ["a", "b"], ["c"], name="c")], {"a": square, "b": square},
                 {"c": square}, {})  # fmt: skip


def perceptron(path: Path) -> Path:
    """H[1024,2048] = X[1024,512] W1; Y[1024,512] = H W2."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="up"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="down"),
    ]
    return _save(path, nodes, {"x": (1024, 512)}, {"y": (1024, 512)}, {"w1": (512, 2048), "w2": (2048, 512)})


def attention(path: Path, tokens: int = 512, heads: int = 8, depth: int = 64) -> Path:
    """Attention as exporters write it: heads are split off by Reshape and Transpose, and joined the same way."""
    nodes = []
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}_split"], name=f"{name}_split"))
        heads_of = f"{name}_heads"
        nodes.append(helper.make_node("Transpose", [f"{name}_split"], [heads_of], perm=order, name=heads_of))
    nodes += [
        helper.make_node("MatMul", ["q_heads", "k_heads"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1, name="shares"),
        helper.make_node("MatMul", ["shares", "v_heads"], ["mixed"], name="mixed"),
        helper.make_node("Transpose", ["mixed"], ["joined"], perm=[0, 2, 1, 3], name="joined"),
        helper.make_node("Reshape", ["joined", "merge"], ["y"], name="merged"),
    ]
    width = heads * depth
    constants = [
        numpy_helper.from_array(np.array([1, tokens, heads, depth]), "split"),
        numpy_helper.from_array(np.array([1, tokens, width]), "merge"),
    ]
    return _save(path, nodes, dict.fromkeys("qkv", (1, tokens, width)), {"y": (1, tokens, width)}, {}, constants)


def _convolutions(path: Path, size: int, channels: int, layers: Sequence[tuple[str, int, int, int]]) -> Path:
    nodes, weights, value, given = [], {}, "x", channels
    for i, (name, outputs, kernel, groups) in enumerate(layers):
        weights[f"w_{name}"] = (outputs, given // groups, kernel, kernel)
        result = "y" if i + 1 == len(layers) else name
        nodes.append(
            helper.make_node("Conv", [value, f"w_{name}"], [result], name=name, kernel_shape=[kernel, kernel],
                             pads=[kernel // 2] * 4, group=groups)
        )  # fmt: skip
        value, given = result, outputs
    return _save(path, nodes, {"x": (1, channels, size, size)}, {"y": (1, given, size, size)}, weights)


def inverted_residual(path: Path) -> Path:
    """56x56: 1x1 24->144, depthwise 3x3, 1x1 144->24."""
    return _convolutions(path, 56, 24, [("wide", 144, 1, 1), ("deep", 144, 3, 144), ("narrow", 24, 1, 1)])


def bottleneck(path: Path) -> Path:
    """56x56: 1x1 256->64, 3x3 64->64, 1x1 64->256."""
    return _convolutions(path, 56, 256, [("narrow", 64, 1, 1), ("middle", 64, 3, 1), ("wide", 256, 1, 1)])


# -- tilings by hand ---------------------------------------------------------------------------------------


def product_by_hand(rows: int, columns: int, step: int | None) -> Tiling:
    """Tiles of the result stay while steps of the sum pass."""
    return Tiling(
        {"c": (even_cuts(512, rows), even_cuts(512, columns))}, sums={"c": step_cuts(512, step)} if step else {}
    )


def perceptron_by_hand(rows: int, middle: int, columns: int | None = None, step: int | None = None) -> Tiling:
    """The columns of H pass: each is computed for a panel of rows, and added to the panel of Y."""
    sums = {"down": even_cuts(2048, middle)} | ({"up": step_cuts(512, step)} if step else {})
    cuts = {
        "up": (even_cuts(1024, rows), even_cuts(2048, middle)),
        "down": (even_cuts(1024, rows), step_cuts(512, columns) if columns else ()),
    }
    return Tiling(cuts, sums=sums, loops={"down": (0, REDUCED, 1)})


def attention_by_hand(rows: int) -> Tiling:
    """Head by head, and within a head rows of the score matrix."""
    down, heads = even_cuts(512, rows), even_cuts(8, 8)
    cuts = dict.fromkeys(("q_heads", "scores", "shares", "mixed"), ((), heads, down, ()))
    cuts |= dict.fromkeys(("k_heads", "v_heads"), ((), heads, (), ()))
    return Tiling({**cuts, "joined": ((), down, heads, ())}, loops={"joined": (0, 2, 1, 3)})


def bottleneck_by_hand() -> Tiling:
    """One row by eight columns; the first layer by itself, the last two interleaved."""
    cut = ((), (), step_cuts(56, 1), step_cuts(56, 8))
    return Tiling(dict.fromkeys(("narrow", "middle", "wide"), cut), segments=(("narrow",), ("middle", "wide")))


@dataclass(frozen=True, slots=True)
class Case:
    """A case at one size of scratchpad: the model, the mapper's figure, and a tiling by hand."""

    name: str
    model: Callable[[Path], Path]
    kib: int
    accelforge_bytes: int
    by_hand: Tiling | str


CASES = (
    Case("MM", product, 16, 2_621_440, product_by_hand(4, 5, 12)),
    Case("MM", product, 64, 1_572_864, product_by_hand(2, 3, 48)),
    Case("MM", product, 256, 1_048_576, product_by_hand(2, 32, None)),
    Case("MLP", perceptron, 128, 15_204_352, perceptron_by_hand(3, 6, 16, 16)),
    Case("MLP", perceptron, 512, 7_340_032, perceptron_by_hand(3, 16)),
    Case("MLP", perceptron, 1024, 5_242_880, perceptron_by_hand(2, 8)),
    Case("ATT", attention, 128, 1_048_576, attention_by_hand(16)),
    Case("ATT", attention, 512, 1_048_576, attention_by_hand(4)),
    Case("MBV2", inverted_residual, 64, 1_094_736, "rows=1"),
    Case("MBV2", inverted_residual, 128, 760_848, "rows=2"),
    Case("RES", bottleneck, 64, 2_091_264, bottleneck_by_hand()),
    Case("RES", bottleneck, 128, 2_091_264, "rows=1"),
    Case("RES", bottleneck, 256, 1_896_448, "rows=4"),
)


def cpu_seconds() -> float:
    """Processor time of this process and of those that it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def plan_case(case: Case, tiling: Tiling | str, folder: Path, effort: float = EFFORT) -> dict[str, int | float]:
    """Plan a case under a tiling and replay it against the model."""
    path = case.model(folder / f"{case.name}.onnx")
    loaded = load_onnx(path)
    accelerator = Accelerator(scratchpad=case.kib * 1024, operands="resident", weights="scratchpad")
    start = cpu_seconds()
    plan = compile(loaded, accelerator, dtype="int8", tiling=tiling, effort=effort)
    seconds = cpu_seconds() - start
    report = replay(plan, loaded.finest_graph.with_dtype("int8"), model=path)
    if not report.valid:
        raise SystemExit(f"{case.name} at {case.kib} KiB: {report.violations[0].message}")
    return {
        "compulsory": plan.traffic.compulsory,
        "total": plan.traffic.total,
        "tiles": len(plan.graph.operators),
        "bound": plan.traffic.compulsory + plan.certificate.lower_bound,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Plan all cases and write the table."""
    with tempfile.TemporaryDirectory() as folder, (HERE / "einsums.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        for case in CASES:
            hand = plan_case(case, case.by_hand, Path(folder))
            auto = plan_case(case, "auto", Path(folder))
            row = {
                "case": case.name, "sram_kib": case.kib, "compulsory_bytes": hand["compulsory"],
                "accelforge_bytes": case.accelforge_bytes, "by_hand_bytes": hand["total"],
                "by_hand_tiles": hand["tiles"], "auto_bytes": auto["total"], "auto_tiles": auto["tiles"],
                "auto_lower_bound_bytes": auto["bound"], "by_hand_cpu_s": hand["seconds"],
                "auto_cpu_s": auto["seconds"],
            }  # fmt: skip
            table.writerow(row)
            file.flush()
            sys.stderr.write(f"{row}\n")


if __name__ == "__main__":
    main()
