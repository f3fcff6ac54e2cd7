"""Exports are read back by what they are made for: a C compiler, TFLM's layout, a CSV reader, a visitor."""

from __future__ import annotations

import csv
import io
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import cosma
from cosma import (
    Accelerator,
    Allocate,
    Graph,
    InputError,
    Operator,
    Plan,
    PlanInvalidError,
    Tensor,
    TensorKind,
    compile,
)
from cosma.export import Place, c_header, instructions_csv, stays_csv, tflm_metadata
from cosma.graph import Region

HERE = Path(__file__).parent
ZOO = HERE.parents[1] / "models" / "zoo"
ODD = 'odd "name" ??/ \\ é */ 7\n'


def net() -> Graph:
    """A skip, elementwise operators, two results of one operator, a zero-byte tensor and odd names."""
    return Graph(
        [
            Tensor("x", 3000, TensorKind.INPUT),
            Tensor("w", 700, TensorKind.WEIGHT),
            Tensor("a", 4000),
            Tensor("b", 4000),
            Tensor("left", 2000),
            Tensor("right", 1500),
            Tensor("none", 0),
            Tensor("c", 2000),
            Tensor("y", 4000, TensorKind.OUTPUT),
            Tensor(ODD, 1500, TensorKind.OUTPUT),
        ],
        [
            Operator("stem", "Conv", ("x",), ("a",), ("w",)),
            Operator("act", "Relu", ("a",), ("b",)),
            Operator("split", "Split", ("b",), ("left", "right", "none")),
            Operator("again", "Conv", ("left", "none"), ("c",), ("w",)),
            Operator("join", "Concat", ("c", "a"), ("y",)),
            Operator("end", "Tanh", ("right",), (ODD,)),
        ],
        ODD,
    )


MODES = [
    {"scratchpad": "16KiB"},
    {"scratchpad": "6KiB"},
    {"scratchpad": "10KiB", "operands": "resident"},
    {"scratchpad": "10KiB", "weights": "scratchpad", "alignment": 16, "reserved": "512"},
]


@pytest.fixture(scope="module", params=range(len(MODES)))
def plan(request: pytest.FixtureRequest) -> Plan:
    return compile(net(), Accelerator(**MODES[request.param]), strategy="e2")


def _compiled(plan: Plan, folder: Path, compiler: list[str]) -> Path:
    (folder / "plan.h").write_text(c_header(plan))
    program = folder / "replay"
    subprocess.run(
        [*compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", str(folder), str(HERE / "replay.c"),
         "-o", str(program)],
        check=True,
    )  # fmt: skip
    return program


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_header_compiles_and_replays(plan: Plan, tmp_path: Path) -> None:
    program = _compiled(plan, tmp_path, ["gcc", "-std=c99", "-fsanitize=undefined"])
    said = subprocess.run([program], check=True, capture_output=True).stdout.decode()
    numbers, rest = said.split("\n", 1)
    traffic = plan.traffic
    expected = [traffic.loaded, traffic.stored, traffic.streamed, plan.peak_bytes, len(plan.graph.operators)]
    assert [int(n) for n in numbers.split()] == expected
    assert rest == f"{ODD}\n{ODD}\n"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_replay_in_c_refuses_a_wrong_plan(tmp_path: Path) -> None:
    plan = compile(net(), Accelerator(scratchpad="16KiB", in_place=False), strategy="e2")
    instructions = [replace(i, address=0) if isinstance(i, Allocate) else i for i in plan.instructions]
    program = _compiled(replace(plan, instructions=tuple(instructions)), tmp_path, ["gcc", "-std=c99"])
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "overlap" in done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_header_is_cpp_as_well(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "one.h").write_text(c_header(plan, "one"))
    (tmp_path / "two.h").write_text(c_header(plan, "two"))
    source = tmp_path / "main.cpp"
    source.write_text('#include "one.h"\n#include "two.h"\nint main() { return one.peak == two.peak ? 0 : 1; }\n')
    program = tmp_path / "main"
    subprocess.run(["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program)], check=True)
    assert subprocess.run([program]).returncode == 0


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_real_model_in_c(tmp_path: Path) -> None:
    path = ZOO / "darts_v1_cifar.onnx"
    plan = compile(path, Accelerator(scratchpad="300KiB"), strategy="e2")
    program = _compiled(plan, tmp_path, ["gcc", "-std=c99"])
    counted = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()[:4]
    traffic = plan.traffic
    assert [int(n) for n in counted] == [traffic.loaded, traffic.stored, traffic.streamed, plan.peak_bytes]


def cut_plan() -> Plan:
    """A plan with a tensor of two parts."""
    root = Tensor("h", 2048, TensorKind.INTERMEDIATE, "int8", (2, 1024))
    boxes = [Region("h", [i, 0], [i + 1, 1024]) for i in (0, 1)]
    parts = [Tensor(b.label((2, 1024)), 1024, "intermediate", "int8", (1, 1024), region=b) for b in boxes]
    ends = [Tensor("x", 2048, TensorKind.INPUT), Tensor("y", 1024, TensorKind.OUTPUT)]
    operators = [
        Operator("exp", "Exp", ("x",), ("h[0, :]", "h[1, :]")),
        Operator("pick", "Gather", ("h[1, :]",), ("y",), reads=[Region("h", [1, 0], [2, 1024])]),
    ]
    return compile(Graph([*ends, *parts], operators, "cut", [root]), Accelerator(scratchpad=8192), effort=0.2)


def test_parts_are_exported_or_refused(tmp_path: Path) -> None:
    plan = cut_plan()
    header = c_header(plan)
    assert '{2u, "h", 0u, 2u}' in header
    assert "1u,\n  0u,\n  2u,\n  1024u,\n  2u,\n  1024u\n" in header  # the last two are the shape of the root
    if shutil.which("gcc") is not None:
        subprocess.run([_compiled(plan, tmp_path, ["gcc", "-std=c99"])], check=True, capture_output=True)
    row = next(row for row in csv.DictReader(io.StringIO(stays_csv(plan))) if row["tensor"] == "h[1, :]")
    assert (row["root"], row["region_start"], row["region_stop"]) == ("h", "1 0", "2 1024")
    assert "root" not in stays_csv(compile(net(), Accelerator(scratchpad=65536), effort=0.2)).splitlines()[0]
    with pytest.raises(InputError, match="'h' is cut into 2 parts"):
        tflm_metadata(plan)


def tiled_plan() -> Plan:
    """A pooling over 6 rows in windows of 3, cut into tiles of 4 and 2 rows; padded by one row at either end."""

    def part(root: str, first: int, last: int) -> Tensor:
        box = Region(root, (0, first), (4, last))
        return Tensor(box.label((4, 6)), 4 * (last - first), "intermediate", "int8", (4, last - first), region=box)

    roots = [Tensor("a", 24, "intermediate", "int8", (4, 6)), Tensor("b", 24, "intermediate", "int8", (4, 6))]
    a = [part("a", *rows) for rows in ((0, 3), (3, 5), (5, 6))]
    b = [part("b", *rows) for rows in ((0, 4), (4, 6))]
    read, made = [tensor.name for tensor in a], [tensor.name for tensor in b]
    operators = [
        Operator("exp", "Exp", ("x",), read),
        Operator("pool0", "MaxPool", read[:2], made[:1], tile=Region("pool", (0, 0), (4, 4))),
        Operator("pool1", "MaxPool", read, made[1:], tile=Region("pool", (0, 4), (4, 6))),
        Operator("end", "Concat", made, ("y",)),
    ]
    ends = [Tensor("x", 24, TensorKind.INPUT), Tensor("y", 24, TensorKind.OUTPUT)]
    return compile(Graph([*ends, *a, *b], operators, "tiled", roots), Accelerator(scratchpad=512), effort=0.2)


#: A driver that works out pads of a pooling in windows of 3 and strides of rows, from the header alone.
DRIVER = r"""
#include <stdio.h>
#include "plan.h"
int main(void) {
  const cosma_plan *p = &cosma_plan_data;
  for (uint32_t i = 0; i < p->tile_count; i++) {
    const cosma_tile *t = &p->tiles[i];
    const uint64_t *box = p->bounds + t->first;
    long low = (long)box[t->rank - 1] - 1, high = (long)box[2 * t->rank - 1] - 1 - 1 + 2 + 1;
    long rows = (long)p->bounds[p->roots[0].first + p->roots[0].rank - 1];
    printf("%s of %s pads %ld %ld\n", p->operators[t->operator_index].name, t->of, low < 0 ? -low : 0,
           high > rows ? high - rows : 0);
  }
  for (uint32_t i = 0; i < p->root_count; i++)
    printf("%s stride %lu\n", p->roots[i].name, (unsigned long)p->bounds[p->roots[i].first + 1]);
  return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_a_driver_has_strides_and_pads_of_tiles(tmp_path: Path) -> None:
    (tmp_path / "plan.h").write_text(c_header(tiled_plan()))
    (tmp_path / "driver.c").write_text(DRIVER)
    program = tmp_path / "driver"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["gcc", *strict, str(tmp_path / "driver.c"), "-o", str(program)], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [
        "pool0 of pool pads 1 0", "pool1 of pool pads 0 1", "a stride 6", "b stride 6",
    ]  # fmt: skip


def test_a_visitor_meets_tiles_and_parts() -> None:
    seen = {}

    class Boxes(cosma.PlanVisitor):
        def execute(self, operator: Operator, operands: tuple[Place, ...], results: tuple[Place, ...]) -> None:
            boxes = [place.tensor.region and place.tensor.region.slices[1] for place in operands]
            seen[operator.name] = (operator.tile and operator.tile.slices[1], boxes)

    cosma.visit(tiled_plan(), Boxes())
    assert seen["pool0"] == (slice(0, 4), [slice(0, 3), slice(3, 5)])
    assert seen["pool1"] == (slice(4, 6), [slice(0, 3), slice(3, 5), slice(5, 6)])
    assert seen["exp"] == (None, [None])


def test_header_names(plan: Plan) -> None:
    assert c_header(plan) == c_header(plan)
    with pytest.raises(InputError, match="identifier"):
        c_header(plan, "2 plans")


# -- TensorFlow Lite Micro --------------------------------------------------------------------------------


def chain() -> Graph:
    names = ["x", "a", "b", "c", "y"]
    kinds = [TensorKind.INPUT, *[TensorKind.INTERMEDIATE] * 3, TensorKind.OUTPUT]
    tensors = [Tensor(name, 1000, kind) for name, kind in zip(names, kinds, strict=True)]
    tensors.append(Tensor("w", 100, TensorKind.WEIGHT))
    operators = [Operator(f"o{i}", "Conv", (names[i],), (names[i + 1],), ("w",) if i == 0 else ()) for i in range(4)]
    return Graph(tensors, operators, "chain")


def _tflm_plan(**mode: object) -> Plan:
    settings = {"scratchpad": "8KiB", "operands": "resident", "alignment": 16, "in_place": False, **mode}
    return compile(chain(), Accelerator(**settings), strategy="given+belady+first-fit")


def test_tflm_layout() -> None:
    # a and b would take turns with x and y in a tighter plan; this one has room.
    plan = _tflm_plan()
    plan = replace(
        plan,
        instructions=tuple(
            replace(i, address={"x": 0, "a": 1008, "b": 2016, "c": 1008, "y": 3024}[i.tensor])
            if hasattr(i, "address")
            else i
            for i in plan.instructions
        ),
    )
    plan = replace(plan, peak_bytes=cosma.replay(plan).peak_bytes)
    assert cosma.replay(plan).valid
    raw = tflm_metadata(plan, ["w", "x", "a", "unknown", "b", "c", "y"])
    values = struct.unpack(f"<{len(raw) // 4}i", raw)
    assert values == (1, 0, 7, -1, 0, 1008, -1, 2016, 1008, 3024)
    assert struct.unpack("<3i", tflm_metadata(plan, subgraph=2)[:12]) == (1, 2, 5)
    with pytest.raises(InputError, match="lacks 1 activations"):
        tflm_metadata(plan, ["x", "a", "b", "c"])


def test_tflm_runs_the_order_of_the_file() -> None:
    # Breadth first in the file, depth first in the plan: four wide results are alive together in the one alone.
    branches = range(4)
    graph = Graph(
        [Tensor("x", 64, TensorKind.INPUT), *(Tensor(f"a{i}", 512) for i in branches),
         *(Tensor(f"b{i}", 64) for i in branches), Tensor("y", 64, TensorKind.OUTPUT)],
        [*(Operator(f"wide{i}", "Conv", ("x",), (f"a{i}",)) for i in branches),
         *(Operator(f"narrow{i}", "Conv", (f"a{i}",), (f"b{i}",)) for i in branches),
         Operator("sum", "Sum", tuple(f"b{i}" for i in branches), ("y",))],
        "branches",
    )  # fmt: skip
    accelerator = Accelerator(scratchpad=1024, operands="resident", alignment=16, in_place=False)
    plan = compile(graph, accelerator, effort=0.1)
    assert plan.traffic.noncompulsory == 0
    with pytest.raises(InputError, match="overlap in the order in which the file's operators run"):
        tflm_metadata(plan)
    assert len(tflm_metadata(plan, reordered=True)) == 4 * (3 + 10)
    wide = compile(graph, accelerator.replace(scratchpad=4096), strategy="given+belady+first-fit")
    assert tflm_metadata(wide) == tflm_metadata(wide, reordered=True)


def test_tflm_refuses_what_it_cannot_do() -> None:
    late = Graph(
        [*(Tensor(n, 1000, TensorKind.INPUT) for n in "xz"), Tensor("a", 1000), Tensor("b", 1000),
         Tensor("y", 1000, TensorKind.OUTPUT)],
        [Operator("o", "Conv", ("x",), ("a",)), Operator("p", "Conv", ("a",), ("b",)),
         Operator("q", "Concat", ("b", "z"), ("y",))],
    )  # fmt: skip
    plan = compile(late, Accelerator(scratchpad="3024", operands="resident", alignment=16), strategy="e2")
    assert plan.traffic.noncompulsory == 0
    with pytest.raises(InputError, match="keeps inputs from the start"):
        tflm_metadata(plan)
    with pytest.raises(InputError, match="streamed"):
        tflm_metadata(_tflm_plan(scratchpad="1024", operands="streamable"))
    relu = Graph(
        [Tensor("x", 64, TensorKind.INPUT), Tensor("a", 64), Tensor("y", 64, TensorKind.OUTPUT)],
        [Operator("o", "Conv", ("x",), ("a",)), Operator("r", "Relu", ("a",), ("y",))],
    )
    with pytest.raises(InputError, match="without in-place results"):
        tflm_metadata(compile(relu, Accelerator(scratchpad="4KiB", operands="resident"), strategy="e2"))
    spilling = compile(net(), Accelerator(scratchpad="10KiB", operands="resident", in_place=False), strategy="e2")
    assert spilling.traffic.noncompulsory > 700
    with pytest.raises(InputError, match="spilled and loaded again"):
        tflm_metadata(spilling)


# -- CSV and visitors -------------------------------------------------------------------------------------


def test_csv(plan: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(instructions_csv(plan))))
    assert [row["do"] for row in rows] == [i.do for i in plan.instructions]
    assert sum(int(row["bytes"]) for row in rows if row["do"] == "load") == plan.traffic.loaded
    assert sum(int(row["bytes"]) for row in rows if row["do"] == "store") == plan.traffic.stored
    assert [row["name"] for row in rows if row["do"] == "execute"] == list(plan.schedule)
    stays = list(csv.DictReader(io.StringIO(stays_csv(plan))))
    assert len(stays) == sum(i.do in ("load", "allocate") for i in plan.instructions)
    top = plan.accelerator.capacity_bytes
    assert all(int(row["address"]) + int(row["space"]) <= top for row in stays)


class _Counter(cosma.PlanVisitor):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.moved = 0

    def begin(self, plan: Plan) -> None:
        self.calls.append("begin")

    def load(self, tensor: Tensor, address: int) -> None:
        self.calls.append("load")
        self.moved += tensor.size_bytes

    def allocate(self, tensor: Tensor, address: int, in_place_of: str | None) -> None:
        self.calls.append("allocate")

    def execute(self, operator: Operator, operands: tuple[object, ...], results: tuple[object, ...]) -> None:
        self.calls.append("execute")
        assert [place.tensor.name for place in operands] == list(operator.operands)
        self.moved += sum(p.tensor.size_bytes for p in (*operands, *results) if p.address is None)

    def store(self, tensor: Tensor, address: int) -> None:
        self.calls.append("store")
        self.moved += tensor.size_bytes

    def free(self, tensor: Tensor, address: int) -> None:
        self.calls.append("free")


def test_visitors_see_everything(plan: Plan) -> None:
    counter = _Counter()
    cosma.visit(plan, counter)
    assert counter.calls == ["begin", *(i.do for i in plan.instructions)]
    assert counter.moved == plan.traffic.total
    cosma.visit(plan, cosma.PlanVisitor())
    first = next(i for i, x in enumerate(plan.instructions) if x.do in ("allocate", "load"))
    broken = replace(plan, instructions=plan.instructions[:first] + plan.instructions[first + 1 :])
    with pytest.raises(PlanInvalidError, match="not in the scratchpad"):
        cosma.visit(broken, _Counter())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.export import export

    plan = compile(net(), Accelerator(scratchpad="16KiB", operands="resident"), strategy="e2")
    cosma.save_plan(plan, tmp_path / "plan.json")
    nothing = {"output": None, "stays": None, "tensors": None}
    rest = {"name": "n", "subgraph": 0, "force": False}
    export(tmp_path / "plan.json", **{**nothing, "output": [tmp_path / "p.h", tmp_path / "p.csv"]}, **rest)
    assert "static const cosma_plan n" in (tmp_path / "p.h").read_text()
    with pytest.raises(InputError, match="nothing to write"):
        export(tmp_path / "plan.json", **nothing, **rest)
    with pytest.raises(InputError, match="without in-place results"):
        export(tmp_path / "plan.json", **{**nothing, "output": [tmp_path / "none.h", tmp_path / "t.bin"]}, **rest)
    assert not (tmp_path / "none.h").exists()
    broken = replace(plan, instructions=plan.instructions[1:])
    cosma.save_plan(broken, tmp_path / "broken.json")
    with pytest.raises(PlanInvalidError, match="not exported"):
        export(tmp_path / "broken.json", **{**nothing, "output": [tmp_path / "x.csv"]}, **rest)
    assert capsys.readouterr().out == ""
