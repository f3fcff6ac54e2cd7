"""Walk a model's nodes in order and decide what each one is: an operator, a view or a constant."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.assemble import assemble
from cosma.frontend.completion import ContradictionError
from cosma.frontend.dims import Dimensions
from cosma.frontend.functions import inline_functions
from cosma.frontend.guards import check_opsets
from cosma.frontend.loaded import LoadedModel
from cosma.frontend.nodes import Node, inner_graphs, live_nodes, make_node, readable, sort_nodes
from cosma.frontend.reader import read_model
from cosma.frontend.sparse import dense_tensor
from cosma.frontend.values import TensorType, dtype_name, has_width
from cosma.frontend.walk import Walk

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto


def import_model(path: Path, dims: Mapping[str, int]) -> LoadedModel:
    """Read an ONNX file; see :func:`cosma.frontend.load_onnx`."""
    model, sha256 = read_model(path)
    try:
        with _no_collection():
            return walk_model(model, path, sha256, dims)[0]
    except ModelLoadError as error:
        error.args = (f"model {path}: {error}",)
        raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the cyclic garbage collector off: nothing here is cyclic, and its passes over what is kept add up."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def walk_model(
    model: ModelProto, path: Path, sha256: str, dims: Mapping[str, int]
) -> tuple[LoadedModel, Walk]:
    """Read a parsed model; also hand out the walk, with every node and value, for those who execute the model."""
    notes: list[str] = []
    opsets = _opsets(model, notes)
    if model.functions:
        called = {(f.domain, f.name) for f in model.functions}
        calls = sum((node.domain, node.op_type) in called for node in model.graph.node)
        model = inline_functions(model)
        notes.append(f"inlined {calls} calls of local functions")
        opsets = _opsets(model, [])
    graph = model.graph
    weights = _weights(graph, notes)
    inputs = _inputs(graph, weights, notes)
    outputs = _outputs(graph, notes)
    nodes = [make_node(proto) for proto in graph.node]
    ordered, as_given = sort_nodes(nodes, weights.keys() | inputs.keys(), list(outputs))
    escaped = _count_escaped(graph)
    if escaped:
        notes.append(f"{escaped} names are not UTF-8: stray bytes are written \\xNN and their backslashes doubled")
    if not as_given:
        notes.append("the nodes were not in topological order and were sorted")
    live = live_nodes(ordered, outputs)
    read = {name for node, alive in zip(ordered, live, strict=True) if alive for name in node.reads} | set(outputs)
    unused = [name for name in inputs if name not in read]
    if unused:
        notes.append(f"unused graph inputs: {', '.join(unused)}")

    results = {name for node in ordered for name in node.outputs if name}
    results.update(readable(name) for graph in inner_graphs(ordered) for node in graph.node for name in node.output)
    dimensions = Dimensions(dims, (*inputs.values(), *graph.value_info, *outputs.values()), results)
    types = {name: _input_type(name, inputs[name], dimensions) for name in inputs if name in read}
    dimensions.declare([value for name, value in inputs.items() if name not in read], inputs=True)
    dimensions.declare(graph.value_info)
    dimensions.declare(list(outputs.values()))
    for inner in inner_graphs(ordered):  # their symbols are symbols of the model
        dimensions.declare([*inner.input, *inner.value_info, *inner.output])
    dimensions.check()
    if dimensions.used:
        notes.append("bound " + ", ".join(f"{symbol}={size}" for symbol, size in dimensions.used.items()))
    for name, found in types.items():
        _check_input(name, found)
    declared = _declared((*graph.value_info, *outputs.values()), dimensions)

    alive = [node for node, is_live in zip(ordered, live, strict=True) if is_live]
    known = {name: tensor for name, tensor in weights.items() if name in read}
    fresh = Walk(opsets, model.ir_version, declared, read, dimensions.bounds, path=path)
    walk = _walk(fresh, alive, known, types)
    empty = {name: found for name, found in types.items() if 0 in (found.shape or ())}
    notes.extend(f"graph input {name!r} is {found}: it holds no element" for name, found in empty.items())
    notes.extend(walk.notes)
    sizes = {**dimensions.used, **walk.types.bound}
    loaded = assemble(walk, ordered, live, list(outputs), notes, path, sha256, sizes)
    return replace(loaded, assumptions=tuple(walk.notes)), walk


def _walk(
    walk: Walk, nodes: Sequence[Node], weights: Mapping[str, TensorProto], inputs: Mapping[str, TensorType]
) -> Walk:
    """Walk the live nodes; where the model states less than an operator limits its result to, once more with that.

    Raises ModelLoadError if a type does not follow, or a bound was given where nothing needs one.
    """
    for name, tensor in weights.items():
        walk.add_weight(name, tensor)
    for name, found in inputs.items():
        walk.add_input(name, found.element, tuple(d for d in found.shape or () if d is not None))
    try:
        walk.run(nodes)
    except ModelLoadError as error:
        fresh = walk.again(error) if isinstance(error, ContradictionError) else None
        if fresh is None:
            assumed = [note for note in walk.notes if "at most" in note]
            error.args = ("; ".join((str(error), *(f"assumed: {note}" for note in assumed[:2]))),)
            raise
        return _walk(fresh, nodes, weights, inputs)
    if walk.types.unused:
        raise ModelLoadError(
            f"{', '.join(map(repr, sorted(walk.types.unused)))} cannot be bounded: its size is known without"
        )
    return walk


def _opsets(model: ModelProto, notes: list[str]) -> dict[str, int]:
    """Version of every imported domain; ONNX's own is 1 where a file of IR version 1 or 2 names none."""
    from onnx import IR_VERSION, defs

    opsets = {
        "" if readable(entry.domain) == "ai.onnx" else readable(entry.domain): entry.version
        for entry in model.opset_import
    }
    opsets.setdefault("", 1)
    check_opsets(opsets)
    newest = defs.onnx_opset_version()
    if opsets[""] > newest:
        notes.append(f"opset {opsets['']} is newer than the installed onnx knows; read as opset {newest}")
    if model.ir_version > IR_VERSION:
        notes.append(f"IR version {model.ir_version} is newer than {IR_VERSION}, the newest the installed onnx knows")
    return opsets


def _count_escaped(graph: GraphProto) -> int:
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    names.update(value.name for value in (*graph.input, *graph.output))
    names.update(tensor.name for tensor in graph.initializer)
    return sum(isinstance(name, bytes) for name in names)


def _weights(graph: GraphProto, notes: list[str]) -> dict[str, TensorProto]:
    """Initializers by name; a sparse one as the dense tensor it stands for."""
    weights: dict[str, TensorProto] = {}
    sparse = [dense_tensor(entry) for entry in graph.sparse_initializer]
    if sparse:
        notes.append("sparse initializers count as the dense tensors operators read: "
                     + ", ".join(readable(tensor.name) for tensor in sparse))  # fmt: skip
    for tensor in (*graph.initializer, *sparse):
        name = readable(tensor.name)
        if not name:
            raise ModelLoadError("an initializer has no name; name it or remove it")
        if name in weights:
            raise ModelLoadError(
                f"two initializers are named {name!r}, {_tensor_type(weights[name])} and {_tensor_type(tensor)}; "
                "a name has one meaning in ONNX: rename one of the two"
            )
        if any(d < 0 for d in tensor.dims):
            raise ModelLoadError(f"initializer {name!r} has a negative dimension: {tuple(tensor.dims)}")
        weights[name] = tensor
    return weights


def _tensor_type(tensor: TensorProto) -> TensorType:
    return TensorType(tensor.data_type, tuple(tensor.dims))


def _inputs(graph: GraphProto, weights: Mapping[str, TensorProto], notes: list[str]) -> dict[str, ValueInfoProto]:
    """Graph inputs that are no initializers; files of IR version 3 and older list those as inputs too."""
    inputs: dict[str, ValueInfoProto] = {}
    for value in graph.input:
        name = readable(value.name)
        if name in weights:
            continue
        if name in inputs:
            if inputs[name].type != value.type:
                raise ModelLoadError(f"graph input {name!r} is listed twice, with different types; remove one")
            notes.append(f"graph input {name!r} is listed twice, identically; taken as one")
        inputs[name] = value
    return inputs


def _outputs(graph: GraphProto, notes: list[str]) -> dict[str, ValueInfoProto]:
    outputs: dict[str, ValueInfoProto] = {}
    for value in graph.output:
        name = readable(value.name)
        if name in outputs:
            notes.append(f"graph output {name!r} is listed twice; it is one tensor, stored once")
        outputs.setdefault(name, value)
    if not outputs:
        raise ModelLoadError(
            "the model has no graph outputs, so nothing it computes is ever used; declare the tensors it is to yield"
        )
    return outputs


def _input_type(name: str, value: ValueInfoProto, dimensions: Dimensions) -> TensorType:
    kind = value.type.WhichOneof("value")
    proto = value.type
    while proto.HasField("optional_type"):
        proto = proto.optional_type.elem_type
    if not proto.HasField("tensor_type"):
        raise ModelLoadError(
            f"graph input {name!r} is of kind {kind or 'unknown'}, whose size is not in the model; only tensors can "
            "be planned: export the model with tensors as inputs"
        )
    return dimensions.resolve(name, proto, must=True)


def _check_input(name: str, found: TensorType) -> None:
    if found.shape is None:
        raise ModelLoadError(
            f"graph input {name!r} ({found}) has no shape, not even a rank, so nothing it feeds can be sized; "
            "give it a shape in the model, with symbols where it varies"
        )
    if not has_width(found.element):
        raise ModelLoadError(
            f"graph input {name!r} has element type {dtype_name(found.element)}, which has no known width in bits"
        )


def _declared(values: Iterable[ValueInfoProto], dimensions: Dimensions) -> dict[str, TensorType]:
    """Types the model itself states for intermediate and output tensors."""
    declared: dict[str, TensorType] = {}
    for value in values:
        if value.type.HasField("tensor_type"):
            declared[readable(value.name)] = dimensions.resolve(readable(value.name), value.type, must=False)
    return declared


