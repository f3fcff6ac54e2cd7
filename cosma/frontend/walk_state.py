"""What a walk over nodes knows of every name, and the steps it has taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosma.frontend.completion import Completion
from cosma.frontend.evaluate import Evaluator
from cosma.frontend.inference import Inference
from cosma.frontend.loaded import NodeFate
from cosma.frontend.nodes import Node
from cosma.frontend.records import Step
from cosma.frontend.values import TensorType, Value

if TYPE_CHECKING:
    import numpy as np
    from onnx import TensorProto


class WalkState(ABC):
    """What is known of every name, and the steps taken so far.

    Parameters
    ----------
    declared
        Types the model states itself: checked against what is inferred, and taken where nothing is.
    read
        Names that some live node or graph output reads; results nobody reads need no type if they are optional.
    bounds
        The most an axis can hold whose size is known only at run time, by ``tensor`` or ``tensor.axis``.
    path
        The model's file, beside which others may hold constants.
    preferred
        Shapes to take of several possible ones, by result.
    """

    def __init__(
        self, opsets: Mapping[str, int], ir_version: int, declared: Mapping[str, TensorType], read: set[str],
        bounds: Mapping[str, int] | None = None, *, level: int = 0, path: Path | None = None,
        preferred: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.opsets = opsets
        self.ir_version = ir_version
        self.level = level
        self.evaluator = Evaluator(opsets.get("", 1), path)
        self.inference = Inference(opsets, ir_version, self.evaluator)
        self.opset = self.inference.opset
        self.values: dict[str, Value] = {}
        self.steps: list[Step] = []
        self.inputs: list[Value] = []
        #: Elements of split sequences: the sequence and the position, and the name one is first taken out under.
        self.parts: dict[str, tuple[str, int]] = {}
        self.renamed: dict[str, str] = {}
        #: How many If nodes had a known condition.
        self.spliced = 0
        #: Names that are read; the branches that control flow puts in place of nodes add theirs.
        self.read = set(read)
        self.types = Completion(
            self.inference, self.evaluator, declared, self.read, bounds, level=level, preferred=preferred,
            inner=self.inner,
        )  # fmt: skip

    @property
    def notes(self) -> list[str]:
        """What was assumed on the way, one sentence each."""
        return self.types.notes

    @abstractmethod
    def run(self, nodes: Iterable[Node]) -> None:
        """Walk nodes in order."""

    @abstractmethod
    def inner(self, declared: Mapping[str, TensorType], read: set[str]) -> WalkState:
        """A fresh walk over a subgraph."""

    # -- what is there before the first node --------------------------------------------------------------

    def add_weight(self, name: str, tensor: TensorProto) -> None:
        """Take note of an initializer."""
        self.values[name] = Value(
            name, tensor.data_type, tuple(tensor.dims), name, constant=True, stored=(name,), tensor=tensor
        )

    def add_input(self, name: str, element: int, shape: tuple[int, ...]) -> None:
        """Take note of a graph input."""
        self.values[name] = Value(name, element, shape, name)
        self.inputs.append(self.values[name])

    # -- what nodes come to --------------------------------------------------------------------------------

    def add_view(self, node: Node, operand: Value, found: TensorType) -> None:
        """Record that a node's first result is its operand, in another shape perhaps."""
        name = node.first_output
        view = replace(operand, name=name, shape=static_shape(found), element=found.element)
        view.low = None if found.low is None else replace(view, shape=found.low, low=None)
        if operand.constant:
            operands = tuple(self.values[name] if name else None for name in node.inputs)
            in_sequence = any(value is not None and value.elements is not None for value in operands)
            source = None if in_sequence else (node, operands, 0)
            view = replace(view, tensor=None, source=source, array=None, evaluated=False)
        self.values[name] = view
        fate = NodeFate.FOLDED if operand.constant else NodeFate.VIEW
        self.steps.append(Step(node, fate, (operand,), (view,)))

    def add_array(self, node: Node, array: np.ndarray[Any, Any], *, stored: bool = False) -> None:
        """Record that a node yields a constant whose content is known; it lies off-chip where the file holds it."""
        from onnx import helper

        name = node.first_output
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        held = (name,) if stored else ()
        value = Value(name, element, array.shape, name, constant=True, stored=held, array=array, evaluated=True)
        self.finish_constant(node, (), [value])

    def finish_constant(self, node: Node, reads: tuple[Value, ...], results: list[Value]) -> None:
        """Record that a node yields constants."""
        for value in results:
            self.types.check(node, value.name, value.type)
            self.values[value.name] = value
        self.steps.append(Step(node, NodeFate.FOLDED, reads, tuple(results)))


def static_shape(found: TensorType) -> tuple[int, ...]:
    """The shape of a type all of whose dimensions are known."""
    assert found.shape is not None
    return tuple(d for d in found.shape if d is not None)
