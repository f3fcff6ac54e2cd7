"""A lower bound for every tiling: along any axes, in partial sums, in any order, whatever is fused or copied.

At one moment for each operator (:mod:`cosma.bounds.moments`) what is alive is a cut of a network. What of it is not in
the scratchpad is off-chip: an intermediate is written and read again, anything else is read again. A flow through the
network of each moment, scaled, spreads these costs so that no byte is charged more than it costs; each flow then
counts, less what the scratchpad holds. The best flows are found together by one linear program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING

from cosma.access import NodeSite
from cosma.bounds.dependences import Dependences, dependences_of
from cosma.bounds.flow import minimum_cut
from cosma.bounds.moments import Moments
from cosma.bounds.ways import SINK, SOURCE, Arcs, Moment, Node
from cosma.graph import Graph
from cosma.graph.semantics import is_elementwise

if TYPE_CHECKING:
    from ortools.linear_solver import pywraplp

#: What the bound rests on, in words.
METHOD = "what is alive before each result begins: tensors, partial sums, weights"
#: Most arcs of all moments of the program, those of the largest excess first; not measured.
MOST_ARCS = 20_000
#: Shares of a tensor that are used up at the moments midway; not measured.
USED_UP = (1 / 8, 1 / 4, 1 / 2)
#: What a byte of a tensor costs at most: a write and a read.
_DEAREST = 2
#: Bytes are counted in these in the program, for the sake of its numbers.
_UNIT_BYTES = 1024.0


def tilings_bound(
    graph: Graph, sites: Mapping[str, NodeSite], capacity_bytes: int, stop: Callable[[], bool] = bool
) -> int:
    """Bytes beyond the compulsory that every plan of every tiling moves; deterministic.

    The graph is untiled, with nothing fused; the bound holds whatever is fused. Sites are the nodes of the model by
    first result. ``stop`` is polled between operators; once true, the answer rests on those looked at.
    """
    if stop() or sum(t.size_bytes for t in graph.tensors.values()) <= capacity_bytes:
        return 0
    net = dependences_of(graph, sites)
    moments = Moments(net)
    found: list[tuple[int, Moment]] = []
    for v, operator in enumerate(graph.operators):
        if stop():
            break
        # What an elementwise operator does to one operand may as well come with the operand: the moment is the same.
        if net.work[v].is_copy or (is_elementwise(operator) and len(operator.inputs) == 1):
            continue
        moment = moments.moment(v)
        excess = _alive_bytes(moment) - capacity_bytes
        if excess > 0:
            found.append((excess, moment))
    for name in net.maker:
        for share in USED_UP if not stop() else ():
            midway = moments.midway(name, share)
            excess = 0 if midway is None else _alive_bytes(midway) - capacity_bytes
            if midway is not None and excess > 0:
                found.append((excess, midway))
    found.sort(key=lambda one: (-one[0], one[1].operator))
    chosen: list[Moment] = []
    arcs = 0
    for moment in _apart_first([moment for _, moment in found]):
        arcs += len(moment.arcs) + len(moment.otherwise)
        if chosen and arcs > MOST_ARCS:
            break
        chosen.append(moment)
    return _most_charged(net, chosen, capacity_bytes) if chosen else 0


def _apart_first(moments: list[Moment]) -> list[Moment]:
    """Moments in their order, but the first of each step of a recurrent layer before the others of the same step.

    Moments are of one step where the same operators have used each shared weight, and the same wait for it.
    """
    first: dict[object, Moment] = {}
    for i, moment in enumerate(moments):
        step = frozenset(moment.used_by.items()), frozenset(moment.waits_for.items())
        first.setdefault(step if moment.waits_for else i, moment)
    placed = {id(moment) for moment in first.values()}
    return [*first.values(), *(moment for moment in moments if id(moment) not in placed)]


def _room(moment: Moment, node: Node) -> int | None:
    """Bytes of a node that may be alive, of a weight those that have been used; None where it is no node of its own."""
    room = moment.room.get(node)
    return None if room is None else int(room * moment.share.get(node, 1.0))


def _alive_bytes(moment: Moment) -> int:
    """Least bytes alive: a minimum cut."""
    cut = _cut(moment, moment.arcs)
    return min(cut, _cut(moment, moment.otherwise)) if moment.otherwise else cut


def _cut(moment: Moment, ways: Arcs) -> int:
    number = {SOURCE: 0, SINK: 1}
    for tail, head in ways:
        for node in (tail, head):
            number.setdefault(node, 2 * len(number))
    unlimited = sum(moment.room.values()) + 1
    arcs = [
        (at, at + 1, unlimited if (room := _room(moment, node)) is None else room)
        for node, at in number.items() if at > 1
    ]  # fmt: skip
    arcs += [(number[tail] + (number[tail] > 1), number[head], unlimited) for tail, head in ways]
    return minimum_cut(2 * len(number), arcs)


def _most_charged(net: Dependences, moments: list[Moment], capacity_bytes: int) -> int:
    """Solve the program: flows through all moments that charge no byte more than it costs."""
    from ortools.linear_solver import pywraplp

    solver = pywraplp.Solver.CreateSolver("GLOP")
    program = _Program(solver, net, capacity_bytes)
    for moment in moments:
        program.add(moment)
    program.limit_charges()
    solver.Objective().SetMaximization()
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return 0
    # Flows that rounding has made too large can be lowered, by a few times what they are too large; traffic is whole.
    wrong = sum(
        max(0.0, row.lb() - amount, amount - row.ub())
        for row, amount in zip(solver.constraints(), solver.ComputeConstraintActivities(), strict=True)
    )
    value: float = solver.Objective().Value() * (1 - 1e-9) - 64 * wrong
    return max(0, ceil(value * _UNIT_BYTES - 1e-3))


class _Program:
    """Flows of all moments, and what each node is charged by them together."""

    def __init__(self, solver: pywraplp.Solver, net: Dependences, capacity_bytes: int) -> None:
        self.solver, self.net, self.capacity_bytes = solver, net, capacity_bytes
        self._charges: dict[Node, list[tuple[Moment, pywraplp.Variable, float]]] = {}
        self._room: dict[Node, int] = {}

    def add(self, moment: Moment) -> None:
        """Add the flow of one moment: a byte of it charges a byte alive, up to a rate that is a variable too.

        Where it is not known which of two networks holds, and perhaps each for some elements, there is a flow through
        each, of one value, and a byte is charged what the larger one charges it.
        """
        solver, infinity = self.solver, self.solver.infinity()
        rate = solver.NumVar(0, _DEAREST, "")
        value = solver.NumVar(0, infinity, "")
        solver.Objective().SetCoefficient(rate, -self.capacity_bytes / _UNIT_BYTES)
        solver.Objective().SetCoefficient(value, 1)
        charges: dict[Node, pywraplp.Variable] = {}
        for ways in filter(None, (moment.arcs, moment.otherwise)):
            for node, flows in self._flow(ways, value).items():
                room = _room(moment, node)
                if room is None:
                    continue
                if node not in charges:
                    charges[node] = solver.NumVar(0, infinity, "")
                    limit = solver.Constraint(-infinity, 0)
                    limit.SetCoefficient(rate, -room / _UNIT_BYTES)
                    limit.SetCoefficient(charges[node], 1)
                    # Where only a share counts, the charge lies on that share alone.
                    self._charges.setdefault(node, []).append((moment, charges[node], 1 / moment.share.get(node, 1.0)))
                    self._room[node] = moment.room[node]
                charged = solver.Constraint(-infinity, 0)
                charged.SetCoefficient(charges[node], -1)
                for flow in flows:
                    charged.SetCoefficient(flow, 1)

    def _flow(self, ways: Arcs, value: pywraplp.Variable) -> dict[Node, list[pywraplp.Variable]]:
        """Add a flow of some value; what flows into each node."""
        solver = self.solver
        total = solver.Constraint(0, 0)
        total.SetCoefficient(value, -1)
        into: dict[Node, list[pywraplp.Variable]] = {}
        out_of: dict[Node, list[pywraplp.Variable]] = {}
        for tail, head in ways:
            flow = solver.NumVar(0, solver.infinity(), "")
            if tail == SOURCE:
                total.SetCoefficient(flow, 1)
            into.setdefault(head, []).append(flow)
            out_of.setdefault(tail, []).append(flow)
        del into[SINK]
        for node, flows in into.items():
            balance = solver.Constraint(0, 0)
            for flow in flows:
                balance.SetCoefficient(flow, 1)
            for flow in out_of[node]:
                balance.SetCoefficient(flow, -1)
        return into

    def limit_charges(self) -> None:
        """A byte costs what it costs, however often it is charged; more where it is used between two moments.

        A byte of a weight that is off-chip at two moments, and is used between them, is read again after each.
        """
        for node, charges in self._charges.items():
            kind, name = node
            price = {"sums": _DEAREST, "weight": 1}.get(kind) or self.net.price[name]
            apart: list[Moment] = []
            for moment in sorted((one for one, *_ in charges if node in one.waits_for), key=lambda one: one.operator):
                if all(one.is_used_before(moment, node) for one in apart):
                    apart.append(moment)
            always = [one for one in charges if not any(one[0] is moment for moment in apart)]
            for own in [[one for one in charges if one[0] is moment] for moment in apart] or [[]]:
                limit = self.solver.Constraint(-self.solver.infinity(), price * self._room[node] / _UNIT_BYTES)
                for _, charge, per_byte in (*always, *own):
                    limit.SetCoefficient(charge, per_byte)
