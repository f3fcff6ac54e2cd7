"""The tensor DAG: validated once, immutable after, cheap to query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import cosma.door as door
from cosma.errors import GraphError
from cosma.graph.checks import check_operands, check_roots, find_producers
from cosma.graph.join import Join, check_joins
from cosma.graph.tensor import Operator, Tensor, TensorKind
from cosma.text import counted, html_table, shortened
from cosma.topological import find_cycle, nearest_order
from cosma.units import align_up, format_size

if TYPE_CHECKING:
    import networkx as nx


class Graph:
    """A directed acyclic graph of operators over tensors.

    Operators are kept in a topological order. It is the order they were given in wherever that order is
    topological already; otherwise each operator moves back just far enough to follow its producers.

    Parameters
    ----------
    tensors
        Every tensor; those no operator touches are kept but cost nothing.
    operators
        Every operator, in the order the model executes them.
    name
        What reports call the graph.
    roots
        Tensors that were cut: none of them is a tensor of the graph, their parts are. That the parts are disjoint and
        cover their root is for the validator to say.
    joins
        Of which tensors the roots consist that no operator writes.

    Raises
    ------
    GraphError
        On anything but tensors and operators, repeated names, undefined tensors, two producers, a produced input or
        weight, an intermediate or output that nothing produces, a weight among the activations (or the reverse), a
        cycle, or more bytes than cosma counts.
    """

    __slots__ = ("_consumers", "_joins", "_operator_index", "_operators", "_producer", "_roots", "_tensors", "name")

    def __init__(
        self,
        tensors: Iterable[Tensor],
        operators: Iterable[Operator],
        name: str = "graph",
        roots: Iterable[Tensor] = (),
        joins: Iterable[Join] = (),
    ) -> None:
        self.name = door.text(name, "graph: name", error=GraphError)
        self._tensors: dict[str, Tensor] = {}
        for tensor in door.sequence(tensors, Tensor, "graph: tensors", error=GraphError):
            if tensor.name in self._tensors:
                raise GraphError(f"tensor {tensor.name!r} is defined twice; tensor names must be unique")
            self._tensors[tensor.name] = tensor
        cut = door.sequence(roots, Tensor, "graph: roots", error=GraphError)
        self._roots = {root.name: root for root in cut}
        if len(self._roots) < len(cut):
            raise GraphError("a root is given twice; names of roots must be unique")
        check_roots(self._roots, self._tensors)
        given = door.sequence(operators, Operator, "graph: operators", error=GraphError)
        self._joins = {join.root: join for join in door.sequence(joins, Join, "graph: joins", error=GraphError)}
        check_joins(self._joins, self._tensors, self._roots, given)
        self._producer = find_producers(given, self._tensors)
        check_operands(given, self._tensors)
        self._operators = self._sort(given)
        self._operator_index = {operator.name: i for i, operator in enumerate(self._operators)}
        consumers: dict[str, list[str]] = {tensor_name: [] for tensor_name in self._tensors}
        for operator in self._operators:
            for tensor_name in operator.operands:
                consumers[tensor_name].append(operator.name)
        self._consumers = {tensor_name: tuple(names) for tensor_name, names in consumers.items()}
        self._check_total()

    # -- construction -------------------------------------------------------------------------------------

    def _check_total(self) -> None:
        """Refuse more bytes than 64-bit sums hold: each tensor moved once for itself and once per consumer."""
        total = sum(t.size_bytes * (1 + len(self._consumers[t.name])) for t in self._tensors.values())
        if total > door.MOST:
            largest = max(self._tensors.values(), key=lambda tensor: tensor.size_bytes)
            raise GraphError(
                f"the tensors have {format_size(total)} over all their uses, more than cosma counts "
                f"({format_size(door.MOST)}); the largest is {largest.name!r} with {largest.size_bytes} bytes"
            )

    def _sort(self, operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
        index = {operator.name: i for i, operator in enumerate(operators)}
        followers: list[list[int]] = [[] for _ in operators]
        for i, operator in enumerate(operators):
            for operand in operator.inputs:
                if operand in self._producer:
                    followers[index[self._producer[operand]]].append(i)
        order = nearest_order(followers)
        if len(order) < len(operators):
            cycle = [operators[i].name for i in find_cycle(followers, order)]
            shown = cycle if len(cycle) <= 8 else [*cycle[:7], "...", cycle[-1]]
            raise GraphError("the graph has a cycle: " + " -> ".join(shown))
        return tuple(operators[i] for i in order)

    # -- queries ------------------------------------------------------------------------------------------

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All tensors by name, in the order given."""
        return MappingProxyType(self._tensors)

    @property
    def roots(self) -> Mapping[str, Tensor]:
        """Tensors that were cut, by name: their parts are tensors of the graph, they are not."""
        return MappingProxyType(self._roots)

    @property
    def joins(self) -> Mapping[str, Join]:
        """Roots that no operator writes, by name: what they consist of."""
        return MappingProxyType(self._joins)

    def parts_of(self, root: str) -> tuple[Tensor, ...]:
        """Parts of a root, in the order given; the tensors that a join consists of."""
        if root in self._joins:
            return tuple(self._tensors[name] for name in self._joins[root].tensors)
        return tuple(t for t in self._tensors.values() if t.region is not None and t.region.root == root)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """All operators in a topological order: the given one wherever it is topological."""
        return self._operators

    @property
    def is_tiled(self) -> bool:
        """Whether some operator is a tile of another."""
        return any(operator.tile is not None for operator in self._operators)

    def operator(self, name: str) -> Operator:
        """Look an operator up by its name; raises :class:`GraphError` if there is none."""
        return self._operators[self.operator_index(name)]

    def operator_index(self, name: str) -> int:
        """Return the position of an operator in :attr:`operators`; raises :class:`GraphError` if there is none."""
        try:
            return self._operator_index[name]
        except (KeyError, TypeError):
            raise GraphError(f"graph {self.name!r} has no operator {door.shown(name)}") from None

    def producer(self, tensor: str) -> str | None:
        """Name of the operator that produces a tensor; None for inputs, weights and what is no tensor here."""
        try:
            return self._producer.get(tensor)
        except TypeError:
            raise GraphError(f"graph {self.name!r} has no tensor {door.shown(tensor)}") from None

    def consumers(self, tensor: str) -> tuple[str, ...]:
        """Names of the operators that read a tensor, in topological order, each once.

        Raises
        ------
        GraphError
            If the graph has no such tensor.
        """
        try:
            return self._consumers[tensor]
        except (KeyError, TypeError):
            raise GraphError(f"graph {self.name!r} has no tensor {door.shown(tensor)}") from None

    def predecessors(self, operator: str) -> tuple[str, ...]:
        """Names of the operators whose results an operator reads, each once."""
        found = (self._producer.get(operand) for operand in self.operator(operator).inputs)
        return tuple(dict.fromkeys(name for name in found if name is not None))

    def successors(self, operator: str) -> tuple[str, ...]:
        """Names of the operators that read an operator's results, each once."""
        return tuple(
            dict.fromkeys(name for result in self.operator(operator).outputs for name in self._consumers[result])
        )

    def of_kind(self, kind: TensorKind) -> tuple[Tensor, ...]:
        """All tensors of one kind, in the order given."""
        return tuple(tensor for tensor in self._tensors.values() if tensor.kind is kind)

    def working_set(self, operator: str, *, weights: bool) -> tuple[Tensor, ...]:
        """Tensors an operator touches: operands, then results, each once.

        Parameters
        ----------
        operator
            Name of the operator.
        weights
            Whether constants count.
        """
        found = self.operator(operator)
        names = found.inputs + (found.weights if weights else ()) + found.outputs
        return tuple(self._tensors[name] for name in names)

    def working_set_bytes(self, operator: str, *, weights: bool, alignment: int = 1) -> int:
        """Space an operator's operands and results take together, each rounded up to ``alignment``."""
        return sum(align_up(t.size_bytes, alignment) for t in self.working_set(operator, weights=weights))

    def compulsory_bytes(self) -> int:
        """Traffic no plan does without: used inputs and used weights once each, outputs once each."""
        return sum(
            tensor.size_bytes
            for tensor in self._tensors.values()
            if tensor.kind is TensorKind.OUTPUT or (tensor.starts_off_chip and self._consumers[tensor.name])
        )

    # -- variations ---------------------------------------------------------------------------------------

    def replace(
        self,
        *,
        tensors: Iterable[Tensor] | None = None,
        operators: Iterable[Operator] | None = None,
        roots: Iterable[Tensor] | None = None,
        joins: Iterable[Join] | None = None,
    ) -> Graph:
        """Make a graph that differs in what is given and is the same in all else, its name included.

        Every rewrite makes its graph so: what it does not mention cannot get lost.

        Raises
        ------
        GraphError
            If the changes do not fit each other or what is kept.
        """
        return Graph(
            self._tensors.values() if tensors is None else tensors,
            self._operators if operators is None else operators,
            self.name,
            self._roots.values() if roots is None else roots,
            self._joins.values() if joins is None else joins,
        )

    def with_dtype(self, dtype: str) -> Graph:
        """Count every floating-point tensor as if its elements were of another type.

        Raises
        ------
        GraphError
            If the type is unknown, or a tensor carries no element type or shape to recount it by.
        """
        from cosma.graph.dtypes import is_floating, size_of, width_bits

        width_bits(door.text(dtype, "dtype", error=GraphError))

        def recount(tensor: Tensor) -> Tensor:
            if tensor.dtype is None or tensor.shape is None:
                raise GraphError(
                    f"tensor {tensor.name!r} has no element type or shape, so it cannot be recounted as {dtype}"
                )
            if not is_floating(tensor.dtype):
                return tensor
            return replace(tensor, dtype=dtype, size_bytes=size_of(tensor.shape, dtype))

        return self.replace(tensors=map(recount, self._tensors.values()), roots=map(recount, self._roots.values()))

    def to_networkx(self) -> nx.MultiDiGraph:
        """Hand the graph to networkx: a node per operator, an edge per tensor between two operators.

        Returns
        -------
        networkx.MultiDiGraph
            Nodes are operator names, in topological order, with ``type``, ``inputs``, ``outputs``, ``weights``,
            ``covers`` and ``macs``. An edge goes from a tensor's producer to each of its consumers, has the tensor's
            name as key, and ``size_bytes``, ``kind`` (text), ``dtype`` and ``shape``. The graph itself has ``name``
            and ``tensors``, the same attributes by tensor name: inputs, weights and outputs nobody reads have no
            edge.
        """
        import networkx as nx

        def facts(tensor: Tensor) -> dict[str, object]:
            return {
                "size_bytes": tensor.size_bytes,
                "kind": str(tensor.kind),
                "dtype": tensor.dtype,
                "shape": tensor.shape,
            }

        found = nx.MultiDiGraph(name=self.name, tensors={t.name: facts(t) for t in self._tensors.values()})
        for o in self._operators:
            found.add_node(
                o.name, type=o.type, inputs=o.inputs, outputs=o.outputs, weights=o.weights, covers=o.covers, macs=o.macs
            )
        for name, producer in self._producer.items():
            for consumer in self._consumers[name]:
                found.add_edge(producer, consumer, key=name, **facts(self._tensors[name]))
        return found

    def to_records(self, table: Literal["operators", "tensors"] = "operators") -> list[dict[str, Any]]:
        """Rows of operators or of tensors, as ``pandas.DataFrame`` takes them; sizes in bytes.

        Raises
        ------
        GraphError
            If there is no such table.
        """
        if table == "operators":
            return [
                {
                    "name": o.name,
                    "type": o.type,
                    "inputs": o.inputs,
                    "outputs": o.outputs,
                    "weights": o.weights,
                    "macs": o.macs,
                    "working_set_bytes": self.working_set_bytes(o.name, weights=True),
                }
                for o in self._operators
            ]
        if table == "tensors":
            return [
                {
                    "name": t.name,
                    "kind": str(t.kind),
                    "size_bytes": t.size_bytes,
                    "dtype": t.dtype,
                    "shape": t.shape,
                    "producer": self._producer.get(t.name),
                    "consumers": self._consumers[t.name],
                }
                for t in self._tensors.values()
            ]
        raise GraphError(f"graph: no table {table!r}; choose operators or tensors")

    def _repr_html_(self) -> str:
        kinds = {kind: self.of_kind(kind) for kind in TensorKind}
        rows = [("operators", str(len(self._operators)), "")]
        rows += [
            (f"{kind} tensors", str(len(tensors)), format_size(sum(t.size_bytes for t in tensors)))
            for kind, tensors in kinds.items()
        ]
        return html_table((self.name, "", ""), rows)

    def __repr__(self) -> str:
        sizes = f"{counted(len(self._operators), 'operator')}, {counted(len(self._tensors), 'tensor')}"
        return f"Graph({shortened(repr(self.name))}, {sizes})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            self.name == other.name
            and self._operators == other._operators
            and list(self._tensors.values()) == list(other._tensors.values())
            and list(self._roots.values()) == list(other._roots.values())
            and list(self._joins.values()) == list(other._joins.values())
        )

    __hash__ = None  # type: ignore[assignment]  # equality is by content, and content is large
