"""Ways from what is complete at one moment to what is not: a network of tensors, sums and weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosma.bounds.dependences import Dependences

#: Where flows begin and end.
SOURCE, SINK = ("source", ""), ("sink", "")
#: What is alive: a tensor, the partial sums of a result, a weight; or the place between sums and result.
Node = tuple[str, str]
#: Ways from node to node, in the order they were found.
Arcs = dict[tuple[Node, Node], None]


@dataclass(slots=True)
class Moment:
    """The network of one moment.

    Attributes
    ----------
    operator
        Number of the operator whose result begins.
    room
        Bytes of every node that can be alive; nodes without room join others.
    share
        For weights, the share that has been used for sure.
    arcs
        Ways from node to node.
    used_by, waits_for
        For weights that several operators share and that are alive for sure: those of them that are complete, and those
        of which no product can be in a sum yet.
    otherwise
        Ways of which some elements have what the others have of ``arcs``, and it is not known which; empty where all
        have these.
    """

    operator: int
    room: dict[Node, int] = field(default_factory=dict)
    share: dict[Node, float] = field(default_factory=dict)
    arcs: Arcs = field(default_factory=dict)
    otherwise: Arcs = field(default_factory=dict)
    used_by: dict[Node, frozenset[int]] = field(default_factory=dict)
    waits_for: dict[Node, frozenset[int]] = field(default_factory=dict)

    def is_used_before(self, other: Moment, weight: Node) -> bool:
        """Whether all of a shared weight is used between this moment and another one."""
        return not self.waits_for[weight].isdisjoint(other.used_by[weight])


class Build:
    """Follows ways forward from what is complete to what is not."""

    def __init__(self, net: Dependences, below: int, complete: set[str], without: str = "") -> None:
        self.net, self.complete, self.below = net, complete, below
        self.found = Moment(0)
        self._seen: set[Node] = {("tensor", without)}
        self._waiting: list[int] = []

    def reach_tensor(self, name: str) -> bool:
        """Go on from a tensor to what needs it and may not be complete; whether there is any."""
        node = ("tensor", name)
        if node in self._seen:
            return node in self.found.room
        self._seen.add(node)
        for v, place in self.net.readers.get(name, ()):
            work = self.net.work[v]
            if work.is_copy or all(result in self.complete for result in work.results):
                continue
            self.found.room[node] = self.net.size_bytes[name]
            self.found.arcs[node, self.reach_operator(v, late=work.needs[place].late)] = None
        return node in self.found.room

    def reach_operator(self, v: int, *, late: bool) -> Node:
        """Go on through an operator: its sums, unless what it reads is needed until its result is complete."""
        place, sums = ("result", str(v)), ("sums", str(v))
        if place not in self._seen:
            self._seen.add(place)
            self._waiting.append(v)
        size = self.net.work[v].sum_bytes
        if late or size is None:
            return place
        self.found.room[sums] = size
        self.found.arcs[sums, place] = None
        return sums

    def finish(self) -> Moment:
        """Follow all ways to their ends."""
        while self._waiting:
            v = self._waiting.pop()
            place = ("result", str(v))
            if self.below >> v & 1:
                self.found.arcs[place, SINK] = None
                continue
            for name in self.net.work[v].results:
                if name in self.net.maker and self.reach_tensor(name):
                    self.found.arcs[place, ("tensor", name)] = None
        return self.found


def pruned(arcs: Arcs) -> Arcs:
    """Leave out what lies on no way from source to sink."""
    ahead: dict[Node, list[Node]] = {}
    back: dict[Node, list[Node]] = {}
    for tail, head in arcs:
        ahead.setdefault(tail, []).append(head)
        back.setdefault(head, []).append(tail)
    kept = _reached(SOURCE, ahead) & _reached(SINK, back)
    return {arc: None for arc in arcs if arc[0] in kept and arc[1] in kept}


def _reached(start: Node, ahead: dict[Node, list[Node]]) -> set[Node]:
    seen, waiting = {start}, [start]
    while waiting:
        for node in ahead.get(waiting.pop(), ()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen
