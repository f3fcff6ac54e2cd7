"""The nodes of a model as the importer walks them: names made readable, single assignment checked, sorted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.topological import find_cycle, nearest_order

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, NodeProto

#: Domains whose operators mean what their names say; others are written with their domain before them.
ONNX_DOMAINS = ("", "ai.onnx")
_PLAIN_DOMAINS = (*ONNX_DOMAINS, "com.microsoft")


def readable(name: str | bytes) -> str:
    r"""Write a name as text: unchanged if it is UTF-8, otherwise with ``\xNN`` for stray bytes and ``\\`` for ``\``."""
    if isinstance(name, str):
        return name
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _readable_all(names: Iterable[str]) -> tuple[str, ...]:
    return tuple([name if type(name) is str else readable(name) for name in names])


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One ONNX node.

    Attributes
    ----------
    name
        As in the model; may be empty or repeated.
    type, domain
        Operator type and domain, ``""`` for ONNX's own.
    inputs, outputs
        Names, ``""`` for an absent optional one.
    attributes
        By name.
    captures
        Names of the enclosing graph that its subgraphs read, each once, as they are written there.
    proto
        The message it was read from.
    renames
        Names that were changed since, new by old, where the node comes from a branch put in place of an If.
    first_output
        Name of the first result that exists; empty if there is none.
    reads
        Every name it reads, captures included.
    """

    name: str
    type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeProto]
    proto: NodeProto
    captures: tuple[str, ...] = ()
    subgraphs: bool = False
    renames: Mapping[str, str] = field(default_factory=dict)
    first_output: str = field(init=False)
    reads: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        first = self.outputs[0] if self.outputs and self.outputs[0] else next(filter(None, self.outputs), "")
        object.__setattr__(self, "first_output", first)
        reads = tuple(filter(None, self.inputs))
        if self.captures:
            reads += tuple(self.renames.get(name, name) for name in self.captures)
        object.__setattr__(self, "reads", reads)

    @property
    def qualified_type(self) -> str:
        """Operator type, with the domain before it unless it is ONNX's or ONNX Runtime's."""
        return self.type if self.domain in _PLAIN_DOMAINS else f"{self.domain}.{self.type}"

    def __str__(self) -> str:
        label = self.name or self.first_output
        return f"node {label!r} ({self.qualified_type})"

    def integer(self, name: str, default: int | None = None) -> int | None:
        """An integer attribute."""
        attribute = self.attributes.get(name)
        return default if attribute is None else int(attribute.i)

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        attribute = self.attributes.get(name)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers among the attributes."""
        attribute = self.attributes.get(name)
        return None if attribute is None else tuple(attribute.ints)


def make_node(proto: NodeProto) -> Node:
    """Read one node."""
    attributes = {readable(attribute.name): attribute for attribute in proto.attribute}
    graphs: list[GraphProto] = []
    for attribute in attributes.values():
        if attribute.HasField("g"):
            graphs.append(attribute.g)
        graphs.extend(attribute.graphs)
    domain = readable(proto.domain)
    return Node(
        name=readable(proto.name),
        type=readable(proto.op_type),
        domain="" if domain in ONNX_DOMAINS else domain,
        inputs=_readable_all(proto.input),
        outputs=_readable_all(proto.output),
        attributes=attributes,
        proto=proto,
        captures=tuple(dict.fromkeys(name for graph in graphs for name in captured_names(graph))) if graphs else (),
        subgraphs=bool(graphs),
    )


def captured_names(graph: GraphProto) -> tuple[str, ...]:
    """Names a subgraph reads from the graphs around it, in the order it reads them, each once.

    Protobuf cannot nest deeper than 100 messages, which bounds the recursion to 33 levels.
    """
    own = {readable(value.name) for value in graph.input}
    own.update(readable(tensor.name) for tensor in graph.initializer)
    own.update(readable(sparse.values.name) for sparse in graph.sparse_initializer)
    read: dict[str, None] = {}
    for proto in graph.node:
        node = make_node(proto)
        read.update((name, None) for name in node.reads if name not in own)
        own.update(node.outputs)
    read.update((readable(value.name), None) for value in graph.output if readable(value.name) not in own)
    return tuple(read)


def inner_graphs(nodes: Iterable[Node]) -> Iterator[GraphProto]:
    """Subgraphs of nodes, at any depth."""
    stack = [attribute.g for node in nodes for attribute in node.attributes.values() if attribute.HasField("g")]
    while stack:
        graph = stack.pop()
        yield graph
        stack.extend(a.g for inner in graph.node for a in inner.attribute if a.HasField("g"))


def live_nodes(nodes: Sequence[Node], outputs: Iterable[str]) -> list[bool]:
    """Which of the sorted nodes some graph output depends on."""
    needed = set(outputs)
    live = [False] * len(nodes)
    for i in range(len(nodes) - 1, -1, -1):
        node = nodes[i]
        if any(name in needed for name in node.outputs if name):
            live[i] = True
            needed.update(node.reads)
    return live


def sort_nodes(nodes: Sequence[Node], defined: set[str], outputs: Sequence[str]) -> tuple[list[Node], bool]:
    """Check single assignment and bring nodes into topological order, the given one where it is topological.

    Raises ModelLoadError on a name with two producers, an undefined operand or output, or a cycle. Returns the nodes in
    order, and whether that is the order given.
    """
    producer = _producers(nodes, defined)
    followers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for name in node.reads:
            before = producer.get(name)
            if before is not None:
                followers[before].append(i)
            elif name not in defined:
                raise ModelLoadError(
                    f"{node} reads {name!r}, which no node produces and which is neither a graph input nor an "
                    "initializer; the model is incomplete: export it again"
                )
    for name in outputs:
        if name not in producer and name not in defined:
            raise ModelLoadError(
                f"graph output {name!r} is produced by no node and is neither a graph input nor an initializer; "
                "the model is incomplete: export it again"
            )
    order = nearest_order(followers)
    if len(order) < len(nodes):
        cycle = find_cycle(followers, order)
        shown = cycle if len(cycle) <= 8 else [*cycle[:7], cycle[-1]]
        text = " -> ".join(nodes[i].name or nodes[i].first_output for i in shown)
        raise ModelLoadError(
            f"the model has a cycle of {len(cycle) - 1} nodes: {text}; a tensor cannot depend on itself"
        )
    return [nodes[i] for i in order], order == sorted(order)


def _producers(nodes: Sequence[Node], defined: set[str]) -> dict[str, int]:
    producer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.outputs:
            if not name:
                continue
            if name in defined:
                raise ModelLoadError(
                    f"{node} produces {name!r}, which is a graph input or initializer already; a name has one "
                    "meaning in ONNX (single assignment): rename one of the two"
                )
            if name in producer:
                raise ModelLoadError(
                    f"{name!r} is produced twice, by {nodes[producer[name]]} and {node}; a name has one producer "
                    "in ONNX (single assignment): rename one of the two"
                )
            producer[name] = i
    return producer
