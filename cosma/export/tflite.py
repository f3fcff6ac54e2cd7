"""TensorFlow Lite files: their graph to plan, and an offline plan written into them for TensorFlow Lite Micro.

The schema comes with the package ``tflite-micro``; ``pip install 'cosma[microcontrollers]'`` brings it.
"""

from __future__ import annotations

import struct
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any

import cosma.door as door
from cosma.errors import FormatError, InputError
from cosma.export.tflm import METADATA_NAME, tflm_metadata
from cosma.graph import Graph, Operator, Tensor, TensorKind

if TYPE_CHECKING:
    from cosma.plan import Plan

#: Identifier of a TensorFlow Lite file, at byte 4.
_IDENTIFIER = b"TFL3"
#: Element types by TensorFlow Lite's names, and their bytes.
_BYTES = {
    "FLOAT32": 4, "FLOAT16": 2, "FLOAT64": 8, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "INT32": 4, "UINT32": 4,
    "INT64": 8, "UINT64": 8, "BOOL": 1, "COMPLEX64": 8, "COMPLEX128": 16,
}  # fmt: skip


def tflite_graph(model: bytes, name: str = "model") -> Graph:
    """Read the graph of a TensorFlow Lite file: operators in the file's order, constants as weights.

    Tensors have the file's names, with ``#`` and their index where a name is empty or used twice. Variable tensors,
    which TFLM keeps apart, are left out.

    Parameters
    ----------
    model
        The file.
    name
        What reports call the graph.

    Raises
    ------
    FormatError
        If it is no TensorFlow Lite file.
    InputError
        If the package ``tflite-micro`` is not installed, the file has more than one subgraph, an element type of no
        whole bytes, an operator that yields nothing, or an input that is an output as well.
    """
    schema = _schema()
    content = _read(schema, model)
    subgraph = _only_subgraph(content)
    names = _tensor_names(subgraph)
    inputs, outputs = set(_list(subgraph.inputs)), set(_list(subgraph.outputs))
    both = next((names[i] for i in sorted(inputs & outputs)), None)
    if both is not None:
        raise InputError(
            f"{name}: tensor {both!r} is an input and an output as well, and nothing keeps its place once it has been "
            "read; give the output a copy of its own"
        )
    types = {value: key for key, value in vars(schema.TensorType).items() if not key.startswith("_")}
    constant = [_is_constant(content, tensor) for tensor in subgraph.tensors]
    kept = [i for i, tensor in enumerate(subgraph.tensors) if not tensor.isVariable]
    tensors = []
    for i in kept:
        kind = (
            TensorKind.WEIGHT if constant[i] else TensorKind.INPUT if i in inputs
            else TensorKind.OUTPUT if i in outputs else TensorKind.INTERMEDIATE
        )  # fmt: skip
        tensor = subgraph.tensors[i]
        element = types.get(tensor.type, str(tensor.type))
        if element not in _BYTES:
            raise InputError(f"{name}: tensor {names[i]!r} has elements of type {element}, which are no whole bytes")
        shape = _list(tensor.shape)
        tensors.append(Tensor(names[i], prod(shape) * _BYTES[element], kind, element.lower(), shape))
    known = set(kept)
    operators = []
    kinds = {value: key for key, value in vars(schema.BuiltinOperator).items() if not key.startswith("_")}
    for position, operator in enumerate(_list(subgraph.operators)):
        code = content.operatorCodes[operator.opcodeIndex]
        kind = kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        read = [i for i in dict.fromkeys(_list(operator.inputs)) if i in known]
        operators.append(
            Operator(
                f"{position}:{kind}", kind,
                [names[i] for i in read if not constant[i]], [names[i] for i in _list(operator.outputs) if i in known],
                [names[i] for i in read if constant[i]],
            )
        )  # fmt: skip
    used = {t for o in operators for t in (*o.operands, *o.outputs)}
    return Graph((t for t in tensors if t.name in used), operators, name)


def offline_tflite(plan: Plan, model: bytes) -> bytes:
    """Write a plan into the TensorFlow Lite file it was made for, as TFLM takes it.

    Operators come in the plan's order, and the metadata ``OfflineMemoryAllocation`` gives every activation its offset
    in the arena; one that was there is replaced. Nothing else changes.

    Parameters
    ----------
    plan
        A plan of :func:`tflite_graph` of the same file, in which every activation has one place.
    model
        The file.

    Raises
    ------
    InputError
        Where :func:`tflite_graph` or :func:`cosma.export.tflm_metadata` does, or if the plan is for another file.
    """
    import flatbuffers

    graph = tflite_graph(model, plan.model_name)
    _check_same(plan, graph)
    schema = _schema()
    content = _read(schema, model)
    subgraph = _only_subgraph(content)
    names = _tensor_names(subgraph)
    subgraph.operators = [subgraph.operators[int(name.partition(":")[0])] for name in plan.schedule]
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(tflm_metadata(plan, names, reordered=True))
    content.buffers.append(buffer)
    entry.name, entry.buffer = METADATA_NAME, len(content.buffers) - 1
    content.metadata = [m for m in _list(content.metadata) if _text(m.name) != METADATA_NAME] + [entry]
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(content.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _schema() -> Any:
    try:
        from tflite_micro.tensorflow.lite.micro.python import (
            schema_py_generated,
        )
    except ImportError as error:
        raise InputError(
            "TensorFlow Lite files need the package tflite-micro: pip install 'cosma[microcontrollers]'"
        ) from error
    return schema_py_generated


def _read(schema: Any, model: bytes) -> Any:
    if not isinstance(model, bytes | bytearray):
        raise InputError(f"the model must be the bytes of a TensorFlow Lite file, not {door.shown(model)}")
    if model[4:8] != _IDENTIFIER:
        raise FormatError("not a TensorFlow Lite file: it has no 'TFL3' at byte 4")
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(model), 0))
    except (IndexError, TypeError, ValueError, struct.error) as error:
        raise FormatError(f"not a whole TensorFlow Lite file: {error}") from error


def _only_subgraph(content: Any) -> Any:
    if len(content.subgraphs) != 1:
        raise InputError(f"the file has {len(content.subgraphs)} subgraphs; only one can be planned")
    return content.subgraphs[0]


def _list(values: Any) -> list[Any]:
    """A vector of a file, which is None where it is empty."""
    return [] if values is None else [v if not hasattr(v, "item") else v.item() for v in values]


def _text(name: Any) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name or "")


def _tensor_names(subgraph: Any) -> list[str]:
    """Unique names of all tensors, by index."""
    given = [_text(tensor.name) for tensor in subgraph.tensors]
    taken = {name for name in given if name and given.count(name) == 1}
    found = []
    for i, name in enumerate(given):
        if name not in taken:
            name = next(n for k in count() if (n := f"{name}#{i}" + "'" * k) not in taken)
            taken.add(name)
        found.append(name)
    return found


def _is_constant(content: Any, tensor: Any) -> bool:
    data = content.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _check_same(plan: Plan, graph: Graph) -> None:
    def parts(one: Graph) -> tuple[dict[str, Any], dict[str, Any]]:
        operators = {o.name: (sorted(o.inputs), sorted(o.weights), sorted(o.outputs)) for o in one.operators}
        return operators, {t.name: (t.size_bytes, t.kind) for t in one.tensors.values()}

    if parts(plan.graph) != parts(graph):
        raise InputError("the plan is for another file: its operators or tensors are not those of this one")
