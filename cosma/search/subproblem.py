"""A subproblem of an order solved exactly by CP-SAT: the order of its operators and the content of the scratchpad.

It is the joint program (:mod:`cosma.joint.timed`) over a few operators, with a state before and a state after them.
Costs are counted as in the replay: what is off-chip before the subproblem and still needed has its next read paid
already; what is needed after it and off-chip then pays for that read. So costs of adjacent subproblems add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cosma.csr import rows_of
from cosma.evaluation.network import build_network
from cosma.joint.timed import TimedTensor, TimeIndexed
from cosma.problem.precedence import ancestors, descendants
from cosma.problem.rules import may_stream_anything
from cosma.solvers import Profile, Status, solve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.arrays import Ints
    from cosma.evaluation.network import Contraction, Network
    from cosma.problem import Problem

#: Deterministic seconds for one subproblem.
DEFAULT_WORK = 1.0


@dataclass(frozen=True, slots=True)
class Subproblem:
    """A subproblem."""

    #: Search operators of the subproblem, in a topological order. The subproblem must be convex: no path leaves it and
    #: comes back.
    operators: tuple[int, ...]
    #: Tensors in the scratchpad before it -> whether they have an off-chip copy.
    held: Mapping[int, bool]
    #: Tensors that an operator after the subproblem reads.
    needed_after: frozenset[int]
    #: Tensors that must be in the scratchpad after it -> whether they must have an off-chip copy then; None leaves that
    #: open, at the price of reading them again.
    held_after: Mapping[int, bool] | None = None


@dataclass(frozen=True, slots=True)
class SubproblemResult:
    """The best found."""

    #: Operators of the subproblem in order.
    order: tuple[int, ...]
    #: Bytes paid in the subproblem, and a lower bound on them.
    cost: int
    bound: int
    #: Tensors in the scratchpad after it that are still needed -> whether they have an off-chip copy.
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

    Chains are contracted where nothing may stream; else a tensor inside a chain could be streamed.
    """
    return build_network(problem, contract=not may_stream_anything(problem))


def solve_subproblem(
    net: Network, subproblem: Subproblem, *, work_limit: float = DEFAULT_WORK, seed: int = 0, ceiling: int | None = None
) -> SubproblemResult | Unsolved:
    """Solve a subproblem with CP-SAT: the best found, or why there is none; deterministic.

    ``net`` is as :func:`subproblem_network` takes it, ``work_limit`` in deterministic seconds. Only results that cost
    less than the ceiling are of interest.
    """
    program = _Program(net, subproblem)
    if ceiling is not None:
        program.out.limit_cost("ceiling", ceiling - 1)
    result = solve(program.out.build(), Profile(name="subproblem", back_end="cp-sat", seed=seed), work_limit=work_limit)
    if result.values is None or result.objective is None:
        return Unsolved.NONE_EXISTS if result.status is Status.INFEASIBLE else Unsolved.LIMIT
    bound = result.objective if result.bound is None else result.bound
    return program.answer(result.values, result.objective, bound)


class _Program(TimeIndexed):
    """The program of a subproblem: operators by their place in it, tensors by their numbers in the network."""

    def __init__(self, net: Network, subproblem: Subproblem) -> None:
        place = {v: k for k, v in enumerate(subproblem.operators)}
        above = _within(place, rows_of(net.predecessor_start, net.predecessor))
        below = _within(place, rows_of(net.successor_start, net.successor))
        earliest = [mask.bit_count() for mask in ancestors(above)]
        latest = [len(place) - 1 - mask.bit_count() for mask in descendants(below)]
        super().__init__(
            "subproblem",
            earliest=earliest,
            latest=latest,
            predecessors=above,
            tensors=_tensors(net, subproblem, earliest, latest),
            capacity_bytes=int(net.capacity[0]),
        )
        self.subproblem = subproblem
        self.add_order()
        for t, tensor in self.tensors.items():
            self.add_tensor(t)
            if tensor.producer < 0 and not tensor.held:
                self.out.constant(-tensor.read_bytes)  # the next read of what is off-chip before is paid already
            if tensor.lives_on:
                self._add_end(tensor)
        overwritten = rows_of(net.pair_start, net.pair_operand)
        for v, k in place.items():
            self.add_takeovers(k, [(int(net.pair_result[v]), u) for u in overwritten[v]])
        self.add_capacity()

    def _add_end(self, tensor: TimedTensor) -> None:
        """The state asked for after the subproblem, and the bytes owed for a tensor that is needed but off-chip."""
        out, t, held_after = self.out, tensor.number, self.subproblem.held_after
        inside = self.inside[t, len(self.steps)]
        if t in self.subproblem.needed_after:
            out.constant(tensor.read_bytes)
            out.cost(inside, -tensor.read_bytes)
            if t in self.stored:
                out.row("store before the end", (self.stored[t], inside), (1, 1), lower=1)
        if held_after is not None:
            there = int(t in held_after)
            out.row("state after", (inside,), (1,), lower=there, upper=there)
            if held_after.get(t, False) and t in self.stored:
                out.row("state after", (self.stored[t],), (1,), lower=1)

    def answer(self, values: Ints, cost: int, bound: int) -> SubproblemResult:
        """Turn an assignment into an order and a state."""
        order = [0] * len(self.steps)
        for (k, i), x in self.at.items():
            if values[x]:
                order[i] = self.subproblem.operators[k]
        held = {
            t: t not in self.stored or bool(values[self.stored[t]])
            for t in self.tensors
            if t in self.subproblem.needed_after and values[self.inside[t, len(self.steps)]]
        }
        return SubproblemResult(tuple(order), cost, bound, held)


def _within(place: Mapping[int, int], rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of neighbours by place, without neighbours that have none."""
    return [[place[u] for u in rows[v] if u in place] for v in place]


def _tensors(
    net: Network, subproblem: Subproblem, earliest: Sequence[int], latest: Sequence[int]
) -> list[TimedTensor]:
    """Tensors that the subproblem touches, or holds from its beginning for later operators."""
    producer: dict[int, int] = {}
    touches: dict[int, dict[int, int]] = {}  # which operators touch it, and whether they may stream it
    for k, v in enumerate(subproblem.operators):
        made, read = (slice(start[v], start[v + 1]) for start in (net.result_start, net.operand_start))
        producer.update((t, k) for t in net.result[made].tolist())
        streams = [*net.result_streams[made].tolist(), *net.operand_streams[read].tolist()]
        for t, may in zip([*net.result[made].tolist(), *net.operand[read].tolist()], streams, strict=True):
            touches.setdefault(t, {})[k] = may
    lives_on = subproblem.needed_after.union(subproblem.held_after or ())
    touches |= {t: touches.get(t, {}) for t in sorted(subproblem.held) if t in lives_on}
    return [
        TimedTensor(
            number=t,
            space_bytes=int(net.space[t]),
            read_bytes=int(net.size[t]),
            # Off-chip before the subproblem, it has a copy.
            store_bytes=0 if net.clean[t] or subproblem.held.get(t, t not in producer) else int(net.store[t]),
            producer=producer.get(t, -1),
            readers=[k for k in row if k != producer.get(t)],
            streamed_by=frozenset(k for k, may in row.items() if may),
            life=range(
                0 if t in subproblem.held else min(earliest[k] for k in row),
                (len(subproblem.operators) if t in lives_on else max(latest[k] for k in row)) + 1,
            ),
            held=t in subproblem.held,
            lives_on=t in lives_on,
        )
        for t, row in touches.items()
    ]


def needed_after(net: Network, order: Sequence[int], end: int) -> frozenset[int]:
    """Tensors that exist before step ``end`` of an order and are read at or after it; inputs included."""
    later = {int(t) for v in order[end:] for t in net.operand[net.operand_start[v] : net.operand_start[v + 1]]}
    made = {int(t) for v in order[end:] for t in net.result[net.result_start[v] : net.result_start[v + 1]]}
    return frozenset(later - made)
