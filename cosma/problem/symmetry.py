"""Symmetries of an instance: equal branches that can trade places, and the order that this lets us assume.

A symmetry renames operators and tensors so that the instance stays the same: sizes, what is off-chip from the start,
what must be stored, who produces and reads what, and who may work in place. It turns every plan into another of
equal traffic. So among the best plans there is one in which, for every symmetry known, the first operator that it
moves runs before the operator that takes its place (``docs/formulations.md``, *Symmetric branches*).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from cosma.problem import Decisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cosma.problem import Problem

#: Each operator is swapped with at most this many of those that look like it.
MOST_PARTNERS = 3

#: Neighbours looked at in all attempts together, for each operator and tensor of the instance.
WORK_PER_NODE = 40


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A swap that leaves the instance as it is. It is its own inverse."""

    #: What takes the place of what, both ways; what is missing stays.
    operators: Mapping[int, int]
    tensors: Mapping[int, int]

    @property
    def pair(self) -> tuple[int, int]:
        """The operator with the smallest number that moves, and the one that it trades places with."""
        first = min(self.operators)
        return first, self.operators[first]


def symmetries_of(problem: Problem) -> tuple[Symmetry, ...]:
    """Find swaps of equal branches. Deterministic; not all there are, but each is checked in full.

    Operators that agree in what leads to them and what follows them are paired; a pair is extended to what must then
    move with it, and kept if nothing about the instance changes. Work is linear in the instance.
    """
    return tuple(_Finder(problem).run())


def ordered_pairs(problem: Problem, symmetries: Iterable[Symmetry] | None = None) -> tuple[tuple[int, int], ...]:
    """Pairs of operators of which the first may be assumed to run before the second, all of them at once.

    The given order of the operators keeps them. Pairs that follow from precedence and other pairs are left out.
    """
    wanted: dict[int, set[int]] = defaultdict(set)
    for symmetry in symmetries_of(problem) if symmetries is None else symmetries:
        first, second = symmetry.pair
        wanted[second].add(first)
    if not wanted:
        return ()
    before = [0] * problem.operator_count
    found: list[tuple[int, int]] = []
    for v in range(problem.operator_count):  # operators are numbered in a topological order
        for u in problem.predecessors_of(v).tolist():
            before[v] |= before[u] | 1 << u
        for u in sorted(wanted[v], reverse=True) if v in wanted else ():
            if not before[v] >> u & 1:
                before[v] |= before[u] | 1 << u
                found.append((u, v))
    return tuple(found)


def arrange(
    problem: Problem, decisions: Decisions, symmetries: Sequence[Symmetry]
) -> tuple[Decisions, dict[int, int]]:
    """Rename operators and tensors until an order has every pair of :func:`ordered_pairs` the right way round.

    Returns decisions of the same traffic, and the new number of every tensor that has another.
    """
    order = list(decisions.order)
    position = [0] * problem.operator_count
    for i, v in enumerate(order):
        position[v] = i
    renamed = list(range(problem.tensor_count))
    settled = False
    while not settled:
        settled = True
        for symmetry in symmetries:
            first, second = symmetry.pair
            if position[first] < position[second]:
                continue
            # Each swap brings a smaller operator forward and moves none before it, so this comes to an end.
            settled = False
            steps = {v: position[w] for v, w in symmetry.operators.items()}
            for v, i in steps.items():
                position[v], order[i] = i, v
            renamed = [symmetry.tensors.get(t, t) for t in renamed]
    moved = {t: u for t, u in enumerate(renamed) if t != u}
    residencies = [
        replace(
            r,
            tensor=renamed[r.tensor],
            in_place_of=None if r.in_place_of is None else renamed[r.in_place_of],
        )
        for r in decisions.residencies
    ]
    residencies.sort(key=lambda r: (r.start, r.tensor))
    return Decisions(tuple(order), tuple(residencies)), moved


class _SearchOverError(Exception):
    """All work that may be spent is spent."""


class _Finder:
    """Nodes are operators, then tensors."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.count = count = problem.operator_count
        self.operands = [problem.operands_of(v).tolist() for v in range(count)]
        self.results = [problem.results_of(v).tolist() for v in range(count)]
        self.consumers = [problem.consumers_of(t).tolist() for t in range(problem.tensor_count)]
        self.producer: list[int] = problem.producer.tolist()
        self.label = list(
            zip(
                problem.size_bytes.tolist(),
                problem.space_bytes.tolist(),
                problem.starts_off_chip.tolist(),
                problem.must_store.tolist(),
                strict=True,
            )
        )
        self.work = WORK_PER_NODE * (count + problem.tensor_count)

    def run(self) -> Iterator[Symmetry]:
        if self.problem.held or self.problem.places is not None:
            return  # what may stream where, or lie where, is no colour of a node: a swap is not checked for it
        colour = self._colours()
        classes: dict[int, list[int]] = defaultdict(list)
        for v in range(self.count):
            classes[colour[v]].append(v)
        known: set[tuple[int, int]] = set()
        try:
            for row in classes.values():
                for k, v in enumerate(row):
                    for w in islice(row, k + 1, k + 1 + MOST_PARTNERS):
                        found = None if (v, w) in known else self._swap(v, w, colour)
                        if found is not None:
                            known.update(found.operators.items())
                            yield found
        except _SearchOverError:
            return

    def _colours(self) -> list[int]:
        """Number the kinds of nodes: by what leads to them, by what follows, and once more by both."""
        numbers: dict[object, int] = {}

        def number(key: object) -> int:
            return numbers.setdefault(key, len(numbers))

        tensors = len(self.label)
        colour = [0] * self.count + [number(("tensor", label)) for label in self.label]
        for _ in range(2):
            down, up = list(colour), list(colour)
            for v in range(self.count):
                down[v] = number(("down", down[v], *sorted(down[self.count + t] for t in self.operands[v])))
                for t in self.results[v]:
                    down[self.count + t] = number(("made", down[self.count + t], down[v]))
            for t in range(tensors):
                if not self.consumers[t]:
                    up[self.count + t] = number(("unread", up[self.count + t]))
            for v in reversed(range(self.count)):
                # Every reader of a result stands later, so all its results are numbered by now.
                for t in self.results[v]:
                    up[self.count + t] = number(("read", up[self.count + t], *sorted(up[w] for w in self.consumers[t])))
                up[v] = number(("up", up[v], *sorted(up[self.count + t] for t in self.results[v])))
            for t in range(tensors):
                if self.producer[t] < 0:
                    up[self.count + t] = number(("read", up[self.count + t], *sorted(up[w] for w in self.consumers[t])))
            colour = [number(("both", a, b)) for a, b in zip(down, up, strict=True)]
        return colour

    def _neighbours(self, node: int) -> tuple[list[int], list[int]]:
        if node < self.count:
            return [self.count + t for t in self.operands[node]], [self.count + t for t in self.results[node]]
        t = node - self.count
        return ([self.producer[t]] if self.producer[t] >= 0 else []), self.consumers[t]

    def _swap(self, v: int, w: int, colour: list[int]) -> Symmetry | None:
        """Let two operators trade places, and with them whatever only one of the two reaches."""
        image = {v: w, w: v}
        waiting = [(v, w)]
        while waiting:
            a, b = waiting.pop()
            for left, right in zip(self._neighbours(a), self._neighbours(b), strict=True):
                self.work -= len(left) + len(right)
                if self.work < 0:
                    raise _SearchOverError
                shared = {*left} & {*right}
                ours = sorted((colour[z], z) for z in left if z not in shared and z not in image)
                theirs = sorted((colour[z], z) for z in right if z not in shared and z not in image)
                if [c for c, _ in ours] != [c for c, _ in theirs]:
                    return None
                for (_, x), (_, y) in zip(ours, theirs, strict=True):
                    image[x], image[y] = y, x
                    waiting.append((x, y))
        operators = {x: y for x, y in image.items() if x < self.count}
        tensors = {x - self.count: y - self.count for x, y in image.items() if x >= self.count}
        return Symmetry(operators, tensors) if self._holds(operators, tensors) else None

    def _holds(self, operators: dict[int, int], tensors: dict[int, int]) -> bool:
        """Whether a renaming leaves the instance as it is: this, not how it was found, is what makes it a symmetry."""
        if any(operators.get(w) != v for v, w in operators.items()):
            return False
        if any(tensors.get(u) != t or self.label[t] != self.label[u] for t, u in tensors.items()):
            return False
        for v, w in operators.items():
            for of in (self.problem.predecessors_of, self.problem.successors_of):
                if {operators.get(u, u) for u in of(v).tolist()} != {*of(w).tolist()}:
                    return False
        affected = set(operators)
        for t in tensors:
            affected.update(self.consumers[t])
            if self.producer[t] >= 0:
                affected.add(self.producer[t])
        self.work -= sum(len(self.operands[v]) + len(self.results[v]) for v in affected)
        for v in affected:
            w = operators.get(v, v)
            if {tensors.get(t, t) for t in self.operands[v]} != {*self.operands[w]}:
                return False
            if {tensors.get(t, t) for t in self.results[v]} != {*self.results[w]}:
                return False
            pairs = {(tensors.get(r, r), tensors.get(u, u)) for r, u in self.problem.pairs_of(v)}
            if pairs != {*self.problem.pairs_of(w)}:
                return False
        return True
