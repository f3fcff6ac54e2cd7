"""Changes of an order of tiles, and the steps of a changed order (numba)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np

from cosma.arrays import Bytes, Int32s, Ints
from cosma.compiled import helper, kernel
from cosma.lowering.along_kernels import LAST_TOUCH, STEP, TENSOR


@helper
def _gather(order: Ints, start: Int32s, values: Int32s, new_start: Int32s, new_values: Int32s) -> None:
    """Rows of a table in another order."""
    n = 0
    for i in range(len(order)):
        new_start[i] = n
        for k in range(start[order[i]], start[order[i] + 1]):
            new_values[n] = values[k]
            n += 1
    new_start[len(order)] = n


@kernel
def arrange(
    order: Ints, place: Ints, operand_start: Int32s, operand: Int32s, result_start: Int32s, result: Int32s,
    consumer_start: Int32s, consumer: Int32s, pair_start: Int32s, pair_result: Int32s, pair_operand: Int32s,
    added: Int32s, unfinished: Bytes, new_operand_start: Int32s, new_operand: Int32s, new_result_start: Int32s,
    new_result: Int32s, new_consumer: Int32s, new_pair_start: Int32s, new_pair_result: Int32s,
    new_pair_operand: Int32s, new_added: Int32s, new_unfinished: Bytes,
) -> None:  # fmt: skip
    """Write the steps of an order out of those in the operators' own order, and the step of each operator."""
    for i in range(len(order)):
        place[order[i]] = i
        new_added[i], new_unfinished[i] = added[order[i]], unfinished[order[i]]
    _gather(order, operand_start, operand, new_operand_start, new_operand)
    _gather(order, result_start, result, new_result_start, new_result)
    _gather(order, pair_start, pair_result, new_pair_start, new_pair_result)
    _gather(order, pair_start, pair_operand, new_pair_start, new_pair_operand)
    for t in range(len(consumer_start) - 1):  # steps that read a tensor ascend
        for k in range(consumer_start[t], consumer_start[t + 1]):
            step = place[consumer[k]]
            at = k
            while at > consumer_start[t] and new_consumer[at - 1] > step:
                new_consumer[at] = new_consumer[at - 1]
                at -= 1
            new_consumer[at] = step


@kernel
def move_steps(
    order: Ints, place: Ints, step: int, others: int, target: int, start: Int32s, linked: Int32s, marks: Ints,
    mark: int, moved: Ints,
) -> Any:  # fmt: skip
    """Move a step and some behind it, seen from the target, to the target, with what must come along.

    Parameters
    ----------
    order, place
        Operators by step, changed; steps by operator, not changed.
    step, others, target
        The step to move, how many more beyond it move, and where the last of them arrives.
    start, linked
        CSR: an operator's predecessors where the target is earlier, its successors where it is later.
    marks, mark
        A number for each operator, and one that none of them has yet.
    moved
        Room for the operators that move; where more would have to, nothing changes.

    Returns
    -------
    tuple
        The range of steps that changed, half-open; an empty one where none did.
    """
    way = -1 if target < step else 1
    first = min(max(step - way * others, 0), len(order) - 1)
    for at in range(min(step, first), max(step, first) + 1):
        marks[order[at]] = mark
    n = 0
    for at in range(first, target + way, way):
        v = order[at]
        if marks[v] == mark:
            if n == len(moved):
                return 0, 0
            moved[n] = v
            n += 1
            for k in range(start[v], start[v + 1]):
                if (place[linked[k]] - target) * way <= 0:
                    marks[linked[k]] = mark
    if n == abs(target - first) + 1:
        return 0, 0
    free = first
    for at in range(first, target + way, way):  # what stays closes up
        v = order[at]
        if marks[v] != mark:
            order[free] = v
            free += way
    for k in range(n):
        order[free] = moved[k]
        free += way
    return min(first, target), max(first, target) + 1


@kernel
def broken_stays(log: Ints, logged: int, cost: Ints, tensors: int) -> Any:
    """Where a tensor left that was read again: tensor, last touch, first step behind it that paid, next touch."""
    paid_next = np.full(len(cost) + 1, len(cost), np.int64)
    for i in range(len(cost) - 1, -1, -1):
        paid_next[i] = i if cost[i] > 0 else paid_next[i + 1]
    arrival = np.full(tensors, -1, np.int64)
    broken = np.empty((logged, 4), np.int64)
    n = 0
    for k in range(logged):
        t = log[k, TENSOR]
        if arrival[t] >= 0:
            last = log[arrival[t], LAST_TOUCH]
            paid = paid_next[last + 1]
            if paid <= log[k, STEP]:
                broken[n, 0], broken[n, 1], broken[n, 2], broken[n, 3] = t, last, paid, log[k, STEP]
                n += 1
        arrival[t] = k
    return broken[:n]
