"""Small quantised networks, node by node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cosma import Accelerator
from tests.onnx_files import save_network

#: Above every capacity needed, so that only what must be moved is moved.
AMPLE = Accelerator(scratchpad="4MiB")
SHAPE = (1, 8, 8, 8)


class Net:
    """A network in the making: nodes, and constants that carry their content."""

    def __init__(self, dtype: str = "int8", opset: int = 21) -> None:
        self.dtype, self.opset = dtype, opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.quantised_type = getattr(TensorProto, dtype.upper())
        self.constant("sc", np.array(0.05, np.float32))
        self.constants["zp"] = helper.make_tensor("zp", self.quantised_type, (), [0])

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, shape: tuple[int, ...], *, channels: bool = False) -> str:
        """A dequantised int8 weight, by tensor or by channel."""
        rng = np.random.default_rng(len(name))
        self.constant(f"{name}_q", rng.integers(-9, 9, shape, dtype=np.int8))
        count = (shape[0],) if channels else ()
        self.constant(f"{name}_s", np.full(count, 0.02, np.float32))
        self.constant(f"{name}_z", np.zeros(count, np.int8))
        self.add("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], name, axis=0)
        return name

    def add(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]

    def dq(self, name: str) -> str:
        return self.add("DequantizeLinear", [name, "sc", "zp"], f"{name}_f")

    def q(self, name: str, result: str) -> str:
        return self.add("QuantizeLinear", [name, "sc", "zp"], result)

    def save(
        self, path: Path, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]], *,
        types: dict[str, int] | None = None,
    ) -> Path:  # fmt: skip
        def stated(named: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, tuple[int, ...]]]:
            return {name: ((types or {}).get(name, self.quantised_type), shape) for name, shape in named.items()}

        weights = list(self.constants.values())
        return save_network(path, self.nodes, stated(inputs), weights, stated(outputs), opset=self.opset, ir_version=10)
