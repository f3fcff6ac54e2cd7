"""A network as the bound over all tilings sees it: results, what their elements depend on, and heavy weights.

Operators that only select or join, which need not be there in a plan, are looked through or left out: the result of a
Concat is its operands, a tensor that one Split alone reads is what this yields, and nothing is known of the result of a
Slice. Nothing is asked of an operand of which an operator reads only what it selects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from cosma.access import NodeSite
from cosma.access.operator import OperatorAccess, can_be_cut, operator_access
from cosma.access.site import Access, Argument, Shape, Site
from cosma.access.table import access_of
from cosma.bounds.couplings import Coupling, coupling_of, weight_coupling
from cosma.graph import Graph, Operator, TensorKind
from cosma.graph.dtypes import width_bits
from cosma.rewrite.fuse import links
from cosma.rewrite.moves import COPIES

#: Shape of a tensor of which no shape is known: two elements, of which one says nothing of the other.
_UNKNOWN: Shape = (2,)


@dataclass(frozen=True, slots=True)
class Need:
    """What an operator reads of a tensor that another one makes.

    Attributes
    ----------
    tensor
        The tensor.
    coupling
        How elements of the result depend on its elements; the coupling is even.
    seen
        The shape in which the operator sees the tensor.
    late
        Whether it is read when a sum is complete, so that a sum that has begun does not stand in for it.
    rule, site, position
        Where to look up what a box of the result needs; no rule where it needs all.
    """

    tensor: str
    coupling: Coupling
    seen: Shape
    late: bool
    rule: Access | None = None
    site: Site | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class HeldWeight:
    """A weight that the tiles of an operator share.

    Attributes
    ----------
    tensor, size_bytes, shape
        The weight, in the shape that its operator sees.
    coupling
        For each axis, the axis of the result that it is cut with.
    whole
        Whether every tile reads all of it.
    site
        Its operator.
    """

    tensor: str
    size_bytes: int
    shape: Shape
    coupling: Coupling
    whole: bool
    site: Site


@dataclass(frozen=True, slots=True)
class Work:
    """An operator.

    Attributes
    ----------
    type, results, shape
        Its type, its results, and the shape of the first.
    needs
        What it reads of others' results and of graph inputs.
    weight
        The weight that it multiplies by, if it is known how.
    sum_bytes
        Size of its partial sums, where it may run as a chain of them; the least over what may be fused behind it.
    is_copy
        Whether it only selects or joins, so that a plan may do without it.
    parts_of
        For a Split that alone reads its operand, the operand.
    """

    type: str
    results: tuple[str, ...]
    shape: Shape
    needs: tuple[Need, ...]
    weight: HeldWeight | None = None
    sum_bytes: int | None = None
    is_copy: bool = False
    parts_of: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dependences:
    """All operators in their order, and the tensors between them.

    Attributes
    ----------
    work
        Operators.
    size_bytes, shape, price
        Of tensors: the price is what a byte costs that is needed while it is not in the scratchpad.
    maker
        Number of the operator of each result.
    readers
        For each tensor, the numbers of operators that need it, each with the place among its needs.
    fused
        For each operator, a bit for itself and for each behind which it may be fused: what these yield may be complete
        only with its own result.
    """

    work: tuple[Work, ...]
    size_bytes: Mapping[str, int]
    shape: Mapping[str, Shape]
    price: Mapping[str, int]
    maker: Mapping[str, int]
    readers: Mapping[str, tuple[tuple[int, int], ...]]
    fused: tuple[int, ...]


def dependences_of(graph: Graph, sites: Mapping[str, NodeSite]) -> Dependences:
    """Look at every operator of a graph that is not tiled; linear in the graph."""
    tensors = graph.tensors
    hidden = {t.name for t in tensors.values() if t.state} | {t.state for t in tensors.values() if t.state}
    splits = {o.name: o.inputs[0] for o in graph.operators if _is_only_split(graph, sites, o)}
    hidden |= {name for o in graph.operators if o.type in COPIES and o.name not in splits for name in o.outputs}
    hidden |= {t.name for t in tensors.values() if t.kind is TensorKind.WEIGHT or not t.size_bytes}
    joins: dict[str, tuple[tuple[str, ...], int]] = {}
    work = []
    sums = _sum_bytes(graph)
    followed = {link.producer for link in links(graph)}
    for operator in graph.operators:
        one = operator_access(graph, sites, operator)
        join = _join_of(graph, one)
        if join is not None:
            joins[operator.outputs[0]] = join
        made = _work(graph, one, sums.get(operator.name, 0), may_follow=operator.name in followed)
        needs = tuple(found for need in made.needs for found in _behind_joins(graph, need, joins))
        kept = () if made.is_copy else tuple(need for need in needs if need.tensor not in hidden)
        work.append(
            replace(made, needs=kept, parts_of=splits.get(operator.name))
        )
    readers: dict[str, list[tuple[int, int]]] = {}
    for v, made in enumerate(work):
        for place, need in enumerate(made.needs):
            readers.setdefault(need.tensor, []).append((v, place))
    return Dependences(
        tuple(work),
        {t.name: t.size_bytes for t in tensors.values()},
        {name: _shape(graph, name) for name in tensors},
        _prices(graph),
        {name: v for v, made in enumerate(work) for name in made.results if name not in hidden},
        {name: tuple(found) for name, found in readers.items()},
        _fused(graph),
    )


def _fused(graph: Graph) -> tuple[int, ...]:
    found = [1 << v for v in range(len(graph.operators))]
    for link in links(graph):  # followers in the graph's order
        found[graph.operator_index(link.follower)] |= found[graph.operator_index(link.producer)]
    return tuple(found)


def _prices(graph: Graph) -> dict[str, int]:
    """What is written off-chip in any case is only read again; so is what becomes part of it without a copy."""
    price = {t.name: 2 if t.kind is TensorKind.INTERMEDIATE else 1 for t in graph.tensors.values()}
    for operator in reversed(graph.operators):
        if operator.type in COPIES and any(price[name] == 1 for name in operator.outputs):
            for name in operator.inputs:
                price[name] = 1
    return price


def _sum_bytes(graph: Graph) -> dict[str, int]:
    """Least size of a result and of what elementwise operators make of it that may be fused behind it."""
    follower: dict[str, list[str]] = {}
    for link in links(graph):
        follower.setdefault(link.producer, []).append(link.follower)
    found: dict[str, int] = {}
    for operator in reversed(graph.operators):
        own = sum(graph.tensors[name].size_bytes for name in operator.outputs)
        found[operator.name] = min([own, *(found[name] for name in follower.get(operator.name, ()))])
    return found


def _is_only_split(graph: Graph, sites: Mapping[str, NodeSite], operator: Operator) -> bool:
    """Whether an operator cuts an intermediate that nothing else reads, as it is, into its results.

    Behind or before a view, a box of a result is no box of the operand.
    """
    if operator.type != "Split" or operator.fused or len(operator.inputs) != 1 or operator.reads:
        return False
    whole, *parts = (graph.tensors[name] for name in (*operator.inputs, *operator.outputs))
    node = next((sites[n] for n in operator.covers if n in sites and sites[n].site.part.type == "Split"), None)
    return (
        whole.kind is TensorKind.INTERMEDIATE and len(graph.consumers(whole.name)) == 1
        and node is not None and node.site.shape(0) == whole.shape
        and node.site.results == tuple(part.shape for part in parts)
    )  # fmt: skip


def _join_of(graph: Graph, one: OperatorAccess) -> tuple[tuple[str, ...], int] | None:
    """Operands of a Concat that joins them as they are, and the axis."""
    if one.operator.type != "Concat" or len(one.chain) != 1:
        return None
    node = one.chain[0]
    shapes = {name: graph.tensors[name].shape for name in one.operator.inputs}
    if any(a is None or a.constant or shapes.get(a.value) != a.shape for a in node.operands):
        return None
    axis = node.site.integer("axis", 0) % len(node.site.result)
    return tuple(a.value for a in node.operands if a is not None), axis


def _behind_joins(graph: Graph, need: Need, joins: Mapping[str, tuple[tuple[str, ...], int]]) -> list[Need]:
    """Replace a joined tensor by its pieces, if the operator needs all along the axis of the join."""
    if need.tensor not in joins:
        return [need]
    pieces, axis = joins[need.tensor]
    if need.seen != graph.tensors[need.tensor].shape or need.coupling[axis] is not None:
        return []
    found = []
    for piece in pieces:
        shape = graph.tensors[piece].shape
        assert shape is not None
        # Windows along other axes are the same; along the axis of the join all is needed.
        one = Need(piece, need.coupling, shape, need.late, need.rule, need.site, need.position)
        found += _behind_joins(graph, one, joins)
    return found


def _shape(graph: Graph, name: str) -> Shape:
    shape = graph.tensors[name].shape
    return _UNKNOWN if shape is None else shape


def _work(graph: Graph, one: OperatorAccess, sum_bytes: int, *, may_follow: bool) -> Work:
    operator = one.operator
    shape = one.shapes.get(one.result, _UNKNOWN)
    is_copy = operator.type in COPIES
    if not one.chain:
        if may_follow and not all(_has_parts(graph, name) for name in operator.outputs):
            # Fused with what follows, the result is not there, and may be all that keeps the operator whole.
            return Work(operator.type, operator.outputs, shape, (), is_copy=is_copy)
        whole = tuple(
            Need(name, (None,) * len(seen), seen, late=False)
            for name in dict.fromkeys(operator.inputs) if name not in _selected(operator)
            for seen in (_shape(graph, name),)
        )
        return Work(operator.type, operator.outputs, shape, whole, is_copy=is_copy)
    summing = one.contraction()
    needs, weight = _needs(graph, one, shape, summing)
    return Work(
        operator.type, operator.outputs, shape, tuple(needs), weight,
        sum_bytes if summing is not None else None, is_copy,
    )  # fmt: skip


def _selected(operator: Operator) -> set[str]:
    """Operands of which an operator reads only what it selects: rows by indices that are known, for example."""
    return {region.root for region in operator.reads}


def _has_parts(graph: Graph, name: str) -> bool:
    """Whether parts of a tensor are known and can be tensors."""
    return graph.tensors[name].shape is not None and can_be_cut(graph, name)


def _needs(
    graph: Graph, one: OperatorAccess, shape: Shape, summing: NodeSite | None
) -> tuple[list[Need], HeldWeight | None]:
    """Follow the nodes of an operator from its result back, as long as each has the shape of the result."""
    operator = one.operator
    makers = {name: node for node in one.chain for name in node.results if name}
    even = {one.result}
    needs: list[Need] = []
    weight: HeldWeight | None = None
    main = summing or one.chain[0]
    selected = _selected(operator)
    for node in reversed(one.chain):
        if node.results[0] not in even or node.site.results[0] != shape:
            continue
        rule = access_of(node.site)
        late = summing is not None and node is not summing
        for position, argument in enumerate(node.operands):
            if argument is None or 0 in argument.shape:
                continue
            if argument.constant:
                if node is main and position > 0 and weight is None:
                    weight = _weight(graph, operator, rule, node.site, position, argument)
                continue
            name = argument.value
            inner = makers.get(name) if name not in operator.inputs else None
            coupling = coupling_of(rule, node.site, position)
            if coupling is None:
                continue
            if inner is not None and coupling == tuple(range(len(shape))) and argument.shape == shape:
                even.add(name)
            elif inner is not None and inner.site.part.type == "DequantizeLinear" and inner.operands[0] is not None:
                name = inner.operands[0].value
            if name in operator.inputs and name not in selected:
                needs.append(Need(name, coupling, argument.shape, late, rule, node.site, position))
    return needs, weight


def _weight(
    graph: Graph, operator: Operator, rule: Access, site: Site, position: int, argument: Argument
) -> HeldWeight | None:
    if len(argument.stored) != 1 or len(argument.shape) < 2 or argument.stored[0] not in operator.weights:
        return None
    tensor = graph.tensors[argument.stored[0]]
    if tensor.rows is not None or tensor.dtype is None or tensor.shape is None or site.shape(position) is None:
        return None
    if width_bits(tensor.dtype) < 8 or tensor.size_bytes != prod(tensor.shape) * width_bits(tensor.dtype) // 8:
        return None  # generated from less, or packed
    aligned = argument.aligned and prod(tensor.shape) == prod(argument.shape)  # a view keeps the order of elements
    coupling = weight_coupling(rule, site, position) if aligned else (None,) * len(argument.shape)
    if coupling is None:
        return None
    return HeldWeight(tensor.name, tensor.size_bytes, argument.shape, coupling, not aligned, site)
