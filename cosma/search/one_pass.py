"""Better orders of thousands of tiles, each judged by a plan in one pass.

Searches of other kinds decide residency first and lose what packing then costs. Here every trial has addresses. A plan
in one pass gives up what seems cheapest at the time; changes are made where a tensor left that was read again.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from cosma.clock import never
from cosma.lowering.along import RULES, Steps, realised, run_steps, steps_of
from cosma.problem import noncompulsory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from cosma.arrays import Ints
    from cosma.lowering import Realised
    from cosma.problem import Problem

#: Parts that steps planned touch, for each nominal second: one took 120 to 360 nanoseconds on a core that is half as
#: fast as the reference.
WORK_PER_SECOND = 10_000_000
#: Bytes by which a change may cost more and still be kept, in the mean, as shares of those paid at first: at the start
#: and at the end. PVT, SqueezeBERT, DistilBERT and HGNet at 256 KiB with (0.01, 0.0001), (0.002, 0.0001) and
#: (0.0005, 0.00005): 0.205, 0.187, 0.81, 3.19 MB; 0.206, 0.209, 0.74, 3.12; 0.205, 0.176, 0.74, 3.17.
HOT, COLD = 0.002, 0.0001
#: Kinds of changes, drawn with equal chance: the reader comes before the step that paid, a step goes behind the reader,
#: a step near the one that paid or near the reader is shifted, the tensor is dearer or cheaper to give up, or another
#: rule says which gaps a stretch of steps takes. Each found less to move on at least three of the four networks above.
READER, BEHIND, NEAR_PAID, NEAR_READER, FAVOUR, RULE = KINDS = range(6)
#: Steps that move together at the most, and others that do so without need, in how many of all cases; not measured.
MOST_MOVED, MOST_OTHERS, WITH_OTHERS = 200, 16, 0.25
#: Steps by which one is shifted at the most, by powers of two; not measured.
FARTHEST = 7
#: How much dearer to give up a tensor becomes at once, how often it does rather than cheaper, and the dearest; not
#: measured.
DEARER, OFTEN_DEARER, DEAREST = 4.0, 0.75, 256.0
#: Parts that a trial counts for which ends before anything is planned; not measured.
EMPTY_TRIAL = 100


def better_in_one_pass(
    problem: Problem, order: Sequence[int], effort: float, seed: int = 0, stop: Callable[[], bool] = never,
    report: Callable[[int, float], None] | None = None, streamed: Container[tuple[int, int]] = (),
) -> tuple[int, Realised] | None:  # fmt: skip
    """Anneal an order, the rules by which gaps are taken, and what is given up for room.

    Parameters
    ----------
    problem, order
        The instance, and operators in the order to begin with.
    effort
        Nominal seconds to spend.
    seed
        Same arguments, same result.
    stop
        Polled between plans; the best so far stands.
    report
        Hears of every improvement: the bytes paid, and the share of the work done.
    streamed
        Pairs of operator and tensor that pass by the scratchpad.

    Returns
    -------
    tuple
        Bytes beyond the compulsory, and the best plan; None where no plan is made in one pass.
    """
    along = steps_of(problem, order, streamed)
    capacity = problem.capacity_bytes
    tried = [(int(found[0].sum()), rule) for rule in RULES if (found := run_steps(along, capacity, rule)) is not None]
    if not tried:
        return None
    turns = _Turns(problem, order, steps_of(problem, range(problem.operator_count), streamed), min(tried)[1], seed)
    turns.anneal(int(WORK_PER_SECOND * effort), stop, report)
    plan = realised(problem, turns.best_order, turns.best_log)
    return noncompulsory_bytes(problem, plan.decisions), plan


class _Turns:
    """An order of operators, a rule for each, and how dear each tensor is to give up, with the plan that they give."""

    def __init__(self, problem: Problem, order: Sequence[int], steps: Steps, rule: int, seed: int) -> None:
        self.rng, self.steps, self.capacity = random.Random(seed), steps, problem.capacity_bytes
        self.before = problem.predecessor_start, problem.predecessor
        self.behind = problem.successor_start, problem.successor
        self.order = np.array(order, dtype=np.int64)
        self.place = np.empty_like(self.order)
        self.rule = np.full(len(order), rule, dtype=np.int64)
        self.favour = np.ones(problem.tensor_count)
        self.marks, self.mark = np.full(len(order), -1, dtype=np.int64), 0
        self.moved = np.empty(MOST_MOVED, dtype=np.int64)
        self.new = Steps._make(array.copy() for array in steps)
        self.parts = len(steps.operand) + len(steps.result)
        self.work = 0
        self.paid = 1 << 60
        self.best_order, self.least = list(order), 1 << 60
        self.best_log: Ints = np.empty((0, 5), dtype=np.int64)
        self.cost: Ints = np.empty(0, dtype=np.int64)
        self.broken: Ints = np.empty((0, 4), dtype=np.int64)
        self.chances: list[int] = []
        self.plan(None)

    def anneal(self, work: int, stop: Callable[[], bool], report: Callable[[int, float], None] | None) -> None:
        """Make changes for so much work."""
        first, begun = self.paid, self.work
        while self.least > 0 and (done := (self.work - begun) / max(1, work)) < 1 and not stop():
            if not self.chances or self.chances[-1] == 0:
                return  # all that is paid is paid in any order
            heat = first * HOT * (COLD / HOT) ** done
            least = self.least
            self.change(self.paid - heat * math.log(1.0 - self.rng.random()))
            if report is not None and self.least < least:
                report(self.least, done)

    def plan(self, most: float | None) -> bool:
        """Plan the order in one pass, and keep the plan unless it pays more; whether it is kept."""
        from cosma.search.one_pass_kernels import arrange, broken_stays

        old, new = self.steps, self.new
        arrange(self.order, self.place, *old[:9], *old[13:], *new[:4], *new[5:9], *new[13:])
        limit = None
        if most is not None:  # what lies in the scratchpad at a step is worth a scratchpad's bytes at the most
            limit = np.minimum(np.cumsum(self.cost) + self.capacity, int(most))
        found = run_steps(new, self.capacity, self.rule[self.order], limit, self.favour)
        self.work += self.parts if found is None or found[1] is not None else self.parts // 2
        log = None if found is None else found[1]
        if found is None or log is None:
            return False
        self.cost = found[0]
        self.paid = int(self.cost.sum())
        self.broken = broken_stays(log, len(log), self.cost, len(self.favour))
        self.chances = list(accumulate(new.size[self.broken[:, 0]].tolist()))
        if self.paid < self.least:
            self.least, self.best_order, self.best_log = self.paid, self.order.tolist(), log
        return True

    def change(self, most: float) -> None:
        """Change something where a stay broke off, and plan anew; undone where more than ``most`` is paid."""
        rng = self.rng
        self.work += EMPTY_TRIAL
        where = rng.choices(range(len(self.chances)), cum_weights=self.chances)[0]
        tensor, touched, paid, reader = self.broken[where].tolist()
        kind = rng.choice(KINDS)
        if kind == FAVOUR:
            old_favour = float(self.favour[tensor])
            factor = DEARER if rng.random() < OFTEN_DEARER else 1 / DEARER
            self.favour[tensor] = min(max(old_favour * factor, 1 / DEAREST), DEAREST)
            if self.favour[tensor] != old_favour and not self.plan(most):
                self.favour[tensor] = old_favour
        elif kind == RULE:
            length = 2 << rng.randrange(FARTHEST + 1)
            begin = max(0, paid - rng.randrange(length))
            chosen = self.order[begin : begin + length]
            old_rules = self.rule[chosen]
            self.rule[chosen] = rng.choice(RULES)
            if not self.plan(most):
                self.rule[chosen] = old_rules
        else:
            self._move(*self._from_to(kind, touched, paid, reader), most)

    def _from_to(self, kind: int, touched: int, paid: int, reader: int) -> tuple[int, int]:
        """A step to move, and where to."""
        rng = self.rng
        if kind == READER:
            return reader, rng.choice((touched + 1, paid))
        if kind == BEHIND:
            return rng.choice((paid, rng.randrange(touched + 1, paid + 1))), reader
        far, last = 1 << rng.randrange(FARTHEST + 1), len(self.order) - 1
        step = min(max((paid if kind == NEAR_PAID else reader) + rng.randint(-far, far), 0), last)
        return step, min(max(step + rng.randint(-far, far), 0), last)

    def _move(self, step: int, target: int, most: float) -> None:
        """Move a step, or a few, with all that has to come along."""
        from cosma.search.one_pass_kernels import move_steps

        if step == target:
            return
        others = self.rng.randrange(MOST_OTHERS) if self.rng.random() < WITH_OTHERS else 0
        linked = self.before if target < step else self.behind
        old: Ints = self.order.copy()
        self.mark += 1
        begin, end = move_steps(
            self.order, self.place, step, others, target, *linked, self.marks, self.mark, self.moved
        )  # fmt: skip
        if begin < end and not self.plan(most):
            self.order = old
            self.place[old[begin:end]] = np.arange(begin, end)
