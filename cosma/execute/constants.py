"""The constants of a model to execute: read where they are there, computed, or made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosma.execute.elements import numpy_dtype, random_array
from cosma.execute.model import parts_of
from cosma.frontend.external import external_array, external_file
from cosma.frontend.loaded import NodeFate
from cosma.frontend.parameters import type_only_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnx import TensorProto

    from cosma.arrays import Array
    from cosma.execute.kernels import Kernels
    from cosma.execute.model import Model
    from cosma.frontend.nodes import Node
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value


@dataclass(slots=True)
class Constants:
    """The constants of a model: read from its files where they are there, otherwise random."""

    #: Whose constants, and what folds the computed ones.
    model: Model
    kernels: Kernels
    #: Of the random ones.
    seed: int
    #: Names of the constants that had no content.
    invented: list[str] = field(default_factory=list)
    _contents: dict[tuple[object, ...], Array] = field(default_factory=dict)
    _known: dict[int, Array] = field(default_factory=dict)
    _made_by: dict[int, Step] = field(default_factory=dict)
    _below: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._below = index_bounds(self.model)
        for step in self.model.every_step:
            if step.fate is NodeFate.FOLDED:
                self._made_by.update((id(value), step) for value in parts_of(step.results))

    def get(self, value: Value) -> Array:
        """Content of a constant, of its own type and shape."""
        if id(value) not in self._known:
            self._known[id(value)] = self._make(value)
        return self._known[id(value)]

    def content_of(self, tensor: TensorProto, name: str) -> Array:
        """Content of an initializer: the file's, or what is made up for it where the file holds none.

        What is made up depends on the initializer and the seed alone, so that whoever reads the model gets the same.
        """
        from cosma.frontend.nodes import readable

        known = readable(tensor.name) or name
        key = (known, tensor.data_type, tuple(tensor.dims), str(tensor.external_data))
        if key in self._contents:
            return self._contents[key]
        found = self._read(tensor)
        if found is None:
            below = self._below.get(known, self._below.get(name, 2))
            dtype = numpy_dtype(tensor.data_type, name)
            found = random_array(known, dtype, tuple(tensor.dims), self.seed, below=below, weight=True)
        elif not tensor.external_data:
            return found
        return self._contents.setdefault(key, found)

    def _make(self, value: Value) -> Array:
        if value.array is not None:
            return np.ascontiguousarray(value.array).reshape(value.shape)
        if value.source is not None:
            return self.compute(*value.source, self.get)
        if value.tensor is not None:
            if not self.is_held(value.tensor):
                self.invented.append(value.name)
            dtype = numpy_dtype(value.element, value.name)
            return np.ascontiguousarray(self.content_of(value.tensor, value.name)).astype(dtype, copy=False)
        step = self._made_by[id(value)]
        feeds = {part.root: self.get(part) for part in parts_of(step.reads)}
        feeds |= {name: self.get(found) for name in step.node.reads if (found := self._tensor(name)) is not None}
        out = self.kernels.compute(step.node, parts_of(step.results), feeds)
        for part in parts_of(step.results):
            self._known[id(part)] = out[part.name if part.name in out else part.root]
        return self._known[id(value)]

    def _tensor(self, name: str) -> Value | None:
        value = self.model.values.get(name)
        return value if value is not None and value.elements is None else None

    def compute(
        self, node: Node, operands: Sequence[Value | None], index: int, content: Callable[[Value], Array]
    ) -> Array:
        """One result of a node of constants, by :attr:`Value.source`; what its subgraphs capture is constant too.

        ``content`` yields the content of an operand.
        """
        ignored = type_only_positions(node)
        feeds = {
            name: stand_in(operand) if i in ignored else content(operand)
            for i, (name, operand) in enumerate(zip(node.inputs, operands, strict=True))
            if operand is not None
        }
        captured = {node.renames.get(name, name) for name in node.captures}
        feeds |= {name: content(self.model.values[name]) for name in captured}
        results = [self.model.values[name] for name in node.outputs if name in self.model.values]
        return self.kernels.compute(node, results, feeds)[node.outputs[index]]

    def is_held(self, tensor: TensorProto) -> bool:
        """Whether the model's files hold an initializer's content."""
        from onnx import TensorProto

        if tensor.data_location == TensorProto.EXTERNAL:
            return self._file_of(tensor) is not None
        from cosma.frontend.evaluate import tensor_array

        return tensor_array(tensor) is not None

    def _file_of(self, tensor: TensorProto) -> Path | None:
        path = self.model.loaded.path
        if path is None or not any(entry.key == "location" for entry in tensor.external_data):
            return None
        file = external_file(tensor, path)
        return file if file.is_file() else None

    def _read(self, tensor: TensorProto) -> Array | None:
        from onnx import TensorProto

        from cosma.frontend.evaluate import tensor_array

        if tensor.data_location != TensorProto.EXTERNAL:
            return tensor_array(tensor)
        path = self.model.loaded.path
        return None if path is None or self._file_of(tensor) is None else external_array(tensor, path)


def stand_in(value: Value) -> Array:
    """An array of a value's type and shape, for a kernel that looks at no more than these."""
    return np.zeros(value.shape, numpy_dtype(value.element, value.name))


#: Operators whose integer results are among their integer operands.
_MOVERS = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
     "Transpose", "Unsqueeze", "Where"}
)  # fmt: skip


def index_bounds(model: Model) -> dict[str, int]:
    """Values below which integer tensors must lie because they index something, by name."""
    bounds: dict[str, int] = {}

    def demand(value: Value, below: int) -> None:
        for name in {value.name, value.root}:
            bounds[name] = min(bounds.get(name, below), below)

    for step in reversed(model.every_step):
        node = step.node
        values = [model.values.get(name) for name in node.inputs]
        data = values[0] if values else None
        indices = values[1] if len(values) > 1 else None
        if data is not None and indices is not None and data.shape:
            if node.type in ("Gather", "GatherElements"):
                demand(indices, data.shape[(node.integer("axis", 0) or 0) % len(data.shape)])
            elif node.type in ("GatherND", "ScatterND") and indices.shape:
                first = node.integer("batch_dims", 0) or 0
                demand(indices, min(data.shape[first : first + indices.shape[-1]], default=1))
        below = [bounds[name] for result in step.results for name in (result.name, result.root) if name in bounds]
        if below and node.type in _MOVERS:
            for value in values:
                if value is not None and value.elements is None:
                    demand(value, min(below))
    return bounds
