"""Epilogue fusion: an operator absorbs the elementwise operators that follow it on a single-reader path.

A *link* is the tensor through which a follower joins its producer. Fusing a link takes that tensor out of existence,
and makes the other operands of the follower operands of the producer. That never costs anything where the follower
has no other operand, writes no more than it reads, and loses no place to write over; elsewhere it may: the producer
then waits for the other operands and needs room for them. So which links to fuse is a choice, and any choice is legal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.access.modes import undominated
from cosma.graph import Graph, Mode, Operator, TensorKind
from cosma.graph.in_place import in_place_operands
from cosma.graph.mode import RESIDENT
from cosma.graph.semantics import is_elementwise, is_random, is_training
from cosma.graph.tensor import joined_type
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.units import align_up

#: Most operators of a piece whose room is looked at: what an operator needs hardly changes beyond.
LONGEST_PIECE = 32


@dataclass(frozen=True, slots=True)
class Link:
    """A tensor through which an operator may join its producer."""

    #: The tensor: an intermediate with one reader, the only result of its producer.
    tensor: str
    #: The operators it lies between.
    producer: str
    follower: str


def links(graph: Graph) -> tuple[Link, ...]:
    """All links, followers in the graph's order, the links of one follower in operand order.

    The follower must be elementwise, and the tensor must have its result's full shape. A follower joins one producer
    at most, so of the links of one follower only one can be fused.
    """
    return tuple(link for operator in graph.operators for link in _links_of(graph, operator))


def _links_of(graph: Graph, operator: Operator) -> Iterable[Link]:
    if not is_elementwise(operator):
        return
    result = graph.tensors[operator.outputs[0]]
    for name in operator.inputs:
        tensor = graph.tensors[name]
        producer = graph.producer(name)
        if producer is None or tensor.kind is not TensorKind.INTERMEDIATE or len(graph.consumers(name)) > 1:
            continue
        maker = graph.operator(producer)
        if len(maker.outputs) > 1 or any(is_random(part) or is_training(part) for part in maker.parts):
            continue
        if any(_dequantises(graph, maker, other) for other in operator.inputs):
            continue
        known = tensor.shape is not None and result.shape is not None
        if tensor.shape == result.shape if known else tensor.size_bytes == result.size_bytes:
            yield Link(name, producer, operator.name)


def _dequantises(graph: Graph, operator: Operator, name: str) -> bool:
    """Whether an operator dequantises a tensor for itself; one that also read it as it is would read it twice."""
    producer = graph.producer(name)
    maker = graph.operator(producer) if producer is not None else operator
    return maker.type == operator.parts[0].type == "DequantizeLinear" and set(maker.inputs) <= set(operator.inputs)


def first_links(graph: Graph) -> tuple[Link, ...]:
    """One link for each follower: the first of its operands that qualifies."""
    found: dict[str, Link] = {}
    for link in links(graph):
        found.setdefault(link.follower, link)
    return tuple(found.values())


def late_links(graph: Graph) -> tuple[Link, ...]:
    """One link for each follower: through the operand produced last, when the other operands are there already."""
    found: dict[str, Link] = {}
    for link in links(graph):
        other = found.get(link.follower)
        if other is None or graph.operator_index(link.producer) > graph.operator_index(other.producer):
            found[link.follower] = link
    return tuple(found.values())


def free_links(graph: Graph, accelerator: Accelerator) -> tuple[Link, ...]:
    """Links that never cost anything to fuse, addresses aside.

    The follower reads nothing else that takes space, its result takes no more than the link, and whatever the producer
    could write over, the joined operator can.
    """
    free = []
    for link in first_links(graph):
        producer, follower = graph.operator(link.producer), graph.operator(link.follower)
        if len(follower.inputs) > 1 or (follower.weights and accelerator.weights == Weights.SCRATCHPAD):
            continue
        result, tensor = graph.tensors[follower.outputs[0]], graph.tensors[link.tensor]
        if align_up(result.size_bytes, accelerator.alignment) > align_up(tensor.size_bytes, accelerator.alignment):
            continue
        operands = [graph.tensors[name] for name in producer.operands]
        joined = _join(producer, follower, link.tensor)
        if set(in_place_operands(producer, tensor, operands)) <= set(in_place_operands(joined, result, operands)):
            free.append(link)
    return tuple(free)


def fuse(graph: Graph, chosen: Collection[str] | None = None) -> Rewritten:
    """Fuse the links whose tensors are named, by default the first of each follower; see :func:`links`.

    Raises ValueError if a name is no link, or two of one follower are named.
    """
    known = {link.tensor: link for link in links(graph)}
    chosen = [link.tensor for link in first_links(graph)] if chosen is None else chosen
    unknown = sorted(set(chosen) - known.keys())
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no link: it has other readers, or its reader is not elementwise over it")
    by_follower: dict[str, Link] = {}
    for name in chosen:
        link = known[name]
        if by_follower.setdefault(link.follower, link) is not link:
            raise ValueError(f"{link.follower!r} cannot join two producers")
    paths = _paths(graph, by_follower)
    heads = {path[0]: path for path in paths}
    inside = {name for path in paths for name in path[1:]}
    operators = {o.name: join_path(graph, heads[o.name]) for o in graph.operators if o.name not in inside}
    # A fused operator runs where its last part ran, so that its other operands are ready.
    order = sorted(operators.values(), key=lambda o: graph.operator_index(heads[o.name][-1]))
    tensors = [tensor for tensor in graph.tensors.values() if tensor.name not in chosen]
    lineage = Lineage({head: tuple(path) for head, path in heads.items()}, dict.fromkeys(sorted(chosen), None))
    return Rewritten(graph.replace(tensors=tensors, operators=order), lineage)


def without_links(graph: Graph) -> Graph:
    """A relaxation of every choice: the graph with every link of no size, and each operand of a path read once.

    Where a fused operator runs, its parts can run one after the other: each holds no more than the fused operator does,
    and what one has read, those behind it need not read again. So a lower bound for this graph holds for every choice.
    """
    found = links(graph)
    free = {link.tensor for link in found}
    before: dict[str, set[str]] = {}
    producers: dict[str, list[str]] = {}
    for link in found:
        producers.setdefault(link.follower, []).append(link.producer)
    operators = []
    for operator in graph.operators:
        read = {name for producer in producers.get(operator.name, ()) for name in before[producer]}
        before[operator.name] = read | set(operator.operands)
        inputs = tuple(name for name in operator.inputs if name not in read)
        weights = tuple(name for name in operator.weights if name not in read)
        operators.append(replace(operator, inputs=inputs, weights=weights))
    tensors = [replace(t, size_bytes=0) if t.name in free else t for t in graph.tensors.values()]
    return graph.replace(tensors=tensors, operators=operators)


# -- room -----------------------------------------------------------------------------------------------------


def needed_bytes(graph: Graph, operator: Operator, accelerator: Accelerator) -> int:
    """Least space an operator needs with every operand and result in the scratchpad, the best takeover counted.

    Under ``operands = stationary`` in the mode that needs least.

    Results exist in the graph; so do the operands.
    """
    if accelerator.operands == Operands.STATIONARY:
        return min(mode_needs(graph, operator, accelerator))
    return _need(graph, operator, accelerator, ())


def mode_needs(graph: Graph, operator: Operator, accelerator: Accelerator) -> list[int]:
    """Least space an operator needs in each of its modes, of which the resident one is all where it has none."""
    return [
        _need(graph, operator, accelerator, mode.may_stream) + align_up(mode.workspace_bytes, accelerator.alignment)
        for mode in operator.modes or (RESIDENT,)
    ]


def _need(graph: Graph, operator: Operator, accelerator: Accelerator, streamed: Collection[str]) -> int:
    kept = operator.operands if accelerator.weights == Weights.SCRATCHPAD else operator.inputs
    operands, results = ([graph.tensors[name] for name in names if name not in streamed] for names in (
        kept, operator.outputs
    ))  # fmt: skip
    total = sum(align_up(t.size_bytes, accelerator.alignment) for t in (*operands, *results))
    if not accelerator.in_place:
        return total
    pairs = (result for result in results if in_place_operands(operator, result, operands))
    return total - max((align_up(t.size_bytes, accelerator.alignment) for t in pairs), default=0)


def smallest_capacity(graph: Graph, accelerator: Accelerator) -> int:
    """Least capacity in bytes at which a plan exists, without what is reserved: 0 if everything may stream.

    Under ``fusion = epilogue`` any choice of links is legal, so it is the least over all choices: never more than
    without fusion.
    """
    if accelerator.operands == Operands.STREAMABLE:
        return 0
    if accelerator.fusion == "none":
        return max((needed_bytes(graph, o, accelerator) for o in graph.operators), default=0)
    return min(_least_capacity(graph, chosen, accelerator) for chosen in (first_links(graph), late_links(graph)))


def _least_capacity(graph: Graph, chosen: Iterable[Link], accelerator: Accelerator) -> int:
    """Least capacity over all ways to cut the paths that links make."""
    paths = _paths(graph, {link.follower: link for link in chosen})
    return max((_least_need(_piece_needs(graph, path, accelerator)) for path in paths), default=0)


def fitting(graph: Graph, accelerator: Accelerator, chosen: Iterable[Link]) -> tuple[Link, ...] | None:
    """The most of some links that can be fused so that every operator fits; None where some operator fits in no way."""
    by_follower = {link.follower: link for link in chosen}
    if accelerator.operands == Operands.STREAMABLE:
        return tuple(by_follower.values())
    capacity = accelerator.usable_bytes
    kept: list[Link] = []
    for path in _paths(graph, by_follower):
        cuts = _fewest_cuts(_piece_needs(graph, path, accelerator), capacity)
        if cuts is None:
            return None
        kept.extend(by_follower[name] for i, name in enumerate(path) if i and i not in cuts)
    return tuple(kept)


def _piece_needs(graph: Graph, path: list[str], accelerator: Accelerator) -> list[list[int]]:
    """Space each piece of a path needs as one operator: by where it starts, then by how many operators it has."""
    needs = []
    for start in range(len(path)):
        joined = graph.operator(path[start])
        row = [needed_bytes(graph, joined, accelerator)]
        for name in path[start + 1 : start + LONGEST_PIECE]:
            joined = _join(joined, graph.operator(name), joined.outputs[0])
            row.append(needed_bytes(graph, joined, accelerator))
        needs.append(row)
    return needs


def _least_need(needs: list[list[int]]) -> int:
    """Least capacity for a path of operators, cut wherever that helps."""
    least: list[int | None] = [0] + [None] * len(needs)
    for start, row in enumerate(needs):
        before = least[start]
        assert before is not None
        for length, need in enumerate(row, 1):
            most, known = max(before, need), least[start + length]
            least[start + length] = most if known is None else min(known, most)
    return least[-1] or 0


def _fewest_cuts(needs: list[list[int]], capacity: int) -> set[int] | None:
    """Where to cut a path, as positions in it, so that every piece fits and the pieces are as few as can be."""
    best: list[tuple[int, ...] | None] = [()] + [None] * len(needs)
    for start, row in enumerate(needs):
        before = best[start]
        if before is None:
            continue
        for length, need in enumerate(row, 1):
            known = best[start + length]
            if need <= capacity and (known is None or len(before) + 1 < len(known)):
                best[start + length] = (*before, start)
    found = best[-1]
    return None if found is None else set(found)


# -- paths ----------------------------------------------------------------------------------------------------


def _paths(graph: Graph, by_follower: Mapping[str, Link]) -> list[list[str]]:
    """Operators that become one, in the order they compute, heads in the graph's order; most are alone."""
    follower = {link.producer: link.follower for link in by_follower.values()}
    paths = []
    for operator in graph.operators:
        if operator.name in by_follower:
            continue
        path = [operator.name]
        while path[-1] in follower:
            path.append(follower[path[-1]])
        paths.append(path)
    return paths


def join_path(graph: Graph, path: list[str]) -> Operator:
    """One operator in place of a path of operators, each of which reads the only result of the one before."""
    joined = graph.operator(path[0])
    for name in path[1:]:
        joined = _join(joined, graph.operator(name), joined.outputs[0])
    return joined


def _join(head: Operator, follower: Operator, link: str) -> Operator:
    inputs = dict.fromkeys(head.inputs + tuple(name for name in follower.inputs if name != link))
    parts = head.parts + follower.parts
    return replace(
        head,
        type=joined_type(parts),
        inputs=tuple(inputs),
        outputs=follower.outputs,
        weights=tuple(dict.fromkeys(head.weights + follower.weights)),
        covers=head.covers + follower.covers,
        macs=None if head.macs is None else head.macs + (follower.macs or 0),
        domain="",
        attributes=(),
        fused=parts,
        reads=head.reads + tuple(region for region in follower.reads if region.root != link),
        modes=_joined_modes(head, follower, link),
        joined=tuple(dict.fromkeys(head.joined + follower.joined)),
    )


def _joined_modes(head: Operator, follower: Operator, link: str) -> tuple[Mode, ...]:
    """Modes of an operator and of an elementwise one that goes along with it, element by element.

    Each streams what it did; the result passes only where the link between the two may pass in both.
    """
    if not (head.modes or follower.modes):
        return ()
    found = []
    for one in head.modes or (RESIDENT,):
        for other in follower.modes or (RESIDENT,):
            passes = link in one.may_stream and link in other.may_stream
            later = [name for name in other.may_stream if name != link and (passes or name not in follower.outputs)]
            streamed = dict.fromkeys([*(name for name in one.may_stream if name != link), *later])
            found.append(Mode(one.name, tuple(streamed), one.workspace_bytes + other.workspace_bytes))
    return undominated(found)
