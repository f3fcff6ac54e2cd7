"""Plans along an order in one pass: residency and addresses are decided together, step by step.

Other ways decide residency first, as if any tensors that fit in sum had addresses, and repair what has none. Where
there are thousands of parts, repair takes long and loses more than this does.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cosma.csr import csr
from cosma.lowering.emit import emit
from cosma.lowering.realise import Realised
from cosma.problem import Decisions, Residency
from cosma.problem.rules import first_arrival_is_compulsory, store_bytes

if TYPE_CHECKING:
    from cosma.arrays import Bytes, Floats, Int32s, Ints
    from cosma.problem import Problem


#: Rules by which a tensor takes a free gap, see :mod:`cosma.lowering.free_kernels`.
RULES = (0, 1, 2)


class Steps(NamedTuple):
    """Operators in order as :func:`cosma.lowering.along_kernels.run_along` takes them."""

    operand_start: Int32s
    operand: Int32s
    result_start: Int32s
    result: Int32s
    consumer_start: Int32s
    consumer: Int32s
    pair_start: Int32s
    pair_result: Int32s
    pair_operand: Int32s
    size: Ints
    space: Ints
    clean: Bytes
    store: Ints
    added: Int32s
    unfinished: Bytes


def run_steps(
    steps: Steps, capacity_bytes: int, rule: int | Ints, limit: Ints | None = None, favour: Floats | None = None
) -> tuple[Ints, Ints | None] | None:
    """Bytes paid at each step, and arrivals; None where a step does not fit. The rule may be one for each step.

    ``favour`` says of each tensor how often it counts as dearer to give up than it is; once without.

    With limits on what may be paid by the end of each step, the bytes up to where one is exceeded, and no arrivals.
    """
    from cosma.lowering.along_kernels import OVER_LIMIT, run_along

    log = np.zeros((2 * (len(steps.operand) + len(steps.result)) + 8, 5), dtype=np.int64)
    count = len(steps.operand_start) - 1
    if limit is None:
        limit = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    rules = np.full(count, rule, dtype=np.int64) if isinstance(rule, int) else rule
    if favour is None:
        favour = np.ones(len(steps.size))
    cost, logged = run_along(*steps, capacity_bytes, rules, favour, limit, log)
    if logged <= OVER_LIMIT:
        return cost[: OVER_LIMIT - logged + 1], None
    return None if logged < 0 else (cost, log[:logged])


def plan_along(
    problem: Problem, order: Sequence[int], *rules: int, streamed: Container[tuple[int, int]] = ()
) -> Realised | None:
    """Plan an order with addresses in one pass. None where a step does not fit in this way.

    ``rules`` say which free gap a tensor takes, see :mod:`cosma.lowering.free_kernels`; of several, the first that
    moves least. ``streamed`` are the pairs of operator and tensor that pass by the scratchpad, of those that may.

    Deterministic. Time grows with steps times the tensors in the scratchpad.
    """
    if problem.places is not None:
        return None  # addresses are given here as if all below the capacity could be used
    found = _best_rule(problem, order, rules, streamed)
    arrivals = None if found is None else found[1]
    return None if arrivals is None else realised(problem, order, arrivals)


def realised(problem: Problem, order: Sequence[int], arrivals: Ints) -> Realised:
    """Decisions and instructions out of the arrivals that :func:`run_steps` gives for an order."""
    produced = problem.producer
    place = {v: i for i, v in enumerate(order)}
    rows = []
    for tensor, step, address, taken, last in arrivals.tolist():
        loaded = not (produced[tensor] >= 0 and place[int(produced[tensor])] == step)
        rows.append((Residency(tensor, step, last + 1, loaded, None if taken < 0 else taken), address))
    rows.sort(key=lambda row: (row[0].start, row[0].tensor))
    decisions = Decisions(tuple(order), tuple(residency for residency, _ in rows))
    return Realised(decisions, emit(problem, decisions, [address for _, address in rows]), 0)


def bytes_along(problem: Problem, order: Sequence[int], streamed: Container[tuple[int, int]] = ()) -> int | None:
    """What a plan by the best of the rules pays beside what is streamed; None where none fits."""
    found = None if problem.places is not None else _best_rule(problem, order, RULES, streamed)
    return None if found is None else int(found[0].sum())


def _best_rule(
    problem: Problem, order: Sequence[int], rules: Sequence[int], streamed: Container[tuple[int, int]]
) -> tuple[Ints, Ints | None] | None:
    steps = steps_of(problem, order, streamed)
    tried = [found for rule in rules if (found := run_steps(steps, problem.capacity_bytes, rule)) is not None]
    return min(tried, key=lambda found: int(found[0].sum()), default=None)


def steps_of(problem: Problem, order: Sequence[int], streamed: Container[tuple[int, int]] = ()) -> Steps:
    """What each step of an order touches in the scratchpad, for the pass; ``streamed`` passes by it."""
    operands = [[t for t in problem.operands_of(v).tolist() if (v, t) not in streamed] for v in order]
    results = [[t for t in problem.results_of(v).tolist() if (v, t) not in streamed] for v in order]
    pairs = [
        [(result, operand) for result, operand in problem.pairs_of(v) if result in made and operand in read]
        for v, read, made in zip(order, operands, results, strict=True)
    ]
    readers: list[list[int]] = [[] for _ in range(problem.tensor_count)]
    for step, row in enumerate(operands):
        for t in row:
            readers[t].append(step)
    clean = first_arrival_is_compulsory(problem).astype(np.uint8)
    for t, v in enumerate(problem.producer.tolist()):
        clean[t] |= (v, t) in streamed  # its copy lies off-chip before anything reads it
    pair_start, pair_result = csr([[result for result, _ in row] for row in pairs])
    return Steps(
        *csr(operands),
        *csr(results),
        *csr(readers),
        pair_start,
        pair_result,
        csr([[operand for _, operand in row] for row in pairs])[1],
        problem.size_bytes.astype(np.int64),
        problem.space_bytes.astype(np.int64),
        clean,
        store_bytes(problem),
        np.zeros(len(order), dtype=np.int32),
        np.zeros(len(order), dtype=np.uint8),
    )
