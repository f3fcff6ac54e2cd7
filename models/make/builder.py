"""Write ONNX graphs without weights: every initializer is declared in a file that does not exist.

Planning needs names, types and shapes. A graph of a network with hundreds of megabytes of weights takes a few
hundred kilobytes here, and no framework has to be installed to make it.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper

OPSET = 20
IR_VERSION = 10


class Builder:
    """A convolutional network under construction; every tensor is ``[1, channels, height, width]`` float32.

    Each method adds the nodes of one layer and returns the name of its result. The same calls in the same order
    give the same file, byte for byte.

    Parameters
    ----------
    name
        Name of the graph; its weights are declared in ``<name>.weights``.
    size
        Height and width of the input image.
    channels
        Channels of the input image.
    """

    def __init__(self, name: str, size: int, channels: int = 3) -> None:
        self.name = name
        self.shapes: dict[str, tuple[int, ...]] = {"image": (1, channels, size, size)}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._offset = 0
        self._count: dict[str, int] = {}
        self._constants: set[str] = set()

    def __len__(self) -> int:
        """Nodes so far."""
        return len(self._nodes)

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Declare a float32 weight kept in the file that does not exist."""
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
        )
        length = 4 * prod(shape)
        for key, value in (("location", f"{self.name}.weights"), ("offset", self._offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self._offset += -(-length // 64) * 64
        self._initializers.append(tensor)
        return name

    def constant(self, name: str, values: list[int]) -> str:
        """Declare a small vector of integers with its content; one of that name is used again."""
        if name not in self._constants:
            self._constants.add(name)
            self._initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def node(self, kind: str, inputs: list[str], shape: tuple[int, ...], label: str, **attributes: object) -> str:
        """Add a node with one result of a given shape."""
        number = self._count.get(label, 0)
        self._count[label] = number + 1
        result = label if number == 0 else f"{label}_{number}"
        self._nodes.append(helper.make_node(kind, inputs, [result], name=f"{result}/{kind}", **attributes))
        self.shapes[result] = shape
        return result

    def conv(
        self, x: str, channels: int, kernel: int | tuple[int, int], label: str, *, stride: int | tuple[int, int] = 1,
        groups: int = 1, dilation: int = 1, bias: bool = True,
    ) -> str:  # fmt: skip
        """Convolution that keeps the size but for its stride; a batch normalisation behind it is its bias."""
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        down, right = (stride, stride) if isinstance(stride, int) else stride
        _, entering, height, width = self.shapes[x]
        pads = [dilation * (high - 1) // 2, dilation * (wide - 1) // 2]
        shape = (1, channels, _steps(height, pads[0], dilation * (high - 1) + 1, down),
                 _steps(width, pads[1], dilation * (wide - 1) + 1, right))  # fmt: skip
        number = self._count.get(label, 0)
        unique = label if number == 0 else f"{label}_{number}"
        inputs = [x, self.weight(f"{unique}.weight", (channels, entering // groups, high, wide))]
        if bias:
            inputs.append(self.weight(f"{unique}.bias", (channels,)))
        return self.node(
            "Conv", inputs, shape, label, kernel_shape=[high, wide], strides=[down, right], pads=pads * 2,
            group=groups, dilations=[dilation, dilation],
        )  # fmt: skip

    def relu(self, x: str, label: str = "relu") -> str:
        """Rectified linear unit."""
        return self.node("Relu", [x], self.shapes[x], label)

    def add(self, a: str, b: str, label: str = "add") -> str:
        """Sum of two tensors of one shape."""
        assert self.shapes[a] == self.shapes[b], (a, self.shapes[a], b, self.shapes[b])
        return self.node("Add", [a, b], self.shapes[a], label)

    def scale(self, x: str, label: str = "scale") -> str:
        """Product with one learned number."""
        number = self._count.get(label, 0)
        factor = self.weight(f"{label}_{number}.factor", ())
        return self.node("Mul", [x, factor], self.shapes[x], label)

    def concat(self, parts: list[str], label: str = "concat") -> str:
        """Join along the channels."""
        channels = sum(self.shapes[part][1] for part in parts)
        return self.node("Concat", parts, (1, channels, *self.shapes[parts[0]][2:]), label, axis=1)

    def pool(self, kind: str, x: str, label: str, *, kernel: int = 3, stride: int = 1) -> str:
        """``MaxPool`` or ``AveragePool`` that keeps the size but for its stride."""
        _, channels, height, width = self.shapes[x]
        pad = (kernel - 1) // 2
        shape = (1, channels, _steps(height, pad, kernel, stride), _steps(width, pad, kernel, stride))
        return self.node(kind, [x], shape, label, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def shifted(self, x: str, label: str) -> str:
        """All but the first row and column."""
        n, channels, height, width = self.shapes[x]
        parameters = [
            self.constant("shift.starts", [1, 1]),
            self.constant("shift.ends", [2**31 - 1] * 2),
            self.constant("shift.axes", [2, 3]),
        ]
        return self.node("Slice", [x, *parameters], (n, channels, height - 1, width - 1), label)

    def classify(self, x: str, classes: int) -> str:
        """Global average, flattened, and a fully connected layer."""
        channels = self.shapes[x][1]
        pooled = self.node("GlobalAveragePool", [x], (1, channels, 1, 1), "pooled")
        flat = self.node("Flatten", [pooled], (1, channels), "features", axis=1)
        weight = self.weight("classifier.weight", (classes, channels))
        bias = self.weight("classifier.bias", (classes,))
        return self.node("Gemm", [flat, weight, bias], (1, classes), "logits", transB=1)

    def save(self, output: str, path: Path) -> None:
        """Write the model, checked by ONNX's own shape inference against the shapes tracked here."""
        image, result = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name]) for name in ("image", output)
        )
        graph = helper.make_graph(self._nodes, self.name, [image], [result], self._initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cosma zoo"
        )
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        for value in typed.graph.value_info:
            found = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            assert found == self.shapes[value.name], (value.name, found, self.shapes[value.name])
        path.write_bytes(model.SerializeToString(deterministic=True))


def _steps(length: int, pad: int, reach: int, stride: int) -> int:
    """Results along one dimension."""
    return (length + 2 * pad - reach) // stride + 1
