"""Dynamic programming over what lies in the scratchpad: exact order and residency, without addresses.

Operators run one after another. A state after some of them is the set of those that have run, the tensors in the
scratchpad, and which of these already have an off-chip copy. All states with ``k`` operators behind them form
layer ``k``. Where an operator is comparable with all others there is one set of operators only, so the layer
holds nothing but what can cross that cut: decomposition comes by itself.

Traffic is charged when a tensor that is still needed leaves the scratchpad (its next read, and its store if it
has no copy yet), so that a cheaper state never owes more later. Three facts keep layers small; all are proved in
``docs/formulations.md``:

- *Dominance.* Among states with the same operators behind them, one that could turn into another by giving
  tensors up, at no more than the other's cost, makes the other superfluous.
- *Symmetric branches.* Where branches can trade places, states that differ by their names alone are one.
- *Free moves.* An operator whose operands are all inside, which fits beside everything, and which leaves behind
  nothing, or one result no dearer and no larger than an operand that dies with it, may run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.parameters.states import StatesParameters
from cosma.problem.precedence import bits
from cosma.problem.support import Support, one_takeover_each, up_to
from cosma.problem.symmetry import symmetries_of
from cosma.states.charges import charges_of
from cosma.states.moves import Moves, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.problem import Problem
    from cosma.problem.symmetry import Symmetry

DEFAULTS = StatesParameters()


@dataclass(frozen=True, slots=True)
class StatesResult:
    """What the search over states found."""

    #: No plan has less non-compulsory traffic; equal to ``cost_bytes`` where that is not None.
    bound_bytes: int
    #: The optimum without addresses, None if the search ended early or nothing is below the ceiling.
    cost_bytes: int | None
    #: An order that reaches it.
    order: tuple[int, ...]
    #: Whether all states were searched. Complete without a cost means: nothing is below the ceiling.
    complete: bool
    #: States expanded: the work done.
    expanded: int

    @property
    def method(self) -> str:
        """How the bound came to be."""
        return "dynamic programming over states, without addresses" + ("" if self.complete else ", cut short")


def supports(problem: Problem, parameters: StatesParameters = DEFAULTS) -> Support:
    """Whether there are few enough operators to begin."""
    return one_takeover_each(problem) and up_to(parameters.most_operators, problem.operator_count, "operators")


def search_states(
    problem: Problem,
    *,
    ceiling_bytes: int | None = None,
    most_states: int = 100_000,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    symmetric: bool = True,
) -> StatesResult:
    """Find the least non-compulsory traffic over all orders and residencies.

    Deterministic. Work is counted in states.

    Parameters
    ----------
    problem
        The instance; every operator fits (see :func:`cosma.problem.check_feasible`).
    ceiling_bytes
        Traffic of a known plan: only what is better is searched for.
    most_states
        States to expand (ways to run an operator count a tenth) before giving up with a bound.
    seed
        Which of several optimal orders comes out.
    stop
        Polled between states.
    symmetric
        Whether to look for branches that can trade places, and to treat states that differ by such a swap as one.
    """
    swaps = [Swap(symmetry) for symmetry in symmetries_of(problem)] if symmetric else []
    return _Search(problem, ceiling_bytes, most_states, seed, stop, swaps).run()


class _LimitReachedError(Exception):
    """The search may not go on."""


class _Search:
    def __init__(
        self,
        problem: Problem,
        ceiling: int | None,
        most_states: int,
        seed: int,
        stop: Callable[[], bool] | None,
        swaps: Sequence[Swap],
    ) -> None:
        self.problem = problem
        self.constant = problem.constant_noncompulsory_bytes
        self.ceiling = None if ceiling is None else ceiling - self.constant
        self.most_states = most_states
        self.stop = stop
        count = problem.operator_count
        self.moves = Moves(problem)
        self.before = [sum(1 << u for u in problem.predecessors_of(v).tolist()) for v in range(count)]
        self.born_after: dict[int, int] = {}
        self.produced = [sum(1 << t for t in problem.results_of(v).tolist()) for v in range(count)]
        self.charges = [(1 << c.operator, c.tensors, c.cost_bytes) for c in charges_of(problem)]
        self.swaps = swaps
        self.expanded = 0
        self.tried = 0
        # Operators are looked at in this order, which decides between equally good ones.
        self.preference = np.random.default_rng(seed).permutation(count).tolist() if seed else list(range(count))

    def run(self) -> StatesResult:
        count = self.problem.operator_count
        layer: dict[int, list[State]] = {0: [State(0, 0, 0, 0, -1, None)]}
        floor = 0
        for _ in range(count):
            following: dict[int, list[State]] = {}
            try:
                for done, states in layer.items():
                    ready = self._ready(done)
                    for state in states:
                        self._expand(done, ready, state, following)
            except _LimitReachedError:
                return StatesResult(floor + self.constant, None, (), False, self.expanded)
            layer = {}
            for done, states in following.items():
                promising = self._promising(done, states)
                if promising:
                    name, renamed = self._renamed(done, promising)
                    layer.setdefault(name, []).extend(renamed)
            for done, states in layer.items():
                layer[done] = self.moves.undominated(states)
            if not layer:
                assert self.ceiling is not None, "every operator fits, so some state follows"
                return StatesResult(self.ceiling + self.constant, None, (), True, self.expanded)
            floor = max(floor, min(self._estimate(done, s) for done, states in layer.items() for s in states))
        best = min(state for states in layer.values() for state in states)
        cost = best.cost + self.constant
        return StatesResult(cost, cost, self._order(best), True, self.expanded)

    def _order(self, best: State) -> tuple[int, ...]:
        """Follow a state back to the first, in the names that things have at the end."""
        order: list[int] = []
        name = list(range(self.problem.operator_count))
        last: State | None = best
        while last is not None and last.operator >= 0:
            for k in reversed(last.renamed):
                swapped = {v: name[w] for v, w in self.swaps[k].operators.items()}
                for v, w in swapped.items():
                    name[v] = w
            order.append(name[last.operator])
            last = last.parent
        return tuple(reversed(order))

    def _renamed(self, done: int, states: list[State]) -> tuple[int, list[State]]:
        """Give states with the same operators behind them the names under which their likes are kept."""
        common: list[int] = []
        settled = not self.swaps
        while not settled:
            settled = True
            for k, swap in enumerate(self.swaps):
                other = swap.of_operators(done)
                if other < done:
                    done, settled = other, False
                    common.append(k)
        neutral = [k for k, swap in enumerate(self.swaps) if swap.of_operators(done) == done]
        return done, [self._renamed_state(state, common, neutral) for state in states]

    def _renamed_state(self, state: State, common: list[int], neutral: list[int]) -> State:
        """Rename by swaps that the operators behind call for, then by those that these do not notice."""
        inside, copied = state.inside, state.copied
        steps = list(common)
        for k in common:
            inside, copied = self.swaps[k].of_tensors(inside), self.swaps[k].of_tensors(copied)
        settled = not neutral
        while not settled:
            settled = True
            for k in neutral:
                swap = self.swaps[k]
                other = swap.of_tensors(inside), swap.of_tensors(copied)
                if other < (inside, copied):
                    (inside, copied), settled = other, False
                    steps.append(k)
        return state._replace(inside=inside, copied=copied, renamed=tuple(steps)) if steps else state

    def _ready(self, done: int) -> list[int]:
        return [v for v in self.preference if not done >> v & 1 and not self.before[v] & ~done]

    def _expand(self, done: int, ready: list[int], state: State, following: dict[int, list[State]]) -> None:
        self.expanded += 1
        if self.expanded + self.tried // 10 > self.most_states or (
            self.stop is not None and self.expanded % 64 == 0 and self.stop()
        ):
            raise _LimitReachedError
        for v in ready:
            free = self.moves.free_move(done, v, state)
            if free is not None:
                following.setdefault(done | 1 << v, []).append(free)
                return
        for v in ready:
            row = following.setdefault(done | 1 << v, [])
            for after in self.moves.ways(done, v, state):
                self.tried += 1
                if self.ceiling is None or after.cost < self.ceiling:
                    row.append(after)
            if not row:
                del following[done | 1 << v]

    def _promising(self, done: int, states: list[State]) -> list[State]:
        """Leave out states that cannot stay below the ceiling, whatever follows."""
        if self.ceiling is None:
            return states
        return [state for state in states if self._estimate(done, state) < self.ceiling]

    def _estimate(self, done: int, state: State) -> int:
        """Cost so far and what is certain to come: charges whose tensors have paid nothing yet."""
        born = 0
        remaining = [charge for charge in self.charges if not charge[0] & done]
        if remaining:
            born = self._born(done)
        gone = (born & ~state.inside) | state.copied
        return state.cost + sum(cost for _, tensors, cost in remaining if not tensors & gone)

    def _born(self, done: int) -> int:
        """Tensors produced by a set of operators."""
        known = self.born_after.get(done)
        if known is None:
            known = 0
            for v in bits(done):
                known |= self.produced[v]
            self.born_after = {done: known}
        return known


class Swap:
    """A symmetry, of branches that can trade places, as a renaming of bit sets."""

    def __init__(self, symmetry: Symmetry) -> None:
        self.operators = symmetry.operators
        self._rows = [
            (sum(1 << x for x in moved), [(1 << x, 1 << y) for x, y in moved.items()])
            for moved in (symmetry.operators, symmetry.tensors)
        ]

    def _renamed(self, mask: int, row: int) -> int:
        moved, pairs = self._rows[row]
        part = mask & moved
        if part in (0, moved):
            return mask
        return (mask ^ part) | sum(y for x, y in pairs if part & x)

    def of_operators(self, done: int) -> int:
        """Rename a set of operators."""
        return self._renamed(done, 0)

    def of_tensors(self, tensors: int) -> int:
        """Rename a set of tensors."""
        return self._renamed(tensors, 1)
