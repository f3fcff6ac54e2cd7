"""Tiles carried out by C that a visitor writes, and steps of sums in a header: boxes and shapes say all."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import cosma
from cosma.export import c_header
from cosma.export.visitor import Place
from cosma.graph import Operator, Tensor
from cosma.rewrite.tiling import Tiling
from tests.execute.networks import Maker
from tests.onnx_files import save_network

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")

Box = Sequence[tuple[int, int]]

#: Windows by type: how far they step and reach, rows and columns of padding before, and what is padded with.
WINDOWS = {"Conv": (2, 3, 1, 0.0), "MaxPool": (1, 3, 1, -1e30)}

#: Copies what two boxes of one tensor share; windows of one box, of which the first element stands at the box's start.
KERNELS = r"""
#include <stdio.h>
#include <string.h>
static unsigned char S[SCRATCHPAD];
static float A[1 << 16], W[1 << 16], Y[1 << 16];
#define ALONG(b, axis, rest, at) ((rest) * ((b)[2 * axis + 1] - (b)[2 * axis]) + (at) - (b)[2 * axis])
#define AT(b, i, j, k, l) ALONG(b, 3, ALONG(b, 2, ALONG(b, 1, (i) - (b)[0], j), k), l)
static void move(float *to, const long *t, const float *from, const long *f) {
  for (long i = f[0]; i < f[1]; i++) for (long j = f[2]; j < f[3]; j++)
    for (long k = f[4]; k < f[5]; k++) for (long l = f[6]; l < f[7]; l++)
      if (i >= t[0] && i < t[1] && j >= t[2] && j < t[3] && k >= t[4] && k < t[5] && l >= t[6] && l < t[7])
        to[AT(t, i, j, k, l)] = from[AT(f, i, j, k, l)];
}
static void fill(float *to, long count, float with) { while (count--) *to++ = with; }
static void windows(const long *y, const long *a, const long *w, long step, long reach) {
  for (long i = y[0]; i < y[1]; i++) for (long j = y[2]; j < y[3]; j++)
    for (long k = y[4]; k < y[5]; k++) for (long l = y[6]; l < y[7]; l++) {
      float found = w ? 0 : -1e30f;
      for (long c = w ? 0 : j; c < (w ? w[3] : j + 1); c++)
        for (long r = 0; r < reach; r++) for (long s = 0; s < reach; s++) {
          const float x = A[AT(a, i, c, a[4] + (k - y[4]) * step + r, a[6] + (l - y[6]) * step + s)];
          if (w) found += x * W[AT(w, j, c, r, s)];
          else if (x > found) found = x;
        }
      Y[AT(y, i, j, k, l)] = found;
    }
}
"""


class Writer(cosma.PlanVisitor):
    """Writes a C program that carries a plan of rank-four tensors out, with every box as numbers."""

    def __init__(self, given: dict[str, np.ndarray]) -> None:
        self.given, self.declared, self.lines = given, list[str](), list[str]()
        self.known = dict[str, str]()

    def outside(self, tensor: Tensor) -> str:
        """The name of a tensor's own array off-chip, which holds its box alone."""
        if tensor.name not in self.known:
            self.known[tensor.name] = name = f"o{len(self.known)}"
            root = tensor.region.root if tensor.region else tensor.name
            data = "0"
            if root in self.given:
                value = self.given[root][tensor.region.slices if tensor.region else ...]
                data = ",".join(f"{v:.1f}f" for v in value.flatten())
            self.declared.append(f"static float {name}[{tensor.size_bytes // 4}] = {{{data}}};")
        return self.known[tensor.name]

    def load(self, tensor: Tensor, address: int) -> None:
        self.lines.append(f"memcpy(S + {address}, {self.outside(tensor)}, {tensor.size_bytes});")

    def store(self, tensor: Tensor, address: int) -> None:
        self.lines.append(f"memcpy({self.outside(tensor)}, S + {address}, {tensor.size_bytes});")

    def execute(self, operator: Operator, operands: tuple[Place, ...], results: tuple[Place, ...]) -> None:
        box = operator.tile.box if operator.tile else _box(results[0].tensor)
        step, reach, pad, padded = WINDOWS.get(operator.type, (1, 1, 0, 0.0))
        rows, columns = ((a * step - pad, (b - 1) * step - pad + reach) for a, b in box[2:])
        depth = box[1] if operator.type != "Conv" else (0, CHANNELS[operator.weights[0].split("[")[0]])
        read = [box[0], depth, rows, columns]
        weights = [place for place in operands if place.tensor.name in operator.weights]
        held = [box[1], depth, (0, reach), (0, reach)]
        first = _root(operands[0].tensor)
        self.lines.append(f"fill(A, {prod(b - a for a, b in read)}, {padded}f);")
        for place in operands:
            own = place in weights
            to, area = (held, "W") if own else (read, "A") if _root(place.tensor) == first else (box, "W")
            self.lines.append(f"move({area}, {_c(to)}, (float *)(S + {place.address}), {_c(_box(place.tensor))});")
        count = prod(b - a for a, b in box)
        if operator.type == "Relu":
            self.lines.append(f"for (long i = 0; i < {count}; i++) Y[i] = A[i] > 0 ? A[i] : 0;")
        elif operator.type == "Add":
            self.lines.append(f"for (long i = 0; i < {count}; i++) Y[i] = A[i] + W[i];")
        else:
            self.lines.append(f"windows({_c(box)}, {_c(read)}, {_c(held) if weights else '0'}, {step}, {reach});")
        for place in results:
            part = _c(_box(place.tensor))
            self.lines.append(f"move((float *)(S + {place.address}), {part}, Y, {_c(box)});")

    def end(self, plan: cosma.Plan) -> None:
        for tensor in plan.graph.tensors.values():
            if tensor.kind == "output":
                name = self.outside(tensor)
                self.lines.append(f"fwrite({name}, 1, {tensor.size_bytes}, stdout);")


def _root(tensor: Tensor) -> str:
    return tensor.region.root if tensor.region else tensor.name


def _box(tensor: Tensor) -> Box:
    assert tensor.shape is not None
    return tensor.region.box if tensor.region else [(0, size) for size in tensor.shape]


def _c(box: Box) -> str:
    return "(const long[]){" + ",".join(f"{a},{b}" for a, b in box) + "}"


#: Channels that each convolution's weights sum over.
CHANNELS = {"w1": 3, "w2": 8}


def network(path: Path) -> Path:
    """Two convolutions with strides, a pooling and a sum, on small whole numbers, which floats add exactly."""
    m = Maker()
    for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (6, 8, 3, 3))):
        m.constant(name, m.rng.integers(-2, 3, shape).astype(np.float32))
    m.add("Conv", ["x", "w1"], "c1", pads=[1] * 4, strides=[2, 2])
    m.add("Relu", ["c1"], "r1")
    m.add("MaxPool", ["r1"], "p1", kernel_shape=[3, 3], pads=[1] * 4)
    m.add("Add", ["p1", "r1"], "s1")
    m.add("Conv", ["s1", "w2"], "y", pads=[1] * 4, strides=[2, 2])
    return m.save(path, {"x": (1, 3, 25, 18)}, ["y"])


@pytest.mark.parametrize("rule", ["rows=3", "rows=2,channels=3", "stripes=5"])
def test_a_program_that_a_visitor_writes_computes_tiles(rule: str, tmp_path: Path) -> None:
    model = network(tmp_path / "net.onnx")
    file = onnx.load(model)
    x = np.random.default_rng(1).integers(-3, 4, (1, 3, 25, 18)).astype(np.float32)
    given = {"x": x} | {w.name: onnx.numpy_helper.to_array(w) for w in file.graph.initializer}
    machine = cosma.Accelerator(scratchpad="5KiB", weights="scratchpad", operands="resident")
    plan = cosma.compile(model, machine, tiling=rule, effort=0.1)
    assert sum(operator.tile is not None for operator in plan.graph.operators) > 15
    assert plan.traffic.noncompulsory > 0  # some parts leave and come back
    writer = Writer(given)
    cosma.visit(plan, writer)
    source = [f"#define SCRATCHPAD {plan.accelerator.scratchpad}", KERNELS, *writer.declared, "int main(void) {"]
    (tmp_path / "tiles.c").write_text("\n".join([*source, *writer.lines, "return 0; }"]))
    flags = ["-std=c99", "-O0", "-Wall", "-Werror", "-fsanitize=undefined,address"]
    subprocess.run(["gcc", *flags, str(tmp_path / "tiles.c"), "-o", str(tmp_path / "tiles")], check=True)
    said = subprocess.run([tmp_path / "tiles"], check=True, capture_output=True, env={"ASAN_OPTIONS": "detect_leaks=0"})
    (expected,) = ReferenceEvaluator(file).run(None, {"x": x})
    found, at = np.full(expected.shape, np.nan, np.float32), 0
    for tensor in plan.graph.tensors.values():
        if tensor.kind == "output":
            value = np.frombuffer(said.stdout, np.float32, tensor.size_bytes // 4, at)
            found[tensor.region.slices if tensor.region else ...] = value.reshape([b - a for a, b in _box(tensor)])
            at += tensor.size_bytes
    assert np.array_equal(found, expected)


#: A driver that says what steps of sums add up, and to what.
ADDING = r"""
#include <stdio.h>
#include "plan.h"
int main(void) {
  const cosma_plan *p = &cosma_plan_data;
  for (uint32_t i = 0; i < p->sum_count; i++) {
    const cosma_sum *s = &p->sums[i];
    const cosma_operator *o = &p->operators[s->operator_index];
    printf("%s = [%lu, %lu)", p->tensors[p->indices[o->outputs.first]].name, (unsigned long)s->start,
           (unsigned long)s->stop);
    for (uint32_t k = 0; k < s->sums.count; k++) printf(" + %s", p->tensors[p->indices[s->sums.first + k]].name);
    printf("\n");
  }
  return 0;
}
"""


def test_a_driver_knows_what_steps_of_sums_add_up(tmp_path: Path) -> None:
    product = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    path = save_network(tmp_path / "net.onnx", product, {"x": (4, 24)}, {"w": (24, 8)})
    tiling = Tiling({}, sums={"product": (10, 16)})
    plan = cosma.compile(path, cosma.Accelerator(scratchpad="4KiB", weights="scratchpad"), tiling=tiling, effort=0.0)
    steps = {o.outputs[0]: o.accumulation for o in plan.graph.operators}
    (tmp_path / "plan.h").write_text(c_header(plan))
    (tmp_path / "adding.c").write_text(ADDING)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["gcc", *strict, str(tmp_path / "adding.c"), "-o", str(tmp_path / "adding")], check=True)
    said = subprocess.run([tmp_path / "adding"], check=True, capture_output=True, text=True).stdout
    assert sorted((step.start, step.stop) for step in steps.values() if step) == [(0, 10), (10, 16), (16, 24)]
    assert said.splitlines() == [
        " + ".join([f"{name} = [{step.start}, {step.stop})", *step.sums]) for name, step in steps.items() if step
    ]
