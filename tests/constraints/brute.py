"""The true optimum under constraints, by search over machine states: nothing here knows how plans keep to them.

The instance searched is that of the graph without any constraint; each is a condition on what a machine does.
"""

from __future__ import annotations

from math import gcd

from cosma.accelerator import Accelerator
from cosma.accelerator.constraints import Constraints
from cosma.graph import Graph
from cosma.problem import build_problem
from tests.brute_force import Optimum, Search


def brute_force_forced(
    graph: Graph, accelerator: Accelerator, forced: Constraints, *, addresses: bool = True, most_states: int = 100_000
) -> Optimum:
    """Search all plans that keep to constraints; without addresses, all that keep to those on other things."""
    return _Forced(graph, accelerator, forced, addresses).run(most_states)


class _Forced(Search):
    def __init__(self, graph: Graph, accelerator: Accelerator, forced: Constraints, addresses: bool) -> None:
        ranges = (*accelerator.reserved_ranges, *forced.excluded)
        plain = accelerator.replace(reserved_ranges=(), constraints=Constraints())
        problem = build_problem(graph, plain)
        number = {name: t for t, name in enumerate(problem.tensor_names)}
        alignment = accelerator.alignment
        work = dict(forced.workspaces)
        streams = -1 if problem.streamable else 0
        kept = {number[name] for name in forced.resident if name in number}
        held = ~sum(1 << t for t in kept)
        modes = [[(streams & held, -(-work.get(o.name, 0) // alignment) * alignment)] for o in graph.operators]
        super().__init__(problem, None, addresses, False, modes)
        self.kept = sum(1 << t for t in kept)
        never = [number[name] for name in forced.never_on_chip if name in number]
        self.never = sum(1 << t for t in never if self.space[t])
        self.ranges = ranges
        self.fixed = {number[name]: at for name, at in forced.addresses if name in number}
        self.step = {number[name]: n for name, n in forced.alignments if name in number}
        self.before = list(self.before)
        for a, b in forced.before:
            self.before[graph.operator_index(b)] |= 1 << graph.operator_index(a)
        operands = [{u for _, u in row} | set(problem.operands_of(v).tolist()) for v, row in enumerate(self.pairs)]
        names = problem.tensor_names
        for v, operator in enumerate(graph.operators):
            row = []
            for r in problem.results_of(v).tolist():
                for u in sorted(operands[v]):
                    pair = (names[r], names[u])
                    fits = len(operator.outputs) == 1 and 0 < self.size[r] <= self.size[u]
                    allowed = (r, u) in self.pairs[v]
                    if operator.type in forced.in_place_permitted_types:
                        allowed = allowed or fits
                    if operator.type in forced.in_place_forbidden_types:
                        allowed = False
                    if pair in forced.in_place_permitted:
                        allowed = fits
                    if pair in forced.in_place_forbidden:
                        allowed = False
                    if allowed:
                        row.append((r, u))
            self.pairs[v] = row
        extra = [*self.fixed.values(), *self.step.values(), *(end for ends in ranges for end in ends)]
        self.granule = gcd(self.granule, alignment, *(n for n in extra if n)) or 1
        self.alignment = alignment

    def may_leave(self, mask: int, done: int) -> bool:
        return not any((mask & self.kept) >> t & 1 and self.readers[t] & ~done for t in self.tensors)

    def may_be_inside(self, mask: int) -> bool:
        return not mask & self.never

    def may_lie(self, tensor: int | None, address: int, space: int) -> bool:
        if not space:
            return True
        if address % self.alignment or any(address < high and low < address + space for low, high in self.ranges):
            return False
        if tensor is None:
            return True
        return self.fixed.get(tensor, address) == address and not address % self.step.get(tensor, 1)
