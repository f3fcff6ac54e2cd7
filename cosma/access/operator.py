"""Access of an operator of a graph, which may stand for several nodes: from results back to the tensors it reads."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

from cosma.access.boxes import Box, hull, region_of_result, through_reshape, whole
from cosma.access.site import Argument, Barrier, Contraction, NodeSite, Shape
from cosma.access.table import access_of
from cosma.graph import Graph, Operator
from cosma.graph.dtypes import width_bits
from cosma.graph.semantics import is_elementwise_part

#: Elementwise operators whose result has another element type than what they read.
_RETYPING = frozenset(
    {"Cast", "CastLike", "DequantizeLinear", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less",
     "LessOrEqual", "QuantizeLinear"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeRegion:
    """What one node computes for a region of its operator's result."""

    #: The node.
    node: NodeSite
    #: Region of its first result.
    region: Box
    #: Region of each operand by position, in the shape that the node sees; None where nothing of it is read.
    reads: tuple[Box | None, ...]


@dataclass(frozen=True, slots=True)
class SumStep:
    """One step of a chain of partial sums."""

    #: Interval of the axis summed over.
    span: tuple[int, int]
    #: Whether it adds the bias, and whether what follows the sum is applied to it.
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class OperatorAccess:
    """What regions of an operator's results depend on."""

    #: The operator.
    operator: Operator
    #: Its nodes in the order they compute; empty for a barrier. Nodes that dequantise its operands are included, and
    #: Concats that copy nothing, of which it reads the pieces.
    chain: tuple[NodeSite, ...]
    #: Shape of every tensor that it touches.
    shapes: Mapping[str, Shape]
    #: Why nothing is known of what a region depends on; empty where the chain says it.
    barrier: str = ""
    #: Results of the Concats that copy nothing.
    joins: Collection[str] = ()

    @property
    def result(self) -> str:
        """The result whose regions tiles are."""
        return self.operator.outputs[0]

    def likeness(self) -> Hashable:
        """What decides its access, apart from names: equal for operators whose regions read like regions."""
        number: dict[str, int] = {}

        def of(names: Iterable[str]) -> tuple[int, ...]:
            return tuple(number.setdefault(name, len(number)) for name in names)

        own = self.operator
        names = (*own.operands, *own.outputs)
        touched = of(names), len(own.inputs), len(own.outputs), bool(own.reads)
        nodes = tuple(
            (
                node.site.part, node.site.operands, node.site.results, tuple(sorted(node.site.contents.items())),
                node.site.opset, of(node.results),
                tuple(a and (of((a.value, *a.stored)), a.shape, a.constant, a.aligned) for a in node.operands),
            )
            for node in self.chain
        )  # fmt: skip
        shapes = tuple(self.shapes.get(name) for name in names)
        return touched, shapes, nodes, frozenset(number[name] for name in self.joins)

    def cuts(self) -> tuple[bool, ...]:
        """Axes of the result along which the operator can be cut."""
        shape = self.shapes.get(self.result, ())
        if not self.chain:
            return (False,) * len(shape)
        found = [True] * len(shape)
        for node in self.chain:
            if self._inner(node):
                continue  # it follows what reads it
            rule = access_of(node.site)
            if isinstance(rule, Barrier) or node.site.results[0] != shape:
                return (False,) * len(shape)
            found = [a and b for a, b in zip(found, rule.cuts(node.site), strict=True)]
        return tuple(found)

    def has_like_results(self) -> bool:
        """Whether all results have the extents of the first along every axis that can be cut."""
        first, *others = (self.shapes[name] for name in self.operator.outputs)
        return all(other == first for other in others) or all(
            len(other) == len(first)
            and all(size == own for cut, size, own in zip(self.cuts(), other, first, strict=True) if cut)
            for other in others
        )

    def region_of(self, name: str, box: Box) -> Box:
        """Region of a result that a tile writes whose region of the first is given: along other axes all of it."""
        return region_of_result(box, self.shapes.get(self.result, ()), self.shapes.get(name, ()))

    def contraction(self) -> NodeSite | None:
        """The node that sums over an axis, if the operator can run as a chain of partial sums.

        What follows it works element by element on the sum. An operator that stands for nodes that dequantise and
        quantise sums integers exactly, which sums of its floating-point stand-ins do not: it has no such chain.
        """
        own = [node for node in self.chain if not self._joins(node)]
        if not own or len(self.operator.outputs) != 1 or not any(self.cuts()):
            return None
        rule, site = access_of(own[0].site), own[0].site
        if not isinstance(rule, Contraction) or any(node.site.part.type in _RETYPING for node in own[1:]):
            return None
        if not all(is_elementwise_part(node.site.part) for node in own[1:]):
            return None
        return own[0] if rule.reduced(site) > 1 else None

    def reduced(self) -> int:
        """Extent of the axis summed over along which partial sums can be taken; 0 where there is none."""
        node = self.contraction()
        if node is None:
            return 0
        rule = access_of(node.site)
        assert isinstance(rule, Contraction)
        return rule.reduced(node.site)

    def why_whole(self) -> str:
        """Why the operator cannot be cut along any axis longer than one; empty where it can, or where all is small."""
        shape = self.shapes.get(self.result, ())
        if all(prod(size) <= 1 for size in self.shapes.values()) and self.shapes:
            return ""
        if self.barrier:
            return self.barrier
        if max(shape, default=1) <= 1:
            return "its result is one element"
        if any(allowed and size > 1 for allowed, size in zip(self.cuts(), shape, strict=True)):
            return ""
        for node in self.chain:
            if isinstance(access_of(node.site), Barrier):
                return f"no rule of access covers {node.site.part.type}"
            if not self._inner(node) and node.site.results[0] != shape:
                return f"{node.site.part.type} within it yields another shape"
        return "every element depends on all of an operand"

    def reads_whole(self) -> dict[str, tuple[int, ...]]:
        """For each operand, the axes longer than one along which a single element of the result reads all of it."""
        shape = self.shapes.get(self.result, ())
        middle = tuple((size // 2, size // 2 + 1) for size in shape)
        reads = self.reads(middle if 0 not in shape else whole(shape))
        found = {}
        for name, box in reads.items():
            full = whole(self.shapes[name])
            found[name] = tuple(i for i, span in enumerate(box) if span == full[i] and span[1] > 1)
        return found

    def _inner(self, node: NodeSite) -> bool:
        """Whether a node stands before the first that gives the operator its shape: it dequantises or joins pieces."""
        if self._joins(node):
            return True
        return node.site.part.type == "DequantizeLinear" and node.results[0] != self.result

    def _joins(self, node: NodeSite) -> bool:
        """Whether a node is a Concat that copies nothing."""
        return node.results[0] in self.joins

    def reads(self, box: Box, step: SumStep | None = None) -> dict[str, Box]:
        """Region of each tensor that a region of the result depends on; tensors that are not read are left out.

        With a step, what that step of its sum reads, apart from the partial sum it adds to.
        """
        if not self.chain:
            return {name: whole(self.shapes[name]) for name in self.operator.operands if name in self.shapes}
        return self._trace(box, step)[1]

    def touches(self, box: Box, step: SumStep | None, every: Mapping[str, Box]) -> dict[str, Box]:
        """Region of each tensor that a tile reads: what it depends on, and what lies behind that and no tile needs.

        Windows with strides may pass over the last rows or columns of their operand, which the operator as a whole
        reads nevertheless. Left out by tiles, they would be parts of their own for all that touch the tensor. An
        operator that selects what it reads does leave the rest out. ``every`` is what :meth:`reads` says of the whole
        result.
        """
        reads = self.reads(box, step)
        if self.operator.reads:
            return reads
        return {name: _to_the_edge(read, every.get(name, read), self.shapes[name]) for name, read in reads.items()}

    def walk(self, box: Box, step: SumStep | None = None) -> list[NodeRegion]:
        """What each node computes for a region of the result, in the order they compute; nothing for a barrier."""
        return self._trace(box, step)[0]

    def _trace(self, box: Box, step: SumStep | None) -> tuple[list[NodeRegion], dict[str, Box]]:
        summing = None if step is None else self.contraction()
        begin = self.result if step is None or step.last or summing is None else summing.results[0]
        wanted: dict[str, list[Box]] = {begin: [box]}
        found: dict[str, list[Box]] = {}
        regions: list[NodeRegion] = []
        for node in reversed(self.chain):
            boxes = [b for name in node.results if name for b in wanted.get(name, [])]
            if not boxes:
                continue
            region = hull(boxes)
            rule = access_of(node.site)
            reads = rule.reads(node.site, region)
            if node is summing and step is not None and isinstance(rule, Contraction):
                reads = rule.narrowed(node.site, reads, step.span, first=step.first)
            regions.append(NodeRegion(node, region, reads))
            for argument, read in zip(node.operands, reads, strict=False):
                if argument is not None and read is not None:
                    self._note(argument, read, wanted, found)
        return regions[::-1], {name: hull(boxes) for name, boxes in found.items()}

    def _note(
        self, argument: Argument, read: Box, wanted: dict[str, list[Box]], found: dict[str, list[Box]]
    ) -> None:
        if argument.constant:
            for name in argument.stored:
                if name in self.shapes:
                    shape = self.shapes[name]
                    in_order = argument.aligned and prod(shape) == prod(argument.shape)
                    box = through_reshape(read, argument.shape, shape) if in_order else whole(shape)
                    found.setdefault(name, []).append(box)
            return
        if argument.value in self.shapes and argument.value in self.operator.inputs:
            shape = self.shapes[argument.value]
            found.setdefault(argument.value, []).append(through_reshape(read, argument.shape, shape))
            return
        inner = next((n for n in self.chain if argument.value in n.results), None)
        if inner is not None:
            shape = inner.site.results[inner.results.index(argument.value)] or ()
            wanted.setdefault(argument.value, []).append(through_reshape(read, argument.shape, shape))


def _to_the_edge(read: Box, every: Box, shape: Shape) -> Box:
    """A region that reaches as far as all regions do reaches to the edge of the tensor."""
    if every == whole(shape):
        return read
    return tuple(
        (0 if span[0] == most[0] else span[0], size if span[1] == most[1] else span[1])
        for span, most, size in zip(read, every, shape, strict=True)
    )


def operator_access(graph: Graph, sites: Mapping[str, NodeSite], operator: Operator) -> OperatorAccess:
    """Build the access of an operator; a barrier where its nodes are not known or not covered by a rule.

    Sites are the nodes of the model by first result, as :class:`cosma.frontend.LoadedModel` has them.
    """
    shapes = {
        name: shape
        for name in (*operator.operands, *operator.outputs)
        if (shape := graph.tensors[name].shape) is not None
    }

    def barrier(why: str) -> OperatorAccess:
        return OperatorAccess(operator, (), shapes, why)

    complete = len(shapes) == len(operator.operands) + len(operator.outputs)
    known = [sites[name] for name in operator.covers if name in sites]
    if not known or not complete:
        return barrier("its nodes are not known" if complete else "a tensor that it reads or yields has no known shape")
    whole_result = next((name for name in operator.outputs if not can_be_cut(graph, name)), None)
    if whole_result is not None:
        return barrier(f"its result {whole_result!r} cannot be parts: packed elements, or indices that select rows")
    if any(graph.tensors[name].region is not None for name in operator.outputs):
        return barrier("its results are parts already")
    makers = {name: node for node in sites.values() for name in node.results if name} if _reads_inside(
        known, operator
    ) else {}
    chain, joins = _with_inner(known, operator, makers)
    readable = {*operator.operands, *(name for node in chain for name in node.results)}
    for node in chain:
        for argument in node.operands:
            if argument is None:
                continue
            if argument.constant:
                continue
            if argument.value not in readable:
                return barrier(f"it reads {argument.value!r}, which only another operator knows")
    if operator.outputs[0] not in {name for node in chain for name in node.results}:
        return barrier("none of its nodes yields its result")
    access = OperatorAccess(operator, chain, shapes, joins=joins)
    if not access.has_like_results():
        return barrier(access.why_whole() or "its results have different shapes")
    return access


def can_be_cut(graph: Graph, name: str) -> bool:
    """Whether a tensor may consist of parts: of whole bytes, and no indices that select rows of a table."""
    tensor = graph.tensors[name]
    if tensor.dtype is None or width_bits(tensor.dtype) < 8 or not tensor.size_bytes or tensor.rows is not None:
        return False
    weights = (graph.tensors[w] for reader in graph.consumers(name) for w in graph.operator(reader).weights)
    return not any(weight.rows is not None and name in weight.rows.indices for weight in weights)


def _reads_inside(known: list[NodeSite], operator: Operator) -> bool:
    """Whether a node reads a value that neither the operator's operands nor its own nodes hold."""
    held = {*operator.operands, *(name for node in known for name in node.results)}
    return any(a is not None and not a.constant and a.value not in held for node in known for a in node.operands)


def _with_inner(
    known: list[NodeSite], operator: Operator, makers: Mapping[str, NodeSite]
) -> tuple[tuple[NodeSite, ...], frozenset[str]]:
    """Put before the nodes those that other operators cover or none, and tell which of these join pieces.

    They dequantise operands, or are Concats of which the operator reads the pieces: one that it reads, and one within
    such a one.
    """
    inner: list[NodeSite] = []
    waiting = list(known)
    held = {*operator.operands, *(name for node in known for name in node.results)}
    joins: set[str] = set()
    for node in waiting:  # grows
        within = node.results[0] in joins
        for argument in node.operands:
            if argument is None or argument.constant or argument.value in held:
                continue
            maker = makers.get(argument.value)
            if maker is None:
                continue
            kind = maker.site.part.type
            if kind == "Concat" and (within or argument.value in operator.joined):
                joins.add(argument.value)
            elif kind != "DequantizeLinear":
                continue
            inner.append(maker)
            waiting.append(maker)
            held.update(maker.results)
    return _sorted([*inner, *known]), frozenset(joins)


def _sorted(nodes: list[NodeSite]) -> tuple[NodeSite, ...]:
    """Nodes in an order in which they compute: an operator need not list those that dequantise before their readers."""
    makers = {name: node for node in nodes for name in node.results if name}
    placed: dict[int, NodeSite] = {}
    for last in nodes:
        waiting = [last]
        while waiting:
            node = waiting[-1]
            before = [makers[a.value] for a in node.operands if a is not None and a.value in makers]
            open_makers = [maker for maker in before if id(maker) not in placed and maker not in waiting]
            if open_makers:
                waiting += open_makers
            else:
                placed.setdefault(id(waiting.pop()), node)
    return tuple(placed.values())
