"""A model to execute: its nodes in order, which of them each operator of a plan stands for, its constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError, ModelLoadError
from cosma.execute.values import numpy_dtype, random_array
from cosma.files import read_bytes
from cosma.frontend.attributes import draws_random
from cosma.frontend.loaded import NodeFate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cosma.execute.kernels import Kernels
    from cosma.frontend.loaded import LoadedModel
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value
    from cosma.plan import Plan

    Array = NDArray[Any]


@dataclass(slots=True)
class Model:
    """A model whose nodes can be run one by one.

    Attributes
    ----------
    loaded
        As the planner sees it.
    steps
        Every node that runs, in order, views included; folded ones are not among them.
    every_step
        All nodes, folded ones included.
    values
        Every value of the model by name.
    opsets, ir_version
        What its nodes mean.
    sha256
        Of the file.
    """

    loaded: LoadedModel
    steps: tuple[Step, ...]
    every_step: tuple[Step, ...]
    values: Mapping[str, Value]
    opsets: Mapping[str, int]
    ir_version: int
    sha256: str

    def is_parameter(self, value: Value) -> bool:
        """Whether a value is a constant that counts as part of its operator, not as a weight."""
        return value.constant and not value.is_computed and value.root not in self.loaded.graph.tensors

    def steps_of(self, plan: Plan) -> dict[str, tuple[Step, ...]]:
        """Nodes that each operator of a plan runs, in order; views run nothing.

        Raises
        ------
        InputError
            If the plan's operators do not cover every node that computes something exactly once.
        """
        computing = {s.node.first_output: s for s in self.steps if s.fate is NodeFate.OPERATOR}
        order = {name: i for i, name in enumerate(computing)}
        found: dict[str, tuple[Step, ...]] = {}
        claimed: dict[str, str] = {}
        for operator in plan.graph.operators:
            own = sorted((name for name in operator.covers if name in computing), key=order.__getitem__)
            if not own:
                raise InputError(
                    f"operator {operator.name!r} of the plan covers no node of this model that computes anything; "
                    "the plan was made for another model, or without its 'covers' lists"
                )
            for name in own:
                if name in claimed:
                    raise InputError(
                        f"node {name!r} is covered twice, by {claimed[name]!r} and {operator.name!r}; each node "
                        "of the model must be executed once"
                    )
                claimed[name] = operator.name
            found[operator.name] = tuple(computing[name] for name in own)
        missing = [name for name in computing if name not in claimed]
        if missing:
            raise InputError(
                f"the plan covers {len(claimed)} of the model's {len(computing)} computing nodes; the first missing "
                f"one yields {missing[0]!r}: was the plan made for this model and these --dim?"
            )
        return found


def read_model(path: Path, dims: Mapping[str, int]) -> Model:
    """Read a model with what weights it carries; see :class:`Model`.

    Raises
    ------
    ModelLoadError
        As :func:`cosma.frontend.load_onnx` does.
    """
    import hashlib

    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    from cosma.frontend.importer import walk_model

    data = read_bytes(path, "model")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelLoadError(f"model {path}: is not an ONNX protobuf file") from error
    sha256 = hashlib.sha256(data).hexdigest()
    loaded, walk = walk_model(proto, path, sha256, dims)
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    steps = tuple(step for step in walk.steps if step.fate in (NodeFate.OPERATOR, NodeFate.VIEW))
    _refuse_random(steps)
    values = dict(walk.values)
    for step in walk.steps:
        for value in step.results:
            values.setdefault(value.root, value)
    return Model(loaded, steps, tuple(walk.steps), values, opsets, proto.ir_version, sha256)


def _refuse_random(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.fate is NodeFate.OPERATOR and step.part is not None and draws_random(step.node, step.part):
            raise InputError(f"{step.node} draws random numbers, so two runs never agree; it cannot be replayed")


@dataclass(slots=True)
class Constants:
    """The constants of a model: read from its files where they are there, otherwise random.

    Attributes
    ----------
    model, kernels
        Whose constants, and what folds the computed ones.
    seed
        Of the random ones.
    invented
        Names of the constants that had no content.
    """

    model: Model
    kernels: Kernels
    seed: int
    invented: list[str] = field(default_factory=list)
    _known: dict[str, Array] = field(default_factory=dict)
    _below: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._below = index_bounds(self.model)

    def get(self, name: str) -> Array:
        """Content of a constant, of its own type and shape."""
        if name not in self._known:
            value = self.model.values[name]
            self._known[name] = self._make(value)
        return self._known[name]

    def _make(self, value: Value) -> Array:
        if value.array is not None:
            return np.ascontiguousarray(value.array).reshape(value.shape)
        if value.source is not None:
            node, operands, index = value.source
            feeds = {operand.name: self.get(operand.name) for operand in operands if operand is not None}
            return self.kernels.compute(node, feeds)[node.outputs[index]]
        dtype = numpy_dtype(value.element, value.name)
        if value.tensor is not None:
            content = self._read(value)
            if content is not None:
                return np.ascontiguousarray(content).astype(dtype, copy=False).reshape(value.shape)
        self.invented.append(value.name)
        below = self._below.get(value.name, 2)
        return random_array(value.name, dtype, value.shape, self.seed, below=below, weight=True)

    def _read(self, value: Value) -> Array | None:
        from onnx import TensorProto, external_data_helper, numpy_helper

        from cosma.frontend.evaluate import tensor_array

        tensor = value.tensor
        if tensor.data_location != TensorProto.EXTERNAL:
            return tensor_array(tensor)
        folder = self.model.loaded.path.parent if self.model.loaded.path is not None else Path()
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if not location or not (folder / location).is_file():
            return None
        whole = TensorProto()
        whole.CopyFrom(tensor)
        try:
            external_data_helper.load_external_data_for_tensor(whole, str(folder))
            return numpy_helper.to_array(whole)
        except (ValueError, OSError, TypeError) as error:
            raise ModelLoadError(f"weight {value.name!r}: {folder / location} does not hold it: {error}") from error


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
