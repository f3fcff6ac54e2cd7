"""What ONNX nodes depend on of a tensor: found by running them on the positions of its elements.

Only nodes that move elements are run. Everything else depends on all of what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, NodeProto, TensorProto

    Array = np.ndarray[Any, Any]
    Bools = np.ndarray[Any, np.dtype[np.bool_]]

#: Operators whose results are elements of their first operand, each at most moved; the others are parameters.
_SELECT = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
_RESHAPE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
#: Operators whose readers may read their first operand instead: views, a Transpose that moves nothing, dequantising.
_HAND_ON = _RESHAPE | {"DequantizeLinear", "Transpose"}
#: Operators that may hand on their first operand as it is.
_SAME_SHAPE = frozenset({"Cast", "CastLike", "Dropout"})
#: Most elements of a tensor whose positions are written down.
MOST_ELEMENTS = 1 << 26
#: What a reference operator may raise.
_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError)


@dataclass(slots=True, eq=False)
class Needs:
    """A model whose nodes can be asked what they depend on.

    Attributes
    ----------
    model
        The file's message.
    shapes
        Shape of every tensor that is no view, as far as known.
    """

    model: ModelProto
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _makers: dict[str, NodeProto] = field(default_factory=dict)
    _readers: dict[str, list[NodeProto]] = field(default_factory=dict)
    _constants: dict[str, Array | None] = field(default_factory=dict)
    _positions: tuple[tuple[int, ...], Array] | None = None
    #: Stored constants: initializers, and tensors of Constant nodes.
    initializers: dict[str, TensorProto] = field(default_factory=dict)
    _found_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _moved: dict[str, Array | None] = field(default_factory=dict)
    _constant_names: set[str] = field(default_factory=set)
    _inferred: dict[str, tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        self.initializers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        for node in self.model.graph.node:
            # The tensor of a Constant may lie in another file, as that of an initializer.
            if node.op_type == "Constant" and not node.domain:
                self.initializers.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        self._constant_names = set(self.initializers)
        for node in self.model.graph.node:
            self._makers.update((name, node) for name in node.output if name)
            if node.op_type in ("Shape", "Size") or all(n in self._constant_names or not n for n in node.input):
                self._constant_names.update(node.output)
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    @classmethod
    def of_file(cls, path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Needs | None:
        """Read a model; None where it is no ONNX file, or has local functions that cannot be put in place."""
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        from cosma.errors import ModelLoadError
        from cosma.frontend.functions import inline_functions

        try:
            model = onnx.load(str(path), load_external_data=False)
        except (OSError, DecodeError):
            return None
        try:
            return cls(inline_functions(model), shapes or {})
        except ModelLoadError:
            return None

    def of(self, root: str, shape: tuple[int, ...], covers: Iterable[str]) -> Bools | None:
        """Elements of a tensor that some nodes depend on; None where the nodes cannot be asked.

        ``covers`` are the first results of the nodes that make up an operator.
        """
        count = int(np.prod(shape, dtype=np.int64))
        own = set(covers)
        if count > MOST_ELEMENTS or root not in self._readers:
            return None
        needed = np.zeros(count, dtype=np.bool_)
        if self._positions is None or self._positions[0] != shape:
            self._positions = shape, np.arange(count, dtype=np.int64).reshape(shape)
        views = [(root, self._positions[1])]
        seen = False
        while views:
            name, positions = views.pop()
            for node in self._readers.get(name, ()):
                inside = next((result for result in node.output if result), "") in own
                if not node.domain and node.op_type in _HAND_ON and name == node.input[0]:
                    moved = positions if node.op_type == "DequantizeLinear" else self._run(node, positions)
                    if moved is None:
                        return None
                    if inside or np.array_equal(moved.reshape(-1), positions.reshape(-1)):
                        views.append((node.output[0], moved))
                elif not inside:
                    continue
                elif not node.domain and node.op_type in _SELECT and list(node.input).count(name) == 1 and (
                    name == node.input[0]
                ):  # fmt: skip
                    seen = True
                    found = self._run(node, positions)
                    if found is None:
                        return None
                    needed[found.reshape(-1)] = True
                else:
                    return np.ones(shape, dtype=np.bool_)
        return needed.reshape(shape) if seen else None

    def _measured(self, node: NodeProto, shape: tuple[int, ...]) -> Array | None:
        """Result of Shape or Size, which look at no content."""
        found = self._evaluate(node, [np.broadcast_to(np.int8(0), shape)])
        return None if found is None else found[0]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value, views included; None where it is not known."""
        views: list[NodeProto] = []
        while name not in self.shapes and name not in self._found_shapes:
            maker = self.maker(name)
            if maker is None or not is_view(maker):
                found = self._other_shape(name)
                if found is None:
                    return None
                self._found_shapes[name] = found
                break
            views.append(maker)
            name = maker.input[0]
        shape = self.shapes.get(name, self._found_shapes.get(name))
        for view in reversed(views):
            assert shape is not None
            moved = self._run(view, np.broadcast_to(np.int8(0), shape))
            if moved is None:
                return None
            shape = self._found_shapes[view.output[0]] = tuple(moved.shape)
        return shape

    def _other_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of what is no tensor of the graph: a constant, or a result within a group of nodes."""
        if name in self.initializers:
            return tuple(self.initializers[name].dims)
        known = self.constant(name)
        if known is not None:
            return tuple(known.shape)
        # What the graph takes for a view besides: its result is no tensor, and its shape that of what it yields.
        maker = self._makers.get(name)
        if maker is not None and not maker.domain and maker.input:
            if maker.op_type == "Gather":  # of indices that are not in the file, too
                table, indices = self.shape(maker.input[0]), self.shape(maker.input[1])
                axis = next((a.i for a in maker.attribute if a.name == "axis"), 0)
                if table is None or indices is None:
                    return None
                return (*table[:axis], *indices, *table[axis % len(table) + 1 :])
            if maker.op_type in _SELECT or maker.op_type in ("Transpose", "Pad", "Expand", "Tile"):
                moved = self.moved(maker)
                return None if moved is None else tuple(moved.shape)
            if maker.op_type in _SAME_SHAPE:
                return self.shape(maker.input[0])
        if self._inferred is None:
            self._inferred = _inferred_shapes(self.model)
        return self._inferred.get(name)

    def maker(self, name: str) -> NodeProto | None:
        """The node that yields a value."""
        return self._makers.get(name)

    def leaves(self, name: str) -> set[str] | None:
        """What a constant is computed from, itself and everything between included; None if it is no constant."""
        if name not in self._constant_names:
            return None
        found: set[str] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one in found or not one:
                continue
            found.add(one)
            maker = self._makers.get(one)
            if maker is not None and maker.op_type not in ("Shape", "Size"):
                waiting += maker.input
        return found

    def moved(self, node: NodeProto) -> Array | None:
        """Where each element of a node's first result comes from in its first operand; -1 for none of it."""
        key = node.output[0]
        if key not in self._moved:
            shape = self.shape(node.input[0])
            found = None
            if shape is not None and prod(shape) <= MOST_ELEMENTS:
                # Counted from one, so that the zeros that Pad adds are no element's place.
                positions = np.arange(1, prod(shape) + 1, dtype=np.int64).reshape(shape)
                found = self._run_pad(node, positions) if node.op_type == "Pad" else self._run(node, positions)
            # In row-major order in memory: many tiles look up places in it, and a transposed view is copied each time.
            self._moved[key] = None if found is None else np.subtract(found, 1, order="C")
        return self._moved[key]

    def constant(self, name: str) -> Array | None:
        """Content of a constant; None where it is computed from what is not in the file, or is no constant."""
        return self._constant(name) if name in self._constant_names else None

    def run(self, node: NodeProto, operands: Sequence[Array | None]) -> list[Array] | None:
        """Results of a node on arrays; None where it cannot be evaluated."""
        return self._evaluate(node, list(operands))

    def _run(self, node: NodeProto, positions: Array) -> Array | None:
        """First result of a node whose first operand holds positions and whose others are constants."""
        old = next((a.ints for a in node.attribute if a.name == "shape"), None)
        if node.op_type == "Reshape" and old is not None:  # before opset 5
            try:
                return positions.reshape([positions.shape[i] if size == 0 else size for i, size in enumerate(old)])
            except (IndexError, ValueError):
                return None
        operands: list[Array | None] = [positions]
        for name in node.input[1:]:
            operand = self._constant(name) if name else None
            if name and operand is None:
                return None
            operands.append(operand)
        results = self._evaluate(node, operands)
        return None if results is None else results[0]

    def _run_pad(self, node: NodeProto, positions: Array) -> Array | None:
        """Pad by zeros, whatever it pads by; what negative amounts cut off is gone before anything is added."""
        stated = {a.name: a for a in node.attribute}
        if "pads" in stated:
            amounts: Array | None = np.array(stated["pads"].ints)
        else:
            amounts = self._constant(node.input[1])
        axes = self._constant(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(positions.ndim)
        if amounts is None or axes is None or amounts.size != 2 * axes.size:
            return None
        pads = np.zeros((positions.ndim, 2), dtype=np.int64)
        pads[axes] = amounts.reshape(2, -1).T
        kept = tuple(slice(max(0, -a), max(0, n + min(0, b))) for n, (a, b) in zip(positions.shape, pads, strict=True))
        mode: Any = stated["mode"].s.decode() if "mode" in stated else "constant"
        try:
            return np.pad(positions[kept], np.maximum(pads, 0), mode=mode)
        except ValueError:  # nothing to reflect or repeat, or no such mode
            return None

    def _constant(self, name: str) -> Array | None:
        """Content of a constant; None where it is computed from what is not in the file."""
        from onnx import TensorProto, numpy_helper

        waiting = [name]
        known = self.initializers
        while waiting:
            top = waiting[-1]
            if top in self._constants:
                waiting.pop()
                continue
            tensor, maker = known.get(top), self._makers.get(top)
            if tensor is not None:
                external = tensor.data_location == TensorProto.EXTERNAL
                self._constants[top] = None if external else numpy_helper.to_array(tensor)
            elif maker is None or maker.domain or any(a.HasField("g") for a in maker.attribute):
                self._constants[top] = None
            elif maker.op_type in ("Shape", "Size"):
                shape = self.shape(maker.input[0])
                self._constants[top] = None if shape is None else self._measured(maker, shape)
            else:
                open_operands = [other for other in maker.input if other and other not in self._constants]
                if open_operands:
                    waiting.extend(open_operands)
                    continue
                operands = [self._constants[other] if other else None for other in maker.input]
                absent = any(other and self._constants[other] is None for other in maker.input)
                results = None if absent else self._evaluate(maker, operands)
                for i, result in enumerate(maker.output):
                    self._constants[result] = results[i] if results is not None and i < len(results) else None
        return self._constants[name]

    def _evaluate(self, node: NodeProto, operands: list[Array | None]) -> list[Array] | None:
        from onnx.reference.ops import load_op

        version = next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        parameters: dict[str, Any] = {
            "log": lambda *_: None, "verbose": 0, "opsets": {"": version}, "new_ops": None, "existing_functions": {},
        }  # fmt: skip
        if node.op_type.startswith(("Random", "Bernoulli", "Multinomial")):
            return None
        try:
            found = load_op("", node.op_type, version)(node, parameters).run(*operands)
        except _ERRORS:
            return None
        return [np.asarray(result) for result in found]


def is_view(node: NodeProto) -> bool:
    """Whether a node's result is its first operand in another shape."""
    return not node.domain and node.op_type in _RESHAPE


def _inferred_shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes as ONNX infers them, where every size is known."""
    from onnx import shape_inference

    try:
        found = shape_inference.infer_shapes(model).graph.value_info
    except _ERRORS:
        return {}
    shapes = {}
    for value in found:
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and None not in sizes:
            shapes[value.name] = tuple(size for size in sizes if size is not None)
    return shapes
