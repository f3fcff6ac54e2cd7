"""Quantised graphs as what they mean: DequantizeLinear, float operator, QuantizeLinear are one integer operator.

The float values between them are a way of writing; an integer kernel reads and writes quantised ones. An operator all
of whose floating-point activations are dequantised reads the quantised ones instead. Where its result goes through
operators of one operand into a QuantizeLinear, it writes the quantised one. Products of matrices and convolutions
need no QuantizeLinear behind them: their kernels scale an accumulator into floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from cosma.graph import Graph, Operator, Region, Tensor, TensorKind
from cosma.graph.dtypes import is_floating
from cosma.graph.semantics import CARRYING, is_elementwise, is_random
from cosma.graph.tensor import joined_type
from cosma.rewrite.lineage import Lineage, Rewritten

DEQUANTISE, QUANTISE = "DequantizeLinear", "QuantizeLinear"
#: Operators whose integer kernels yield floating point where nothing quantises their result.
ACCUMULATING = frozenset({"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"})
#: Operators with subgraphs, which read what they capture as it is.
_OPAQUE = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(slots=True)
class _Group:
    """An operator and what it absorbs."""

    #: The operator.
    core: Operator
    #: Operators that dequantise its operands.
    before: list[Operator] = field(default_factory=list)
    #: Operators behind it, in the order they compute, the QuantizeLinear of each result last.
    after: list[Operator] = field(default_factory=list)
    #: For each of its results that is quantised, the quantised one.
    results: dict[str, str] = field(default_factory=dict)


def quantise(graph: Graph) -> Rewritten:
    """Join every quantised operator with the nodes that dequantise its operands and quantise its results.

    A value that is also read in floating point, or is a graph output, is still computed for these readers. A graph
    without such operators comes back as it is.
    """
    if not any(is_node(o, DEQUANTISE) or is_node(o, QUANTISE) for o in graph.operators):
        return Rewritten(graph, Lineage.identity(graph))
    groups = [group for operator in graph.operators if (group := _group(graph, operator)) is not None]
    absorbed = {operator.name for group in groups for operator in group.after}
    reading = {group.core.name for group in groups}
    owner: dict[str, str] = {}
    through: dict[str, str | None] = {}
    for group in groups:
        for operator in group.before:
            result = operator.outputs[0]
            if graph.tensors[result].kind is not TensorKind.OUTPUT and set(graph.consumers(result)) <= reading:
                owner.setdefault(operator.name, group.core.name)
                through[result] = operator.inputs[0]
    # A dequantisation that every reader does by itself is no operator of its own.
    same = _same_values(graph, groups)
    operators, parts = [], {}
    by_core = {group.core.name: group for group in groups}
    for operator in graph.operators:
        if operator.name in absorbed or operator.name in owner or operator.name in same:
            continue
        joined = by_core.get(operator.name)
        own = [o for o in joined.before if owner.get(o.name) == operator.name] if joined is not None else []
        behind = joined.after if joined is not None else []
        operators.append(operator if joined is None else _join(joined, own))
        parts[operator.name] = (*(o.name for o in own), operator.name, *(o.name for o in behind))
    return _finish(graph, operators, parts, through, _merge(graph, same, by_core, owner))


def is_node(operator: Operator, kind: str) -> bool:
    """Whether an operator is one node of a type, ONNX's own or ONNX Runtime's."""
    return not operator.fused and operator.type == kind and operator.domain in ("", "com.microsoft")


def _group(graph: Graph, core: Operator) -> _Group | None:
    """An operator with what it absorbs; None where it computes in floating point."""
    if is_node(core, DEQUANTISE) or core.type in _OPAQUE or any(map(is_random, core.parts)):
        return None
    group = _Group(core)
    floats = [name for name in core.inputs if _is_float(graph.tensors[name])]
    for name in floats:
        producer = graph.producer(name)
        source = None if producer is None else graph.operator(producer)
        if source is None or not is_node(source, DEQUANTISE) or not source.inputs:
            return None
        if graph.tensors[source.inputs[0]].size_bytes > graph.tensors[name].size_bytes:
            return None
        group.before.append(source)
    if not floats:
        return None
    for name in core.outputs:
        result = graph.tensors[name]
        unread = result.kind is TensorKind.INTERMEDIATE and not graph.consumers(name)
        if not _is_float(result) or unread:
            continue
        behind = _path_to_quantise(graph, name)
        if behind:
            group.after.extend(behind)
            group.results[name] = behind[-1].outputs[0]
        elif core.type not in ACCUMULATING:
            return None
    return group


def _path_to_quantise(graph: Graph, name: str) -> list[Operator]:
    """Operators of one activation each between a result and the QuantizeLinear behind it, which comes last."""
    path: list[Operator] = []
    while graph.tensors[name].kind is TensorKind.INTERMEDIATE and len(graph.consumers(name)) == 1:
        reader = graph.operator(graph.consumers(name)[0])
        if reader.inputs != (name,) or not is_elementwise(reader):
            return []
        if _count(graph.tensors[reader.outputs[0]]) != _count(graph.tensors[name]):
            return []
        path.append(reader)
        if is_node(reader, QUANTISE):
            return path
        name = reader.outputs[0]
        if not _is_float(graph.tensors[name]):
            return []
    return []


def _join(group: _Group, own: list[Operator]) -> Operator:
    """One operator in place of a group; ``own`` are the dequantisations that no other operator covers."""
    through = {o.outputs[0]: o for o in group.before}
    core = group.core
    inputs = [n for name in core.inputs for n in (through[name].inputs if name in through else (name,))]
    scales = dict.fromkeys(name for o in group.before for name in o.weights)
    last = [o for o in group.after if is_node(o, QUANTISE)]
    after = tuple(name for o in group.after for name in o.weights)
    if core.type in CARRYING and len(last) == len(group.after) and all(set(o.weights) == set(scales) for o in last):
        scales, after = {}, ()
    kinds = {p for o in group.before for p in o.parts}
    parts = (*sorted(kinds, key=repr)[:1], *core.parts, *(p for o in group.after for p in o.parts))
    covers = [*core.covers, *(name for o in (*own, *group.after) for name in o.covers)]
    return replace(
        core,
        type=joined_type(parts),
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=tuple(group.results.get(name, name) for name in core.outputs),
        weights=tuple(dict.fromkeys((*scales, *core.weights, *after))),
        covers=tuple(covers),
        domain="",
        attributes=(),
        fused=parts,
        reads=tuple(_read_through(region, through) for region in core.reads),
    )


def _read_through(region: Region, through: Mapping[str, Operator]) -> Region:
    """A region of what is dequantised as the region of what is read instead: element by element the same."""
    return replace(region, root=through[region.root].inputs[0]) if region.root in through else region


def _same_values(graph: Graph, groups: list[_Group]) -> dict[str, str]:
    """QuantizeLinears that give back what was dequantised, with one scale for all: the operand of each, by name."""
    same = {}
    for group in groups:
        core = group.core
        if not is_node(core, QUANTISE) or len(group.before) != 1:
            continue
        source = group.before[0]
        before, after = graph.tensors[source.inputs[0]], graph.tensors[core.outputs[0]]
        alike = source.inputs[1:] == () and len(core.inputs) == 1 and source.weights == core.weights
        scalar = all(_count(graph.tensors[name]) == 1 for name in core.weights)
        if alike and scalar and core.weights and before.dtype == after.dtype and after.kind is TensorKind.INTERMEDIATE:
            same[core.name] = before.name
    return same


@dataclass(slots=True)
class _Merge:
    """Tensors that are others, and who covers the operators that would have copied them."""

    names: dict[str, str]
    covers: list[tuple[str, tuple[Operator, ...]]]


def _merge(graph: Graph, same: Mapping[str, str], by_core: Mapping[str, _Group], owner: Mapping[str, str]) -> _Merge:
    names: dict[str, str] = {}
    covers = []
    for name, operand in same.items():
        operator = graph.operator(name)
        names[operator.outputs[0]] = names.get(operand, operand)
        own = [o for o in by_core[name].before if owner.get(o.name) == name]
        covers.append((operator.outputs[0], (*own, operator)))
    return _Merge(names, covers)


def _finish(
    graph: Graph, operators: list[Operator], parts: dict[str, tuple[str, ...]], through: Mapping[str, str | None],
    merge: _Merge,
) -> Rewritten:  # fmt: skip
    """Build the graph: tensors that no operator touches any more are gone, equal ones are one."""
    names = merge.names
    renamed = [
        replace(
            o,
            inputs=tuple(dict.fromkeys(names.get(name, name) for name in o.inputs)),
            reads=tuple(region for region in o.reads if region.root not in names),
        )
        if any(name in names for name in o.inputs) else o
        for o in operators
    ]  # fmt: skip
    extra: dict[str, list[Operator]] = {}
    makers = {result: o.name for o in renamed for result in o.outputs}
    for result, nodes in merge.covers:
        root = names[result]
        readers = (o.name for o in renamed if root in o.inputs)
        keeper = makers.get(root) or next(readers, None)
        if keeper is not None:
            extra.setdefault(keeper, []).extend(nodes)
    final = [
        replace(o, covers=(*o.covers, *(name for node in extra[o.name] for name in node.covers)))
        if o.name in extra else o
        for o in renamed
    ]  # fmt: skip
    for name, nodes_of in extra.items():
        parts[name] = (*parts[name], *(node.name for node in nodes_of))
    touched = {name for o in final for name in (*o.operands, *o.outputs)}
    before = {name for o in graph.operators for name in (*o.operands, *o.outputs)}
    tensors = [t for t in graph.tensors.values() if t.name in touched or t.name not in before]
    gone = {name: names.get(name, through.get(name)) for name in before if name not in touched}
    return Rewritten(graph.replace(tensors=tensors, operators=final), Lineage(parts, gone))


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype is not None and is_floating(tensor.dtype)


def _count(tensor: Tensor) -> int | None:
    return None if tensor.shape is None else prod(tensor.shape)
