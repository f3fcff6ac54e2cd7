"""A second reader: the untouched model run as a whole, against what the plan's execution left in off-chip memory.

A plan is executed node by node, as this project reads the model; were the reading wrong, the run without a plan would
be wrong in the same way. Here ONNX Runtime or ONNX's reference evaluator reads the file by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cosma.errors import CosmaError
from cosma.execute.compare import Comparison, compare
from cosma.execute.elements import is_numpy_type, to_bytes
from cosma.execute.exact import with_unsigned_weights
from cosma.execute.kernels import KernelName
from cosma.execute.ort import import_ort, ort_errors, plain_reason, session_options
from cosma.execute.reference import reference_reason
from cosma.execute.single import broadcasts_along_axis

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

    from cosma.arrays import Array
    from cosma.execute.constants import Constants

#: Most multiply-accumulates that the reference evaluator is asked for: it does some 10^8 of a convolution a second.
REFERENCE_LIMIT = 2_000_000_000
#: Most bytes of a weight that is put into the model instead of beside it: shapes may depend on its content.
SMALL = 4096
#: Most bytes of intermediate tensors that are kept to compare them.
KEPT_LIMIT = 1 << 31


@dataclass(frozen=True, slots=True)
class SecondReading:
    """What the whole model, read and run by somebody else, says of a plan's results."""

    #: ``equal`` within rounding, ``different``, or ``not compared``.
    verdict: Literal["equal", "different", "not compared"]
    #: Name and version of who read and ran the model.
    reader: str
    #: Why there was no comparison, or why the preferred reader did not do it; empty otherwise.
    reason: str
    #: Each graph output.
    outputs: tuple[Comparison, ...] = ()
    #: Where the verdict is ``different``: the first tensor of the model whose bytes differ, where it was found.
    first_difference: str | None = None


class _UnableError(Exception):
    """A reader cannot run the model; the message says why."""


def read_again(
    data: bytes,
    constants: Constants,
    inputs: Mapping[str, Array],
    planned: Mapping[str, Array | list[Array]],
    digests: Mapping[str, bytes],
    digest: Callable[[Array], bytes],
    kernels: KernelName | None,
) -> SecondReading:
    """Run the untouched model as a whole and compare its outputs with those of a plan.

    ``constants`` yields the weights that the file does not hold. ``planned`` are the graph outputs as the plan's
    execution left them, by name; those of a sequence as a list. ``digests`` are fingerprints of every tensor of the run
    without a plan, and ``digest`` takes them. ``kernels`` is what ran the nodes, where that was asked for; the same
    reads the model.
    """
    readers = [_Reference] if kernels == "reference" else [_OnnxRuntime, _Reference]
    reasons: list[str] = []
    for kind in readers:
        try:
            reader = kind(data, constants)
            found = reader.run(list(planned), inputs)
        except _UnableError as error:
            reasons.append(str(error))
            continue
        except MemoryError:
            reasons.append("there is not enough memory to run the model as a whole")
            continue
        outputs = tuple(compare(name, planned[name], found[name]) for name in planned)
        reason = "; ".join(reasons)
        if all(output.is_equal for output in outputs):
            return SecondReading("equal", reader.name, reason, outputs)
        first = _first_difference(reader, constants, inputs, digests, digest)
        return SecondReading("different", reader.name, reason, outputs, first)
    return SecondReading("not compared", "", "; ".join(reasons))


def _first_difference(
    reader: _Reader,
    constants: Constants,
    inputs: Mapping[str, Array],
    digests: Mapping[str, bytes],
    digest: Callable[[Array], bytes],
) -> str | None:
    """The first tensor that the reader makes of other bytes than the nodes one by one, in the order of the nodes."""
    tensors = constants.model.loaded.graph.tensors
    produced = {name for node in reader.proto.graph.node for name in node.output}
    names = [name for name in digests if name in produced and name in tensors]
    if not names or sum(tensors[name].size_bytes for name in names) > KEPT_LIMIT:
        return None  # asked for no tensor, ONNX Runtime yields all outputs
    try:
        found = reader.run(names, inputs)
    except (_UnableError, MemoryError):
        return None
    for name in names:
        element = constants.model.values[name].element
        if not isinstance(found[name], list) and digest(to_bytes(np.asarray(found[name]), element)) != digests[name]:
            return name
    return None


class _Reader:
    """Reads a model's file by itself; weights that it lacks are filled in."""

    name: str

    def __init__(self, data: bytes, constants: Constants) -> None:
        from onnx import ModelProto

        self._data, self._constants = data, constants
        self.proto = ModelProto()
        self.proto.ParseFromString(data)
        for function in self.proto.functions:
            if any(not constants.is_held(tensor) for _, tensor in _tensors(function.node)):
                raise _UnableError(f"a constant of the local function {function.name!r} has no content")

    def run(self, names: list[str], inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Values of named tensors of the main graph."""
        raise NotImplementedError

    def _fill(self, tensor: TensorProto, name: str) -> None:
        """Put a tensor's content into the message."""
        from onnx import numpy_helper

        content = self._constants.content_of(tensor, name)
        filled = numpy_helper.from_array(np.asarray(content, order="C"), tensor.name)
        filled.data_type = tensor.data_type
        tensor.CopyFrom(filled)

    def _with_outputs(self, names: list[str]) -> ModelProto:
        """The model, with other tensors as its outputs where they are not its own."""
        from onnx import ModelProto, helper

        own = [output.name for output in self.proto.graph.output]
        if set(names) <= set(own):
            return self.proto
        changed = ModelProto()
        changed.CopyFrom(self.proto)
        changed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in own)
        return changed


class _OnnxRuntime(_Reader):
    """ONNX Runtime, no graph optimisations, integer products exact; weights from elsewhere lie beside the model."""

    def __init__(self, data: bytes, constants: Constants) -> None:
        try:
            self._ort = import_ort()
        except CosmaError as error:
            raise _UnableError("onnxruntime is not installed") from error
        self.name = f"onnxruntime {self._ort.__version__}"
        super().__init__(data, constants)
        self._beside: dict[str, Array] = {}
        changed = False
        for tensor in self.proto.graph.initializer:
            if _has_content(tensor):
                continue
            content = constants.content_of(tensor, _readable(tensor.name))
            if not is_numpy_type(content.dtype) or content.nbytes <= SMALL:
                self._fill(tensor, _readable(tensor.name))
            else:
                self._beside[tensor.name] = np.asarray(content, order="C")
                _mark_external(tensor)
            changed = True
        for name, tensor in _tensors(self.proto.graph.node):
            if not _has_content(tensor):
                self._fill(tensor, name)
                changed = True
        nodes = list(with_unsigned_weights(self.proto.graph.node, self._element_of))
        if len(nodes) > len(self.proto.graph.node):
            del self.proto.graph.node[:]
            self.proto.graph.node.extend(nodes)
            changed = True
        self._changed = changed

    def _element_of(self, name: str) -> int | None:
        value = self._constants.model.values.get(_readable(name))
        return None if value is None else value.element

    def run(self, names: list[str], inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Values of named tensors; see :meth:`_Reader.run`."""
        proto = self._with_outputs(names)
        data = proto.SerializeToString() if self._changed or proto is not self.proto else self._data
        options = session_options(self._ort)
        if self._beside:
            values = [self._ort.OrtValue.ortvalue_from_numpy(array) for array in self._beside.values()]
            options.add_external_initializers(list(self._beside), values)
        try:
            session = self._ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            arrays = session.run(names, {entry.name: inputs.get(entry.name) for entry in session.get_inputs()})
        except ort_errors() as error:
            raise _UnableError(f"{self.name} cannot run the model as a whole: {plain_reason(error)}") from error
        types = {entry.name: entry.type for entry in session.get_outputs()}
        return {name: _typed(array, types[name]) for name, array in zip(names, arrays, strict=True)}


class _Reference(_Reader):
    """ONNX's reference evaluator; every weight is put into the model."""

    def __init__(self, data: bytes, constants: Constants) -> None:
        import onnx

        self.name = f"onnx reference {onnx.__version__}"
        macs = sum(operator.macs or 0 for operator in constants.model.loaded.graph.operators)
        if macs > REFERENCE_LIMIT:
            raise _UnableError(f"{self.name} would take too long for {macs:,} multiply-accumulates")
        super().__init__(data, constants)
        opset = constants.model.opsets.get("", 1)
        for node in self.proto.graph.node:
            if broadcasts_along_axis(node, opset):
                raise _UnableError(f"{self.name} ignores along which axis {node.op_type} of opset {opset} broadcasts")
        for tensor in self.proto.graph.initializer:
            if not _has_content(tensor):
                self._fill(tensor, _readable(tensor.name))
        for name, tensor in _tensors(self.proto.graph.node):
            if not _has_content(tensor):
                self._fill(tensor, name)

    def run(self, names: list[str], inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Values of named tensors; see :meth:`_Reader.run`."""
        from onnx.reference import ReferenceEvaluator

        try:
            evaluator = ReferenceEvaluator(self._with_outputs(names))
            with np.errstate(all="ignore"):
                arrays = evaluator.run(names, {name: inputs[name] for name in evaluator.input_names if name in inputs})
        except MemoryError:
            raise
        except Exception as error:  # its operators are Python that raises whatever comes up
            raise _UnableError(f"{self.name} cannot run the model as a whole: {reference_reason(error)}") from error
        return dict(zip(names, arrays, strict=True))


def _typed(array: Any, kind: str) -> Any:
    """What ONNX Runtime yields in its own type: it hands out 8-bit floating-point numbers as plain bytes."""
    from onnx import TensorProto, helper

    if not kind.startswith("tensor(float8"):
        return array
    element = TensorProto.DataType.Value(kind.removeprefix("tensor(").removesuffix(")").upper())
    return array.view(helper.tensor_dtype_to_np_dtype(element))


def _has_content(tensor: TensorProto) -> bool:
    """Whether a tensor's content is in the message itself; strings always are."""
    from onnx import TensorProto

    from cosma.frontend.evaluate import tensor_array

    if tensor.data_type == TensorProto.STRING:
        return True
    return tensor.data_location != TensorProto.EXTERNAL and tensor_array(tensor) is not None


def _mark_external(tensor: TensorProto) -> None:
    """Say that a tensor lies elsewhere, so that what is handed in beside the model takes its place."""
    from onnx import TensorProto

    if tensor.data_location != TensorProto.EXTERNAL:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="beside")


def _tensors(nodes: Iterator[NodeProto] | Any) -> Iterator[tuple[str, TensorProto]]:
    """Constants that are written into nodes and initializers of subgraphs, with the names they go by."""
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield _readable(node.output[0]), attribute.t
            graphs: list[GraphProto] = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            for graph in graphs:
                yield from ((_readable(tensor.name), tensor) for tensor in graph.initializer)
                yield from _tensors(graph.node)


def _readable(name: str | bytes) -> str:
    from cosma.frontend.nodes import readable

    return readable(name)
