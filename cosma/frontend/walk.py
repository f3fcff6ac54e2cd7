"""The walk over the sorted, live nodes: types every result and decides what each node is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.account import tensors_of
from cosma.frontend.attributes import MOST_VALUES, is_deterministic, read_part
from cosma.frontend.completion import ContradictionError
from cosma.frontend.control_flow import ControlFlow
from cosma.frontend.gathered import table_reads
from cosma.frontend.loaded import NodeFate
from cosma.frontend.macs import count_macs
from cosma.frontend.nodes import Node
from cosma.frontend.parameters import parameter_positions, type_only_positions
from cosma.frontend.records import Step
from cosma.frontend.rising import settle_low
from cosma.frontend.selects import selected_boxes
from cosma.frontend.sequences import SequenceNodes
from cosma.frontend.sparse import dense_tensor
from cosma.frontend.stored import data_operands, distinct_rows, settle_stored, stored_bytes
from cosma.frontend.subgraphs import stored_inside
from cosma.frontend.values import Operands, TensorType, Value, value_of
from cosma.frontend.views import is_view
from cosma.frontend.walk_state import WalkState, static_shape

if TYPE_CHECKING:

    from cosma.graph.tensor import Part


_FOLDED_DOMAINS = ("", "com.microsoft")


class Walk(WalkState):
    """The walk; its parameters are those of :class:`WalkState`."""

    def __init__(
        self, opsets: Mapping[str, int], ir_version: int, declared: Mapping[str, TensorType], read: set[str],
        bounds: Mapping[str, int] | None = None, *, level: int = 0, path: Path | None = None,
        preferred: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(opsets, ir_version, declared, read, bounds, level=level, path=path, preferred=preferred)
        self._again = (opsets, ir_version, declared, frozenset(read))
        self._sequences = SequenceNodes(self)
        self._control_flow = ControlFlow(self, self._sequences)

    def inner(self, declared: Mapping[str, TensorType], read: set[str]) -> Walk:
        """A fresh walk over a subgraph."""
        return Walk(
            self.opsets, self.ir_version, declared, read, self.types.bounds, level=self.level + 1,
            path=self.evaluator.path, preferred=self.types.preferred,
        )  # fmt: skip

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

    # -- nodes --------------------------------------------------------------------------------------------

    def run(self, nodes: Iterable[Node]) -> None:
        """Walk nodes in order.

        Raises ModelLoadError where a node does not fit its operands, contradicts the model's own statements, or has a
        result whose shape does not follow.
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
        reads.extend((*captured.values(), *self._weights_inside(node, captured)))
        results = []
        for name, found in zip(node.outputs, types, strict=True):
            if name and found is not None:
                results.append(value_of(name, found))
        if not results:
            raise ModelLoadError(f"{node} yields nothing that has a type; remove it or give its results one")
        shapes = [None if operand is None else operand.shape for operand in operands]
        macs = count_macs(node, shapes, results[0].shape)
        boxes = selected_boxes(node, operands, self.evaluator)
        tables = table_reads(node, operands, results, self.opset, self.values)
        # What a Gather selects says as much of it as the bounds of a Slice, though indices are data to be read.
        told = parameters | {1} if node.type == "Gather" and not node.domain else parameters
        contents = {i: self._content(operands[i]) for i in told if i < len(operands) and operands[i] is not None}
        known = {i: content for i, content in contents.items() if content is not None}
        self.steps.append(
            Step(node, NodeFate.OPERATOR, tuple(reads), tuple(results), macs, part, tables, boxes, operands, known)
        )
        self.values.update((value.name, value) for value in results)

    def _weights_inside(self, node: Node, captured: Mapping[str, Value]) -> list[Value]:
        """Weights that only a node's subgraphs hold, under names of their own here."""
        if not node.subgraphs:
            return []
        if self.types.walked is None:
            found = {
                name: Value(name, tensor.data_type, tuple(tensor.dims), name, constant=True, tensor=tensor)
                for name, tensor in stored_inside(node)
            }
        else:
            outside = {name for value in captured.values() for part in tensors_of(value) for name in part.stored}
            found = {
                name: walk.values[name]
                for walk in self.types.walked
                for step in walk.steps if step.fate is NodeFate.OPERATOR
                for value in step.reads
                for part in tensors_of(value) if part.constant
                for name in part.stored if name not in outside
            }  # fmt: skip
        weights = []
        for name, value in found.items():
            own = f"{node.first_output}/{name}"
            while own in self.values:
                own += "'"
            if stored_bytes(value.shape, value.element) is not None:
                self.values[own] = replace(value, name=own, root=own, stored=(own,), equal_to=None)
                weights.append(self.values[own])
        return weights

    def _content(self, operand: Value | None) -> tuple[float, ...] | None:
        """Values of a short constant parameter, flat."""
        if operand is None or not operand.constant or operand.count > MOST_VALUES:
            return None
        array = self.evaluator.array(operand)
        if array is None or array.dtype.kind not in "iufb":
            return None
        return tuple(array.reshape(-1).tolist())

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
            most, fewest = (np.array(value.count, dtype=np.int64) for value in (operand, operand.low or operand))
        else:
            part = slice(node.integer("start", 0), node.integer("end"))
            most, fewest = (np.array(v.shape[part], dtype=np.int64) for v in (operand, operand.low or operand))
        self.add_array(node, most)
        if (most != fewest).any():
            value = self.values[node.first_output]
            value.low = replace(value, array=fewest)
        return True

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
                self.finish_constant(node, (), [value])
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
                self.finish_constant(node, (), [value])
                return
        raise ModelLoadError(f"{node} carries no value")

    def _fold(
        self, node: Node, operands: Operands, captured: Mapping[str, Value], types: Sequence[TensorType | None],
        part: Part,
    ) -> None:  # fmt: skip
        """Record a node of a constant subgraph: its results are weights, views or computed from stored weights."""
        first = next((operand for operand in operands if operand is not None), None)
        made_by, made_from = distinct_rows(node, operands, self.evaluator, self.values) or (node, operands)
        inside = self._weights_inside(node, captured)
        sources = [*data_operands(made_by, made_from, self.opset), *captured.values(), *inside]
        results = []
        for i, (name, found) in enumerate(zip(node.outputs, types, strict=True)):
            if not name or found is None:
                continue
            value = Value(name, found.element, static_shape(found), name, constant=True, stored=(name,))
            value.source = (made_by, made_from, i)
            if i == 0 and first is not None and is_view(node, part, operands, found, self.evaluator):
                value.root, value.stored, value.equal_to = first.root, first.stored, first.equal_to
            else:
                settle_stored(value, node, sources, self.values)
            settle_low(value, node, operands, found, self.evaluator)
            results.append(value)
        self.finish_constant(node, tuple(o for o in operands if o is not None and o.constant), results)
