"""The type of every result, one node at a time, with ONNX's own inference and exact rules for what it leaves open.

Because every graph input is fully sized before the walk starts, the type of a result follows from its operands'
types and from the content of those few operands that decide shapes. Nothing symbolic is propagated and nothing
is guessed: what does not follow is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.contrib_calls import Call
from cosma.frontend.contrib_rules import CONTENT, CONTRIB_RULES, IN_ONNX_DOMAIN, SAME_AS
from cosma.frontend.evaluate import Evaluator
from cosma.frontend.guards import check_call
from cosma.frontend.nodes import Node, readable
from cosma.frontend.parameters import parameter_positions
from cosma.frontend.rising import may_rise
from cosma.frontend.shape_rules import ALWAYS_RULES, LEGACY_RULES
from cosma.frontend.values import Operands, TensorType, Value
from cosma.frontend.window_rules import unpooled

if TYPE_CHECKING:
    from onnx import TensorProto, TypeProto
    from onnx.defs import OpSchema

    from cosma.frontend.values import Array

_UNKNOWN = TensorType(0, None)
#: Up to this opset operators carry no inference: see `LEGACY_RULES`.
_LAST_LEGACY_OPSET = 6
#: Domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"


class Inference:
    """Types the results of nodes."""

    def __init__(self, opsets: Mapping[str, int], ir_version: int, evaluator: Evaluator) -> None:
        from onnx import IR_VERSION, defs, helper

        self.opset = opsets.get("", 1)
        self.opsets = opsets
        self.ir_version = ir_version
        # Newer versions than the installed onnx knows are read as the newest it knows; the caller notes it.
        self._opsets = {d: min(v, defs.onnx_opset_version()) if not d else v for d, v in opsets.items()}
        self._ir_version = min(ir_version, IR_VERSION) or IR_VERSION
        self._imports = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        self._evaluator = evaluator
        self._schemas: dict[tuple[str, str], OpSchema | None] = {}
        self._signatures: dict[tuple[str, str], _Signature] = {}
        self._cache: dict[object, list[TensorType]] = {}
        self._types: dict[tuple[int, tuple[int, ...]], TypeProto] = {}

    def schema(self, node: Node) -> OpSchema | None:
        """Definition of a node's operator in the model's opset; None where onnx has none."""
        key = (node.domain, node.type)
        if key not in self._schemas:
            from onnx import defs

            version = self._opsets.get(node.domain)
            try:
                found = None if version is None else defs.get_schema(node.type, version, node.domain)
            except defs.SchemaError:
                found = None
            self._schemas[key] = found
        return self._schemas[key]

    def check(self, node: Node) -> None:
        """Refuse a node whose operands, results or attributes are not those of its operator's definition.

        The ModelLoadError names the node and says what the definition says.
        """
        schema = self.schema(node)
        if schema is None:
            return
        key = (node.domain, node.type)
        if key not in self._signatures:
            self._signatures[key] = _Signature(schema)
        self._signatures[key].check(node)

    def infer(self, node: Node, operands: Operands, captured: Mapping[str, Value]) -> list[TensorType]:
        """Type every result of a node, as far as it follows from the operands; unknown parts are marked as such.

        Operands are by position, None for an absent one; ``captured`` is what the node's subgraphs read from outside.
        Raises ModelLoadError if the operands do not fit the operator.
        """
        schema = self.schema(node)
        check_call(node, operands, self.opset)
        if node.subgraphs:
            return self._infer_alone(node, operands, captured)
        data: dict[int, Array] = {}
        deciding = parameter_positions(node, self.opset)
        if node.domain == MICROSOFT:
            deciding = deciding.union(CONTENT.get(node.type, ()))
        for i in sorted(deciding):
            operand = operands[i] if i < len(operands) else None
            known = operand is not None and operand.constant
            array = self._evaluator.array(operand, most=may_rise(node, i)) if operand is not None and known else None
            if array is not None:
                data[i] = array
        call = (
            node.domain, node.type,
            tuple([(name, node.attributes[name].SerializeToString()) for name in sorted(node.attributes)]),
            tuple([None if operand is None else (operand.element, operand.shape) for operand in operands]),
            tuple(map(bool, node.outputs)),
            tuple((i, array.dtype.str, array.shape, array.tobytes()) for i, array in data.items()),
        )  # fmt: skip
        found = self._cache.get(call)
        if found is None:
            found = self._infer(node, schema, operands, data)
            self._cache[call] = found
        return found

    def _infer(
        self, node: Node, schema: OpSchema | None, operands: Operands, data: Mapping[int, Array]
    ) -> list[TensorType]:
        types = [_UNKNOWN] * len(node.outputs)
        if not node.domain and node.type in ALWAYS_RULES:
            return ALWAYS_RULES[node.type](node, operands) or types
        if schema is not None:
            types = self._infer_by_schema(node, schema, operands, {i: _to_tensor(a) for i, a in data.items()})
        if node.domain == MICROSOFT and node.type in SAME_AS:
            types = self._infer_as(node, operands, data)
        if _all_known(node, types):
            return types
        by_rule = self._by_rule(node, schema, operands, data)
        if by_rule is not None:
            merged = zip(types, by_rule + [_UNKNOWN] * len(types), strict=False)
            types = [old if old.known else new for old, new in merged]
        if schema is not None and not _all_known(node, types) and _has_body(schema):
            alone = self._infer_alone(node, operands, {})
            types = [old if old.known else new for old, new in zip(types, alone, strict=True)]
        return types

    def _by_rule(
        self, node: Node, schema: OpSchema | None, operands: Operands, data: Mapping[int, Array]
    ) -> list[TensorType] | None:
        """Types from the tables of rules; None where none applies."""
        if node.domain == MICROSOFT:
            contrib = CONTRIB_RULES.get(node.type)
        elif not node.domain and schema is None:
            contrib = IN_ONNX_DOMAIN.get(node.type)
        else:
            contrib = unpooled if not node.domain and node.type == "MaxUnpool" else None
        if contrib is not None:
            return contrib(Call(node, operands, data))
        if not node.domain and self.opset <= _LAST_LEGACY_OPSET and node.type in LEGACY_RULES:
            return LEGACY_RULES[node.type](node, operands)
        return None

    def _infer_by_schema(
        self, node: Node, schema: OpSchema, operands: Operands, data: Mapping[int, TensorProto]
    ) -> list[TensorType]:
        from onnx import NodeProto
        from onnx.checker import ValidationError
        from onnx.shape_inference import InferenceError, infer_node_outputs

        # Positional names: the model's own may repeat, or not be UTF-8.
        bare = NodeProto(op_type=node.type, domain=node.domain)
        bare.input.extend("" if operand is None else f"i{i}" for i, operand in enumerate(operands))
        bare.output.extend(f"o{i}" if name else "" for i, name in enumerate(node.outputs))
        bare.attribute.extend(node.attributes.values())
        try:
            found = infer_node_outputs(
                schema, bare,
                {f"i{i}": self.type_proto(o.element, o.shape) for i, o in enumerate(operands) if o is not None},
                {f"i{i}": tensor for i, tensor in data.items()},
                opset_imports=self._imports, ir_version=self._ir_version,
            )  # fmt: skip
        except (InferenceError, ValidationError, RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise ModelLoadError(_rejected(node, operands, error)) from error
        return [from_type_proto(found[f"o{i}"]) if f"o{i}" in found else _UNKNOWN for i in range(len(node.outputs))]

    def _infer_as(self, node: Node, operands: Operands, data: Mapping[int, Array]) -> list[TensorType]:
        """Type an operator as if it were an ONNX one on some of its operands and the attributes that one has."""
        from onnx import defs, helper

        name, positions, last = SAME_AS[node.type]
        schema = defs.get_schema(name, defs.onnx_opset_version(), "")
        last = last or bool(node.integer("channels_last", 0))
        chosen = [operands[i] if i < len(operands) else None for i in positions]
        attributes = {key: value for key, value in node.attributes.items() if key in schema.attributes}
        if node.type == "ConvTransposeWithDynamicPads" and len(operands) > 2 and operands[2] is not None:
            if 2 not in data:
                return [_UNKNOWN] * len(node.outputs)
            attributes["pads"] = helper.make_attribute("pads", [int(amount) for amount in data[2].ravel()])
        first = chosen[0]
        if last and first is not None:
            chosen[0] = replace(first, shape=(*first.shape[:1], *first.shape[-1:], *first.shape[1:-1]))
        given = {positions.index(i): _to_tensor(array) for i, array in data.items() if i in positions}
        twin = Node(node.name, name, "", node.inputs[: len(chosen)], node.outputs[:1], attributes, node.proto)
        found = self._infer_by_schema(twin, schema, tuple(chosen), given)
        if last:
            found = [
                TensorType(t.element, t.shape and (*t.shape[:1], *t.shape[2:], *t.shape[1:2])) for t in found
            ]
        return found + [_UNKNOWN] * (len(node.outputs) - 1)

    def _infer_alone(self, node: Node, operands: Operands, captured: Mapping[str, Value]) -> list[TensorType]:
        """Type a node as the only one of a model: for subgraphs and operators defined by a function."""
        from onnx import helper
        from onnx.checker import ValidationError
        from onnx.shape_inference import InferenceError, infer_shapes

        names = [readable(name) for name in node.proto.input]
        known = {name: operand for name, operand in zip(names, operands, strict=True) if operand is not None}
        known.update(captured)
        graph = helper.make_graph([node.proto], "alone", [], [])
        graph.input.extend(
            helper.make_value_info(name, self.type_proto(value.element, value.shape)) for name, value in known.items()
        )
        for name, value in known.items():
            array = self._evaluator.array(value) if value.constant else None
            if array is not None:
                tensor = graph.initializer.add()
                tensor.CopyFrom(_to_tensor(array))
                tensor.name = name
        graph.output.extend(helper.make_empty_tensor_value_info(name) for name in node.proto.output if name)
        model = helper.make_model(graph, opset_imports=self._imports, ir_version=self._ir_version)
        try:
            typed = infer_shapes(model, check_type=False, strict_mode=True, data_prop=True)
        except (InferenceError, ValidationError, RuntimeError, ValueError) as error:
            raise ModelLoadError(_rejected(node, operands, error)) from error
        found = {value.name: from_type_proto(value.type) for value in typed.graph.output}
        return [found.get(name, _UNKNOWN) for name in node.proto.output]

    def type_proto(self, element: int, shape: tuple[int, ...]) -> TypeProto:
        """Tensor type as a message, made once per type."""
        key = (element, shape)
        found = self._types.get(key)
        if found is None:
            from onnx import helper

            found = self._types[key] = helper.make_tensor_type_proto(element, shape)
        return found


def from_type_proto(proto: TypeProto) -> TensorType:
    """Read a tensor type; an optional one reads as what it may hold, anything else as unknown."""
    while proto.HasField("optional_type"):
        proto = proto.optional_type.elem_type
    if not proto.HasField("tensor_type"):
        return _UNKNOWN
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type, None)
    dims = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim
    )
    return TensorType(tensor.elem_type, dims)


def _all_known(node: Node, types: Sequence[TensorType]) -> bool:
    return all(found.known for name, found in zip(node.outputs, types, strict=True) if name)


def _to_tensor(array: Array) -> TensorProto:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(array, order="C"))


def _has_body(schema: OpSchema) -> bool:
    """Whether the operator is defined by other operators, which can be typed in its place."""
    return bool(getattr(schema, "has_function", False) or getattr(schema, "has_context_dependent_function", False))


class _Signature:
    """How many operands and results an operator takes and which attributes it needs."""

    def __init__(self, schema: OpSchema) -> None:
        self._least, self._most, self._results = schema.min_input, schema.max_input, schema.max_output
        self._last = len(schema.outputs) - 1
        optional = type(schema.outputs[0].option).Optional if schema.outputs else None
        self._needed = [result.option != optional for result in schema.outputs]
        self._attributes = [name for name, definition in schema.attributes.items() if definition.required]

    def check(self, node: Node) -> None:
        """Refuse a node that does not follow its operator's definition."""
        if not self._least <= len(node.inputs) <= self._most:
            wanted = _range(self._least, self._most)
            raise ModelLoadError(f"{node} has {len(node.inputs)} operands; {node.type} takes {wanted} in this opset")
        if len(node.outputs) > self._results:
            raise ModelLoadError(
                f"{node} has {len(node.outputs)} results; {node.type} gives at most {self._results} in this opset"
            )
        for i, name in enumerate(node.outputs):
            if not name and self._needed[min(i, self._last)]:
                raise ModelLoadError(
                    f"{node} leaves out its result {i}; {node.type} has to yield it, and only optional results can be "
                    "left out: give it a name"
                )
        for name in self._attributes:
            if name not in node.attributes:
                raise ModelLoadError(f"{node} lacks the attribute {name!r}, which {node.type} requires in this opset")


def _range(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"at least {low}" if high > 1_000_000 else f"{low} to {high}"


def _rejected(node: Node, operands: Operands, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    types = ", ".join("absent" if operand is None else f"{operand.name!r} {operand.type}" for operand in operands)
    return f"{node} does not fit its operands ({types}): {reason}"
