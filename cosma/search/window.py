"""A subproblem of an order solved exactly by CP-SAT: the order of its operators and what lies in the scratchpad.

Costs are counted as in the replay: what is off-chip before the subproblem and still needed has its next read paid
already; what is needed after it and off-chip then pays for that read. So costs of adjacent subproblems add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from cosma.cp_sat import new_solver, solve
from cosma.evaluation.network import build_network
from cosma.problem.precedence import ancestors, descendants
from cosma.problem.rules import may_stream_anything

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.evaluation.network import Contraction, Network
    from cosma.problem import Problem

#: Deterministic seconds for one subproblem.
DEFAULT_WORK = 1.0


@dataclass(frozen=True, slots=True)
class Subproblem:
    """What is to be solved.

    Attributes
    ----------
    operators
        Search operators of the subproblem, in a topological order. The subproblem must be convex: no path leaves it and
        comes back.
    held
        Tensors in the scratchpad before it -> whether they have an off-chip copy.
    needed_after
        Tensors that an operator after the subproblem reads.
    held_after
        Tensors that must be in the scratchpad after it -> whether they must have an off-chip copy then;
        None leaves that open, at the price of reading them again.
    """

    operators: tuple[int, ...]
    held: Mapping[int, bool]
    needed_after: frozenset[int]
    held_after: Mapping[int, bool] | None = None


@dataclass(frozen=True, slots=True)
class SubproblemResult:
    """The best found.

    Attributes
    ----------
    order
        Operators of the subproblem in order.
    cost, bound
        Bytes paid in the subproblem, and what no way of running it goes below.
    held
        Tensors in the scratchpad after it that are still needed -> whether they have an off-chip copy.
    """

    order: tuple[int, ...]
    cost: int
    bound: int
    held: dict[int, bool]

    @property
    def proven(self) -> bool:
        """Whether no way of running the subproblem is cheaper."""
        return self.cost == self.bound


class Unsolved(Enum):
    """Why a subproblem has no result."""

    #: Nothing meets the conditions.
    NONE_EXISTS = "none exists"
    #: The work limit came before anything was found.
    LIMIT = "work limit"


def subproblem_network(problem: Problem) -> Contraction:
    """The network of a problem that subproblems are solved on.

    Chains are contracted where nothing may stream: what is inside one could be streamed otherwise.
    """
    return build_network(problem, contract=not may_stream_anything(problem))


def solve_subproblem(
    net: Network, subproblem: Subproblem, *, work_limit: float = DEFAULT_WORK, seed: int = 0, ceiling: int | None = None
) -> SubproblemResult | Unsolved:
    """Solve a subproblem with CP-SAT; deterministic.

    Parameters
    ----------
    net
        See :func:`subproblem_network`.
    subproblem
        What is to be solved.
    work_limit
        Deterministic seconds.
    seed
        Seed of the solver.
    ceiling
        Only results with a cost below this are of interest.

    Returns
    -------
    SubproblemResult or Unsolved
        The best found, or why there is none.
    """
    from ortools.sat.python import cp_model

    program = _Program(net, subproblem)
    model = program.model
    if ceiling is not None:
        model.add(program.cost <= ceiling - 1)
    model.minimize(program.cost)
    solver = new_solver(seed=seed, work_limit=work_limit)
    solver.parameters.linearization_level = 2
    status, _ = solve(solver, model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Unsolved.NONE_EXISTS if status == cp_model.INFEASIBLE else Unsolved.LIMIT
    return program.read(solver)


@dataclass(slots=True)
class _Program:
    net: Network
    subproblem: Subproblem
    model: Any = field(init=False)
    cost: Any = field(init=False)
    at: dict[tuple[int, int], Any] = field(init=False, default_factory=dict)
    inside: dict[tuple[int, int], Any] = field(init=False, default_factory=dict)
    read_again: dict[tuple[int, int], Any] = field(init=False, default_factory=dict)
    stored: dict[int, Any] = field(init=False, default_factory=dict)
    producer: dict[int, int] = field(init=False, default_factory=dict)
    readers: dict[int, list[int]] = field(init=False, default_factory=dict)
    streams_in: set[tuple[int, int]] = field(init=False, default_factory=set)
    streams_out: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        from ortools.sat.python import cp_model

        self.model = cp_model.CpModel()
        self._positions()
        self._tensors()
        self._residency()
        self._capacity()
        self._objective()

    @property
    def steps(self) -> int:
        return len(self.subproblem.operators)

    def _row(self, start: Any, values: Any, i: int) -> list[int]:
        return [int(x) for x in values[start[i] : start[i + 1]]]

    def _positions(self) -> None:
        """One position per operator, inside the window that its ancestors and descendants leave."""
        net = self.net
        place = {v: i for i, v in enumerate(self.subproblem.operators)}
        above = [
            [place[u] for u in self._row(net.predecessor_start, net.predecessor, v) if u in place] for v in place
        ]
        below = [[place[w] for w in self._row(net.successor_start, net.successor, v) if w in place] for v in place]
        before, after = ancestors(above), descendants(below)
        for v, k in place.items():
            for i in range(before[k].bit_count(), self.steps - after[k].bit_count()):
                self.at[v, i] = self.model.new_bool_var("")
            self.model.add_exactly_one([x for (u, _), x in self.at.items() if u == v])
        for i in range(self.steps):
            self.model.add_exactly_one([x for (_, j), x in self.at.items() if j == i])
        for v in self.subproblem.operators:
            for u in self._row(net.predecessor_start, net.predecessor, v):
                if u in place:
                    for i in range(self.steps):
                        # v by step i only if u by step i - 1
                        self.model.add(self._by(v, i) <= self._by(u, i - 1))

    def _by(self, v: int, i: int) -> Any:
        return sum(self.at[v, j] for j in range(i + 1) if (v, j) in self.at)

    def _tensors(self) -> None:
        net = self.net
        for v in self.subproblem.operators:
            read, made = ((s[v], s[v + 1]) for s in (net.operand_start, net.result_start))
            self.streams_in.update((v, int(net.operand[k])) for k in range(*read) if net.operand_streams[k])
            self.streams_out.update(int(net.result[k]) for k in range(*made) if net.result_streams[k])
            for t in self._row(net.result_start, net.result, v):
                self.producer[t] = v
                self.readers.setdefault(t, [])
            for t in self._row(net.operand_start, net.operand, v):
                self.readers.setdefault(t, []).append(v)
        for t in sorted(self.subproblem.held):
            self.readers.setdefault(t, [])

    def _residency(self) -> None:
        """``inside[t, i]`` for steps ``-1 .. steps``: before, during and after the subproblem."""
        for t, readers in self.readers.items():
            for i in range(-1, self.steps + 1):
                self.inside[t, i] = self.model.new_bool_var("")
            self.model.add(self.inside[t, -1] == int(t in self.subproblem.held))
            after = self.subproblem.held_after
            if after is not None:
                self.model.add(self.inside[t, self.steps] == int(t in after))
            if not self.net.clean[t] and not self.subproblem.held.get(t, t not in self.producer):
                self.stored[t] = self.model.new_bool_var("")
                if after is not None and after.get(t, False):
                    self.model.add(self.stored[t] == 1)
            for i in range(self.steps + 1):
                self._step_of(t, i)
            for v in readers:
                self._reads_of(t, v)

    def _step_of(self, t: int, i: int) -> None:
        """Birth and loads of a tensor at a step."""
        model, born = self.model, self.producer.get(t)
        streamable, ended = t in self.streams_out, i == self.steps
        birth = self.at.get((born, i), 0) if born is not None else 0
        if born is not None:
            model.add(self.inside[t, i] <= self._by(born, i))
            if not streamable and not ended:
                model.add(self.inside[t, i] >= birth)
        loaded = model.new_bool_var("")
        model.add(loaded >= self.inside[t, i] - self.inside[t, i - 1] - birth)
        self.read_again[t, i] = loaded
        if t in self.stored:
            model.add(self.stored[t] >= loaded)
            if streamable and not ended and born is not None:
                model.add(self.stored[t] >= birth - self.inside[t, i])

    def _reads_of(self, t: int, v: int) -> None:
        """A tensor is inside, or streamed, where an operator reads it."""
        model, last = self.model, self.steps
        for i in range(last):
            if (v, i) not in self.at:
                continue
            if (v, t) not in self.streams_in:
                model.add(self.inside[t, i] >= self.at[v, i])
                continue
            streamed = model.new_bool_var("")
            model.add(streamed >= self.at[v, i] - self.inside[t, i])
            self.read_again[t, last + 1 + i + self.steps * (v + 1)] = streamed
            if t in self.stored:
                model.add(self.stored[t] >= streamed)

    def _capacity(self) -> None:
        net, model = self.net, self.model
        capacity = int(net.capacity[0])
        shared: dict[int, list[Any]] = {i: [] for i in range(self.steps)}
        for v in self.subproblem.operators:
            result = int(net.pair_result[v])
            if result < 0:
                continue
            for i in range(self.steps):
                if (v, i) not in self.at:
                    continue
                choices = []
                for u in self._row(net.pair_start, net.pair_operand, v):
                    x = model.new_bool_var("")
                    model.add_implication(x, self.inside[u, i])
                    # Overwritten, it can only be there at the next step if it is read again.
                    model.add(self.read_again[u, i + 1] >= x + self.inside[u, i + 1] - 1)
                    model.add_implication(x, self.inside[result, i])
                    model.add_implication(x, self.at[v, i])
                    choices.append(x)
                model.add_at_most_one(choices)
                shared[i].extend(int(net.space[result]) * x for x in choices)
        for i in range(self.steps):
            total = sum(int(net.space[t]) * self.inside[t, i] for t in self.readers)
            model.add(total - sum(shared[i]) <= capacity)
        model.add(sum(int(net.space[t]) * self.inside[t, self.steps] for t in self.readers) <= capacity)

    def _objective(self) -> None:
        net, terms = self.net, []
        for (t, _), x in self.read_again.items():
            terms.append(int(net.size[t]) * x)
        for t, x in self.stored.items():
            if net.store[t]:
                terms.append(int(net.store[t]) * x)
        for t in self.readers:
            size = int(net.size[t])
            after = t in self.subproblem.needed_after
            unread = not self.readers[t] and not after
            if t not in self.producer and t not in self.subproblem.held:
                terms.append(-size)  # the next read of what is off-chip before is paid already
            if after:
                terms.append(size * (1 - self.inside[t, self.steps]))
                if t in self.stored:
                    self.model.add(self.stored[t] >= 1 - self.inside[t, self.steps])
            elif unread and t in self.producer and t in self.stored:
                # A result nobody reads: written off-chip unless it had room.
                for i in range(self.steps):
                    if (self.producer[t], i) in self.at:
                        self.model.add(self.stored[t] >= self.at[self.producer[t], i] - self.inside[t, i])
        self.cost = sum(terms)

    def read(self, solver: Any) -> SubproblemResult:
        order = [0] * self.steps
        for (v, i), x in self.at.items():
            if solver.value(x):
                order[i] = v
        held = {}
        for t in self.readers:
            if t in self.subproblem.needed_after and solver.value(self.inside[t, self.steps]):
                held[t] = bool(solver.value(self.stored[t])) if t in self.stored else True
        cost = int(solver.value(self.cost)) if not isinstance(self.cost, int) else self.cost
        bound = min(cost, -int(-solver.best_objective_bound // 1))
        return SubproblemResult(tuple(order), cost, bound, held)


def needed_after(net: Network, order: Sequence[int], end: int) -> frozenset[int]:
    """Tensors that exist before step ``end`` of an order and are read at or after it; inputs included."""
    later = {int(t) for v in order[end:] for t in net.operand[net.operand_start[v] : net.operand_start[v + 1]]}
    made = {int(t) for v in order[end:] for t in net.result[net.result_start[v] : net.result_start[v + 1]]}
    return frozenset(later - made)
