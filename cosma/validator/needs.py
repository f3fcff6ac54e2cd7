"""What ONNX nodes depend on of a tensor: found by running them on the positions of its elements.

Only nodes that move elements are run. Everything else depends on all of what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    Array = np.ndarray[Any, Any]
    Bools = np.ndarray[Any, np.dtype[np.bool_]]

#: Operators whose results are elements of their first operand, each at most moved; the others are parameters.
_SELECT = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
_RESHAPE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
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
    """

    model: ModelProto
    _makers: dict[str, NodeProto] = field(default_factory=dict)
    _readers: dict[str, list[NodeProto]] = field(default_factory=dict)
    _constants: dict[str, Array | None] = field(default_factory=dict)
    _positions: tuple[tuple[int, ...], Array] | None = None

    def __post_init__(self) -> None:
        for node in self.model.graph.node:
            self._makers.update((name, node) for name in node.output if name)
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    @classmethod
    def of_file(cls, path: Path) -> Needs | None:
        """Read a model; None where it is no ONNX file or its nodes are inside local functions."""
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            model = onnx.load(str(path), load_external_data=False)
        except (OSError, DecodeError):
            return None
        return None if model.functions else cls(model)

    def of(self, root: str, shape: tuple[int, ...], covers: Iterable[str]) -> Bools | None:
        """Elements of a tensor that some nodes depend on; None where the nodes cannot be asked.

        Parameters
        ----------
        root, shape
            The tensor.
        covers
            First results of the nodes that make up an operator.
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
                if not node.domain and node.op_type in _RESHAPE and name == node.input[0]:
                    moved = self._run(node, positions)
                    if moved is None:
                        return None
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

    def _run(self, node: NodeProto, positions: Array) -> Array | None:
        """First result of a node whose first operand holds positions and whose others are constants."""
        operands: list[Array | None] = [positions]
        for name in node.input[1:]:
            operand = self._constant(name) if name else None
            if name and operand is None:
                return None
            operands.append(operand)
        results = self._evaluate(node, operands)
        return None if results is None else results[0]

    def _constant(self, name: str) -> Array | None:
        """Content of a constant; None where it is computed from what is not in the file."""
        from onnx import TensorProto, numpy_helper

        waiting = [name]
        known: Mapping[str, Any] = {tensor.name: tensor for tensor in self.model.graph.initializer}
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
