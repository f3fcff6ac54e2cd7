"""The walk over the sorted, live nodes: types every result and decides what each node is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosma.errors import ModelLoadError
from cosma.frontend.attributes import MOST_VALUES, is_deterministic, read_part
from cosma.frontend.completion import Completion, ContradictionError
from cosma.frontend.control_flow import ControlFlow
from cosma.frontend.evaluate import Evaluator
from cosma.frontend.gathered import table_reads
from cosma.frontend.inference import Inference
from cosma.frontend.loaded import NodeFate
from cosma.frontend.macs import count_macs
from cosma.frontend.nodes import Node, make_node
from cosma.frontend.parameters import parameter_positions, type_only_positions
from cosma.frontend.records import Step
from cosma.frontend.selects import selected_boxes
from cosma.frontend.sequences import SequenceNodes
from cosma.frontend.sparse import dense_tensor
from cosma.frontend.stored import data_operands, distinct_rows, settle_stored
from cosma.frontend.values import TensorType, Value
from cosma.frontend.views import is_view

if TYPE_CHECKING:
    import numpy as np
    from onnx import TensorProto

    from cosma.graph.tensor import Part

Operands = tuple[Value | None, ...]

_FOLDED_DOMAINS = ("", "com.microsoft")


class Walk:
    """What is known of every name, and the steps taken so far.

    Parameters
    ----------
    opsets
        Version of every domain.
    ir_version
        The model's IR version.
    declared
        Types the model states itself: checked against what is inferred, and taken where nothing is.
    read
        Names that some live node or graph output reads; results nobody reads need no type if they are optional.
    bounds
        The most an axis can hold whose size is known only at run time, by ``tensor`` or ``tensor.axis``.
    level
        How deep in subgraphs the nodes lie.
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
        self._again = (opsets, ir_version, declared, frozenset(read))
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
            self.inference, self.evaluator, declared, self.read, bounds, level=level, preferred=preferred
        )
        self._sequences = SequenceNodes(self)
        self._control_flow = ControlFlow(self)

    @property
    def notes(self) -> list[str]:
        """What was assumed on the way, one sentence each."""
        return self.types.notes

    def again(self, error: ContradictionError) -> Walk | None:
        """A fresh walk on which a contradiction vanishes that an assumption brought about; None where none did."""
        opsets, ir_version, declared, read = self._again
        bounds, preferred = self.types.narrowed(error), self.types.preferred
        if bounds is None:
            bounds, other = self.types.bounds, self.types.other_choice(error)
            if other is None:
                return None
            preferred = other
        path = self.evaluator.path
        return Walk(opsets, ir_version, declared, set(read), bounds, path=path, preferred=preferred)

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

    # -- nodes --------------------------------------------------------------------------------------------

    def run(self, nodes: Iterable[Node]) -> None:
        """Walk nodes in order.

        Raises
        ------
        ModelLoadError
            Where a node does not fit its operands, contradicts the model's own statements, or has a result whose
            shape does not follow.
        """
        for node in nodes:
            self.inference.check(node)
            operands: Operands = tuple(self.values[name] if name else None for name in node.inputs)
            captured = {name: self.values[node.renames.get(name, name)] for name in node.captures}
            if not node.domain and self._control_flow.handle(node, operands):
                continue
            if self._sequences.handle(node, operands):
                continue
            self._visit(node, operands, captured)

    def _visit(self, node: Node, operands: Operands, captured: Mapping[str, Value]) -> None:
        if self._fold_special(node, operands):
            return
        part = read_part(node, operands, self.evaluator, self.opset)
        constant = is_deterministic(node, part) and self._is_constant(node, operands, captured)
        types = self.types.complete(node, operands, captured, constant=constant, part=part)
        if constant:
            self._fold(node, operands, captured, types, part)
            return
        first = types[0] if types else None
        others = [name for name in node.outputs[1:] if name in self.read]
        if first is not None and not others and is_view(node, part, operands, first, self.evaluator):
            assert operands[0] is not None
            self.add_view(node, operands[0], first)
            return
        self._add_operator(node, operands, captured, types, part)

    def add_view(self, node: Node, operand: Value, found: TensorType) -> None:
        """Record that a node's first result is its operand, in another shape perhaps."""
        name = node.first_output
        view = replace(operand, name=name, shape=_static(found), element=found.element)
        if operand.constant:
            operands = tuple(self.values[name] if name else None for name in node.inputs)
            in_sequence = any(value is not None and value.elements is not None for value in operands)
            source = None if in_sequence else (node, operands, 0)
            view = replace(view, tensor=None, source=source, array=None, evaluated=False)
        self.values[name] = view
        fate = NodeFate.FOLDED if operand.constant else NodeFate.VIEW
        self.steps.append(Step(node, fate, (operand,), (view,)))

    def _add_operator(
        self, node: Node, operands: Operands, captured: Mapping[str, Value], types: Sequence[TensorType | None],
        part: Part,
    ) -> None:  # fmt: skip
        parameters, ignored = parameter_positions(node, self.opset), type_only_positions(node)
        reads = [
            operand
            for i, operand in enumerate(operands)
            if operand is not None and i not in ignored and not (i in parameters and operand.constant)
        ]
        reads.extend(captured.values())
        results = []
        for name, found in zip(node.outputs, types, strict=True):
            if name and found is not None:
                results.append(Value(name, found.element, _static(found), name))
        if not results:
            raise ModelLoadError(f"{node} yields nothing that has a type; remove it or give its results one")
        shapes = [None if operand is None else operand.shape for operand in operands]
        macs = count_macs(node, shapes, results[0].shape)
        boxes = selected_boxes(node, operands, self.evaluator)
        tables = table_reads(node, operands, results, self.opset, self.values)
        contents = {i: self._content(operands[i]) for i in parameters if i < len(operands) and operands[i] is not None}
        known = {i: content for i, content in contents.items() if content is not None}
        self.steps.append(
            Step(node, NodeFate.OPERATOR, tuple(reads), tuple(results), macs, part, tables, boxes, operands, known)
        )
        self.values.update((value.name, value) for value in results)

    def _content(self, operand: Value | None) -> tuple[float, ...] | None:
        """Values of a short constant parameter, flat."""
        if operand is None or not operand.constant or operand.count > MOST_VALUES:
            return None
        array = self.evaluator.array(operand)
        if array is None or array.dtype.kind not in "iufb":
            return None
        return tuple(array.reshape(-1).tolist())

    def join(self, name: str, elements: Sequence[Value]) -> Value:
        """Record that tensors are joined along a new first axis under a name."""
        from onnx import helper

        sequence = f"{name}[]"
        self.values[sequence] = Value(sequence, 0, (), sequence, elements=tuple(elements))
        node = make_node(helper.make_node("ConcatFromSequence", [sequence], [name], axis=0, new_axis=1))
        self._sequences.join(node, tuple(elements))
        return self.values[name]

    # -- constants ----------------------------------------------------------------------------------------

    def _is_constant(self, node: Node, operands: Operands, captured: Mapping[str, Value]) -> bool:
        if node.domain not in _FOLDED_DOMAINS:
            return False
        ignored = type_only_positions(node)
        known = [operand for i, operand in enumerate(operands) if i not in ignored]
        known.extend(captured.values())
        if not node.domain or known:
            return all(operand is None or operand.constant for operand in known)
        return False

    def _fold_special(self, node: Node, operands: Operands) -> bool:
        """Fold what is known though its operand is not (Shape, Size), and literals."""
        if node.domain:
            return False
        if node.type == "Constant":
            self._add_literal(node)
            return True
        operand = operands[0] if operands else None
        if node.type not in ("Shape", "Size") or operand is None or operand.elements is not None:
            return False
        import numpy as np

        if node.type == "Size":
            array = np.array(operand.count, dtype=np.int64)
        else:
            array = np.array(operand.shape[node.integer("start", 0) : node.integer("end")], dtype=np.int64)
        self.add_array(node, array)
        return True

    def add_array(self, node: Node, array: np.ndarray[Any, Any], *, stored: bool = False) -> None:
        """Record that a node yields a constant whose content is known; it lies off-chip where the file holds it."""
        from onnx import helper

        name = node.first_output
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        held = (name,) if stored else ()
        value = Value(name, element, array.shape, name, constant=True, stored=held, array=array, evaluated=True)
        self._finish_constant(node, (), [value])

    def _add_literal(self, node: Node) -> None:
        """Record a Constant node."""
        import numpy as np
        from onnx import TensorProto

        name = node.first_output
        for key, attribute in node.attributes.items():
            if key in ("value", "sparse_value"):
                tensor = attribute.t
                if key == "sparse_value":
                    tensor = dense_tensor(attribute.sparse_tensor, name)
                shape = tuple(tensor.dims)
                value = Value(name, tensor.data_type, shape, name, constant=True, stored=(name,), tensor=tensor)
                self._finish_constant(node, (), [value])
                return
            if key in ("value_int", "value_ints"):
                integers = attribute.i if key == "value_int" else list(attribute.ints)
                self.add_array(node, np.array(integers, np.int64), stored=True)
                return
            if key in ("value_float", "value_floats"):
                floats = attribute.f if key == "value_float" else list(attribute.floats)
                self.add_array(node, np.array(floats, np.float32), stored=True)
                return
            if key in ("value_string", "value_strings"):
                shape = () if key == "value_string" else (len(attribute.strings),)
                value = Value(name, TensorProto.STRING, shape, name, constant=True, stored=(name,))
                self._finish_constant(node, (), [value])
                return
        raise ModelLoadError(f"{node} carries no value")

    def _fold(
        self, node: Node, operands: Operands, captured: Mapping[str, Value], types: Sequence[TensorType | None],
        part: Part,
    ) -> None:  # fmt: skip
        """Record a node of a constant subgraph: its results are weights, views or computed from stored weights."""
        first = next((operand for operand in operands if operand is not None), None)
        made_by, made_from = distinct_rows(node, operands, self.evaluator, self.values) or (node, operands)
        sources = [*data_operands(made_by, made_from, self.opset), *captured.values()]
        results = []
        for i, (name, found) in enumerate(zip(node.outputs, types, strict=True)):
            if not name or found is None:
                continue
            value = Value(name, found.element, _static(found), name, constant=True, stored=(name,))
            value.source = (made_by, made_from, i)
            if i == 0 and first is not None and is_view(node, part, operands, found, self.evaluator):
                value.root, value.stored, value.equal_to = first.root, first.stored, first.equal_to
            else:
                settle_stored(value, node, sources, self.values)
            results.append(value)
        self._finish_constant(node, tuple(o for o in operands if o is not None and o.constant), results)

    def _finish_constant(self, node: Node, reads: tuple[Value, ...], results: list[Value]) -> None:
        for value in results:
            self.types.check(node, value.name, value.type)
            self.values[value.name] = value
        self.steps.append(Step(node, NodeFate.FOLDED, reads, tuple(results)))


def _static(found: TensorType) -> tuple[int, ...]:
    assert found.shape is not None
    return tuple(d for d in found.shape if d is not None)
