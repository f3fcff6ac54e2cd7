"""Small TensorFlow Lite models, written by the schema that ships with the tflite-micro package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Writer:
    """Gathers tensors and operators of one subgraph, and packs them."""

    def __init__(self) -> None:
        from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

        self.schema: Any = schema
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "made for a test"
        self.model.buffers, self.model.operatorCodes, self.model.metadata = [schema.BufferT()], [], []
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = "main", [], []
        self.model.subgraphs = [self.graph]
        self._codes: dict[int, int] = {}

    def tensor(self, name: str, shape: Sequence[int], data: Any = None) -> int:
        """Add a float32 tensor, a constant where data is given, or int32 where the data is."""
        schema = self.schema
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = schema.TensorType.FLOAT32
        if data is not None:
            array = np.ascontiguousarray(data)
            if array.dtype == np.int32:
                tensor.type = schema.TensorType.INT32
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(array.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """Add an operator of a built-in kind."""
        schema = self.schema
        code = getattr(schema.BuiltinOperator, kind)
        if code not in self._codes:
            record = schema.OperatorCodeT()
            record.builtinCode, record.deprecatedBuiltinCode, record.version = code, min(code, 127), 1
            self.model.operatorCodes.append(record)
            self._codes[code] = len(self.model.operatorCodes) - 1
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self._codes[code], list(inputs), list(outputs)
        if options is not None:
            name = type(options).__name__[:-1]
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = options
        self.graph.operators.append(operator)

    def pack(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Write the file."""
        import flatbuffers

        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def conv(self, name: str, data: int, shape: Sequence[int], channels: int, rng: np.random.Generator) -> int:
        """Add a 3x3 convolution with ReLU of the same height and width."""
        schema = self.schema
        weight = self.tensor(f"{name}.w", [channels, 3, 3, shape[-1]],
                             rng.normal(0, 0.2, (channels, 3, 3, shape[-1])).astype(np.float32))  # fmt: skip
        bias = self.tensor(f"{name}.b", [channels], rng.normal(0, 0.2, channels).astype(np.float32))
        result = self.tensor(name, [*shape[:-1], channels])
        options = schema.Conv2DOptionsT()
        options.padding, options.strideW, options.strideH = schema.Padding.SAME, 1, 1
        options.dilationWFactor = options.dilationHFactor = 1
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        self.operator("CONV_2D", [data, weight, bias], [result], options)
        return result

    def add(self, name: str, one: int, other: int, shape: Sequence[int]) -> int:
        """Add two tensors."""
        result = self.tensor(name, shape)
        options = self.schema.AddOptionsT()
        options.fusedActivationFunction = self.schema.ActivationFunctionType.NONE
        self.operator("ADD", [one, other], [result], options)
        return result

    def join(self, name: str, parts: Sequence[int], shape: Sequence[int]) -> int:
        """Concatenate along the last axis."""
        result = self.tensor(name, shape)
        options = self.schema.ConcatenationOptionsT()
        options.axis, options.fusedActivationFunction = 3, self.schema.ActivationFunctionType.NONE
        self.operator("CONCATENATION", list(parts), [result], options)
        return result


def residual() -> bytes:
    """Three residual blocks."""
    writer, rng = Writer(), np.random.default_rng(1)
    shape = [1, 8, 8, 4]
    x = first = writer.tensor("x", shape)
    for i in range(3):
        inner = writer.conv(f"a{i}", x, shape, 8, rng)
        outer = writer.conv(f"b{i}", inner, [*shape[:-1], 8], 4, rng)
        x = writer.add(f"s{i}", x, outer, shape)
    return writer.pack([first], [x])


def dense() -> bytes:
    """A dense block: every layer reads all before it."""
    writer, rng = Writer(), np.random.default_rng(2)
    shape = [1, 8, 8, 4]
    first = writer.tensor("x", shape)
    parts, width = [first], 4
    for i in range(4):
        data = parts[0] if i == 0 else writer.join(f"c{i}", parts, [1, 8, 8, width])
        parts.append(writer.conv(f"d{i}", data, [1, 8, 8, width], 4, rng))
        width += 4
    return writer.pack([first], [writer.join("y", parts, [1, 8, 8, width])])


def branches() -> bytes:
    """Two deep branches written breadth first: another order needs less room."""
    writer, rng = Writer(), np.random.default_rng(3)
    shape = [1, 8, 8, 2]
    first = writer.tensor("x", shape)
    wide = [writer.conv(f"w{i}", first, shape, 16, rng) for i in range(4)]
    narrow = [writer.conv(f"n{i}", w, [1, 8, 8, 16], 2, rng) for i, w in enumerate(wide)]
    total = narrow[0]
    for i, one in enumerate(narrow[1:]):
        total = writer.add(f"t{i}", total, one, shape)
    return writer.pack([first], [total])


MODELS = {"residual": residual, "dense": dense, "branches": branches}
