"""One operator with operands to run: whole, and on slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from cosma.access import Site
from cosma.graph.tensor import Part
from tests.onnx_files import make_network, save_network, typed

Rng = np.random.Generator
Array = np.ndarray
OPSET = 17


@dataclass
class Case:
    """One operator with operand values; ``parameters`` are positions of constants that are parameters."""

    type: str
    operands: list[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[int, ...] = ()
    results: int = 1
    #: Positions of results that are not asked for.
    absent: tuple[int, ...] = ()
    opset: int = OPSET
    domain: str = ""
    #: Whether ONNX's reference evaluator runs it: ONNX Runtime has no kernel.
    by_reference: bool = False

    def outputs(self) -> list[str]:
        return ["" if k in self.absent else f"o{k}" for k in range(self.results)]

    def run(self, operands: list[Array | None], attributes: dict[str, Any] | None = None) -> list[Array]:
        if self.opset > onnx.defs.onnx_opset_version():
            pytest.skip(f"ONNX {onnx.__version__} does not know opset {self.opset}")
        given = self.attributes if attributes is None else attributes
        given = {key: value for key, value in given.items() if value is not None}
        names = ["" if o is None else f"i{k}" for k, o in enumerate(operands)]
        outputs = [name for name in self.outputs() if name]
        node = helper.make_node(self.type, names, self.outputs(), domain=self.domain, **given)
        feeds = {n: o for n, o in zip(names, operands, strict=True) if o is not None}
        model = make_network([node], {n: typed(o) for n, o in feeds.items()}, (), outputs, opset=self.opset)
        if self.by_reference:
            from onnx.reference import ReferenceEvaluator

            return [np.asarray(found) for found in ReferenceEvaluator(model).run(outputs, feeds)]
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)

    def save(self, path: Path, *, constant: bool) -> None:
        """Save the operator as a model; operands but the first are constants, or only those that must be."""
        names = ["" if o is None else f"i{k}" for k, o in enumerate(self.operands)]
        given = {key: value for key, value in self.attributes.items() if value is not None}
        node = helper.make_node(self.type, names, self.outputs(), domain=self.domain, **given)
        there = [(name, k, o) for k, (name, o) in enumerate(zip(names, self.operands, strict=True)) if o is not None]
        made = zip([name for name in self.outputs() if name], self.run(self.operands), strict=True)
        fixed = [k > 0 and (constant or k in self.parameters) for k in range(len(names))]
        inputs = {name: typed(o) for name, k, o in there if not fixed[k]}
        weights = {name: o for name, k, o in there if fixed[k]}
        save_network(path, [node], inputs, weights, {name: typed(o) for name, o in made}, opset=self.opset)

    def result_shapes(self, results: Sequence[Array]) -> tuple[tuple[int, ...] | None, ...]:
        there = iter(results)
        return tuple(None if k in self.absent else next(there).shape for k in range(self.results))

    def site(self, results: list[Array]) -> Site:
        contents = {
            i: tuple(self.operands[i].reshape(-1).tolist()) for i in self.parameters if self.operands[i] is not None
        }
        return Site(
            Part(self.type, self.domain, tuple(sorted(self.attributes.items()))),
            tuple(None if o is None else o.shape for o in self.operands),
            self.result_shapes(results),
            contents,
            self.opset,
        )


def values(rng: Rng, *shape: int) -> Array:
    return np.asarray(rng.standard_normal(shape), dtype=np.float32)


def bytes_of(rng: Rng, *shape: int, signed: bool = True) -> Array:
    return rng.integers(-99, 99, shape).astype(np.int8) if signed else rng.integers(0, 200, shape).astype(np.uint8)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


def integer(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def pick(rng: Rng, *options: Any) -> Any:
    return options[integer(rng, 0, len(options) - 1)]


def some_scales(rng: Rng, count: int) -> Array:
    return (rng.random(count) * 0.1 + 0.01).astype(np.float32)
