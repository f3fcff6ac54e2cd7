"""A model to execute: its nodes in order, and which of them each operator of a plan stands for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import gt
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.errors import InputError, ModelLoadError
from cosma.execute.elements import size_bytes, to_array
from cosma.files import read_bytes
from cosma.frontend.attributes import draws_random
from cosma.frontend.loaded import NodeFate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnx import ModelProto

    from cosma.arrays import Array, Bytes
    from cosma.frontend.loaded import LoadedModel
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value
    from cosma.frontend.walk import Walk
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A graph input."""

    #: Element type (ONNX's number) and shape.
    element: int
    shape: tuple[int, ...]
    #: Whether a live node or a graph output reads it.
    used: bool


@dataclass(slots=True)
class Model:
    """A model whose nodes can be run one by one."""

    #: As the planner sees it.
    loaded: LoadedModel
    #: Every graph input by name, those that nothing reads included.
    inputs: Mapping[str, ModelInput]
    #: Names of the graph outputs, each once.
    outputs: tuple[str, ...]
    #: Every node that runs, in order, views included; folded ones are not among them.
    steps: tuple[Step, ...]
    #: All nodes, folded ones included.
    every_step: tuple[Step, ...]
    #: Every value of the model by name, elements of sequences included.
    values: Mapping[str, Value]
    #: What its nodes mean.
    opsets: Mapping[str, int]
    ir_version: int
    #: The file as it is, and its hash.
    data: bytes
    sha256: str
    #: Constants of which operators read rows.
    row_tables: frozenset[str] = frozenset()
    #: Whether some results are planned for the most they can hold, which is more than they may hold in a run.
    is_bounded: bool = False
    #: Shapes in this run, by name of the value, where they are smaller than planned.
    actual: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _scaled_by: Mapping[str, Step] | None = None

    def is_parameter(self, value: Value) -> bool:
        """Whether a value is a constant that counts as part of its operator, not as a weight."""
        if value.root in self.row_tables:
            return False
        return value.constant and not value.is_computed and value.root not in self.loaded.finest_graph.tensors

    def shape_of(self, value: Value) -> tuple[int, ...]:
        """Shape that a value has in this run; the planned one unless it turned out smaller."""
        return self.actual.get(value.name, value.shape)

    def read(self, value: Value, data: Bytes) -> Array:
        """A value's array over the bytes of the tensor that holds it; see :func:`cosma.execute.elements.to_array`."""
        return to_array(self.bytes_of(value, data), value.element, self.shape_of(value), value.name)

    def bytes_of(self, value: Value, data: Bytes) -> Bytes:
        """What a value fills of the bytes planned for it."""
        return data[: size_bytes(value.element, self.actual[value.name])] if value.name in self.actual else data

    def settle_shape(self, value: Value, shape: tuple[int, ...]) -> bool:
        """Take the shape that a value turned out to have; False if the planned one does not hold it.

        Raises InputError if something that was computed in advance depends on it.
        """
        if shape == value.shape:
            return True
        if not self.is_bounded or len(shape) != len(value.shape) or any(map(gt, shape, value.shape)):
            return False
        for step in self.every_step:
            # A folded Shape lists no operands: its result does not depend on any content.
            if step.fate is NodeFate.FOLDED and step.node.type in ("Shape", "Size") and value.name in step.node.inputs:
                raise InputError(
                    f"{step.node} reads the shape of {value.name!r}, which has {list(shape)} with these inputs and is "
                    f"planned for at most {list(value.shape)}; the plan can only be executed where it has that"
                )
        self.actual[value.name] = shape
        return True

    def exceeds_bound(self, value: Value, shape: tuple[int, ...]) -> bool:
        """Whether a shape differs from the planned one only by more than the bounds that were given."""
        beyond = [axis for axis, (found, most) in enumerate(zip(shape, value.shape, strict=False)) if found > most]
        return (
            len(shape) == len(value.shape)
            and bool(beyond)
            and all(f"{value.name}.{axis}" in self.loaded.dims for axis in beyond)
        )

    @property
    def scaled_by(self) -> Mapping[str, Step]:
        """For each activation that a node de- or requantises, that node."""
        if self._scaled_by is None:
            self._scaled_by = {
                step.results[0].root: step
                for step in self.steps
                if step.fate is NodeFate.OPERATOR and step.node.type in ("DequantizeLinear", "QuantizeLinear")
            }
        return self._scaled_by

    def steps_of(self, plan: Plan) -> dict[str, tuple[Step, ...]]:
        """Nodes that each operator of a plan runs, in order; views run nothing.

        Raises InputError if the plan's operators do not cover every node that computes something exactly once. The
        tiles of one operator cover its nodes together.
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
            owner = operator.name if operator.tile is None else operator.tile.root
            for name in own:
                if claimed.setdefault(name, owner) != owner:
                    raise InputError(
                        f"node {name!r} is covered twice, by {claimed[name]!r} and {owner!r}; each node "
                        "of the model must be executed once"
                    )
            found[operator.name] = tuple(computing[name] for name in own)
        # What only moves elements, and is a join in the plan, runs as a part of nothing: the validator judges it.
        for join in plan.graph.joins.values():
            claimed.update((name, join.root) for name in join.covers if name in computing)
        missing = [name for name in computing if name not in claimed]
        if missing:
            raise InputError(
                f"the plan covers {len(claimed)} of the model's {len(computing)} computing nodes; the first missing "
                f"one yields {missing[0]!r}: was the plan made for this model?"
            )
        return found


def read_model(path: Path, dims: Mapping[str, int]) -> Model:
    """Read a model with what weights it carries; see :class:`Model`.

    Raises ModelLoadError as :func:`cosma.frontend.load_onnx` does.
    """
    import hashlib

    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    from cosma.frontend.importer import walk_model
    from cosma.frontend.nodes import readable

    data = read_bytes(path, "model")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelLoadError(f"model {path}: is not an ONNX protobuf file") from error
    sha256 = hashlib.sha256(data).hexdigest()
    loaded, walk = walk_model(proto, path, sha256, dims)
    every = tuple(
        # Only the graph as a whole says of which nodes no more than the shape is used.
        step if record.fate in (step.fate, NodeFate.FUSED) else replace(step, fate=record.fate)
        for step, record in zip(walk.steps, loaded.nodes, strict=False)
    )
    steps = tuple(step for step in every if step.fate in (NodeFate.OPERATOR, NodeFate.VIEW))
    _refuse_random(steps)
    values = dict(walk.values)
    for step in walk.steps:
        for value in parts_of(step.results):
            values.setdefault(value.root, value)
    inputs = _inputs(proto, walk, dims)
    outputs = tuple(dict.fromkeys(readable(value.name) for value in proto.graph.output))
    tables = [table for step in steps for table in step.tables]
    row_tables = frozenset({t.operand.root for t in tables} | {rows.table.root for t in tables for rows in t.rows})
    return Model(
        loaded, inputs, outputs, steps, every, values, walk.opsets, proto.ir_version, data, sha256, row_tables,
        is_bounded=bool(walk.types.bound or walk.types.assumed),
    )  # fmt: skip


def parts_of(values: Iterable[Value]) -> list[Value]:
    """The tensors that values consist of: themselves, or the elements of sequences."""
    return [part for value in values for part in (value.elements if value.elements is not None else (value,))]


def _inputs(proto: ModelProto, walk: Walk, dims: Mapping[str, int]) -> dict[str, ModelInput]:
    """Every graph input that is no initializer; an unbound dimension of an unused one is taken as 1."""
    from cosma.frontend.dims import Dimensions
    from cosma.frontend.nodes import readable

    used = {value.name: ModelInput(value.element, value.shape, True) for value in walk.inputs}
    weights = {readable(tensor.name) for tensor in proto.graph.initializer}
    found: dict[str, ModelInput] = {}
    for value in proto.graph.input:
        name = readable(value.name)
        if name in used:
            found[name] = used[name]
        elif name not in weights and value.type.HasField("tensor_type"):
            stated = Dimensions(dims).resolve(name, value.type, must=False)
            shape = tuple(1 if size is None else size for size in stated.shape or ())
            found[name] = ModelInput(stated.element, shape, False)
    return found


def _refuse_random(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.fate is NodeFate.OPERATOR and step.part is not None and draws_random(step.node, step.part):
            raise InputError(f"{step.node} draws random numbers, so two runs never agree; it cannot be replayed")
