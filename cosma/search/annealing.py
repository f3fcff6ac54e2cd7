"""Compiled annealing over orders (numba).

Every move of annealing reorders a range ``[low, high]`` of the order and keeps it topological:

* *hoist*: an operator moves to ``low`` and takes along whatever it depends on inside the range;
* *sink*: an operator moves to ``high`` and takes along whatever depends on it inside the range;
* *shift*: a block of operators that run one after the other, often a single one, moves anywhere between its last
  predecessor and its first successor.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosma.arrays import Floats, Int32s, Ints, Words
from cosma.compiled import helper, kernel
from cosma.evaluation.kernels import simulate
from cosma.evaluation.network import Network
from cosma.evaluation.tape import Tape, adopt, copy_order
from cosma.random_kernels import random_below, random_unit

#: Looks at offers in the time that one simulated step takes otherwise.
SCANNED_PER_STEP = 48

#: Weights with which the next move is near a step above the capacity, and near any step, where one near a step that
#: pays has weight 1.
EXCESS_WEIGHT, ANY_WEIGHT = 2.0, 0.3
#: Powers of two up to which the distance from that step is drawn.
NEAR_POWERS = 6

#: Powers of two up to which a hoist or a sink reaches, and operators beyond the first in a block that shifts.
FAR_POWERS, BLOCK_POWERS = 9, 4


class Walk(NamedTuple):
    """State that annealing carries from call to call.

    ``state``: random state. ``total``: cost, excess, best cost, best excess of this walk.
    ``best``: the order of the best. ``mark``, ``first``, ``second``: scratch. ``heat``: prefix sums of the
    weight with which steps are picked.
    """

    state: Words
    total: Ints
    best: Int32s
    mark: Ints
    first: Int32s
    second: Int32s
    heat: Floats


@helper
def precedence_window(net: Network, tape: Tape, at: int, length: int) -> tuple[int, int]:
    """Steps ``[low, high]`` at which the block of operators ``[at, at + length)`` can begin, as it is."""
    low, high = np.int64(0), np.int64(tape.order.shape[0] - 1)
    for i in range(at, at + length):
        v = np.int64(tape.order[i])
        for k in range(net.predecessor_start[v], net.predecessor_start[v + 1]):
            where = np.int64(tape.position[net.predecessor[k]])
            if where < at:
                low = max(low, where + 1)
        for k in range(net.successor_start[v], net.successor_start[v + 1]):
            where = np.int64(tape.position[net.successor[k]])
            if where >= at + length:
                high = min(high, where - 1)
    return low, high - length + 1


@helper
def shift(tape: Tape, saved: Int32s, at: int, length: int, to: int) -> None:
    """Move the block of operators that begins at one step to another; those between close up.

    ``saved`` holds the order as it was between the first and the last step that changes.
    """
    order, position = tape.order, tape.position
    if to > at:
        for i in range(at, to):
            order[i] = saved[i + length]
            position[order[i]] = i
    else:
        for i in range(to, at):
            order[i + length] = saved[i]
            position[order[i + length]] = i + length
    for i in range(length):
        order[to + i] = saved[at + i]
        position[order[to + i]] = to + i


@helper
def gather(
    tape: Tape, walk: Walk, at: int, to: int, tied_start: Int32s, tied: Int32s
) -> int:
    """Move the operator at step ``at`` and those up to step ``to`` that it is tied to; returns how many move.

    They end next to each other, the last at ``to``, in the order they had. An operator moves if one of its ``tied``
    does: its successors where ``to`` is the earlier step (hoist), its predecessors where it is the later one (sink).
    """
    order, position, mark = tape.order, tape.position, walk.mark
    n = order.shape[0]
    mark[n] += 1
    stamp = mark[n]
    mark[order[at]] = stamp
    taken, left = 0, 0
    step = 1 if to > at else -1
    for i in range(at, to + step, step):
        v = np.int64(order[i])
        moves = mark[v] == stamp
        if not moves:
            for k in range(tied_start[v], tied_start[v + 1]):
                if mark[tied[k]] == stamp:
                    moves = True
                    break
        if moves:
            mark[v] = stamp
            walk.first[taken] = v
            taken += 1
        else:
            walk.second[left] = v
            left += 1
    for i in range(left + taken):
        v = walk.second[i] if i < left else walk.first[i - left]
        order[at + step * i] = v
        position[v] = at + step * i
    return taken


@helper
def warm(tape: Tape, walk: Walk, first: int, beyond: int) -> None:
    """Weigh the steps ``[first, beyond)`` for picking: those that pay, those above the capacity, and all a little."""
    cost, excess = 0.0, 0.0
    for i in range(first, beyond):
        cost += tape.step_cost[i]
        excess += tape.step_excess[i]
    walk.heat[first] = 0.0
    for i in range(first, beyond):
        weight = ANY_WEIGHT / (beyond - first)
        if cost > 0:
            weight += tape.step_cost[i] / cost
        if excess > 0:
            weight += EXCESS_WEIGHT * tape.step_excess[i] / excess
        walk.heat[i + 1] = walk.heat[i] + weight


@helper
def pick_step(walk: Walk, first: int, beyond: int) -> int:
    """A step of ``[first, beyond)`` near one picked by weight; the distance is geometric."""
    wanted = random_unit(walk.state) * walk.heat[beyond]
    at, above = np.int64(first), np.int64(beyond)
    while above - at > 1:
        middle = (at + above) // 2
        if walk.heat[middle] <= wanted:
            at = middle
        else:
            above = middle
    reach = np.int64(1) << random_below(walk.state, NEAR_POWERS)
    at += random_below(walk.state, 2 * reach + 1) - reach
    return min(max(at, np.int64(first)), np.int64(beyond - 1))


@helper
def last_touch_before(net: Network, tape: Tape, operator: int, step: int, reach: int) -> int:
    """Earliest of the last touches before ``step`` of an operator's operands, at most ``reach`` steps back."""
    found = np.int64(step)
    for k in range(net.operand_start[operator], net.operand_start[operator + 1]):
        t = np.int64(net.operand[k])
        last = np.int64(-1)
        for j in range(net.consumer_start[t], net.consumer_start[t + 1]):
            at = np.int64(tape.position[net.consumer[j]])
            if last < at < step:
                last = at
        for j in range(net.predecessor_start[operator], net.predecessor_start[operator + 1]):
            u = np.int64(net.predecessor[j])
            for i in range(net.result_start[u], net.result_start[u + 1]):
                if net.result[i] == t:
                    at = np.int64(tape.position[u])
                    if last < at < step:
                        last = at
        if last >= step - reach:
            found = min(found, last)
    return found


@kernel
def anneal(
    net: Network,
    tape: Tape,
    walk: Walk,
    work: int,
    hot: float,
    cold: float,
    scale: float,
    reach: int,
    moves: Floats,
    first: int,
    beyond: int,
) -> tuple[int, int]:
    """Anneal over orders for a budget of simulated steps.

    Only operators in ``[first, beyond)`` are reordered, and they stay there: walks over disjoint ranges of one order
    find orders that can be joined.

    Parameters
    ----------
    net, tape, walk
        Instance, known order, and state carried from call to call.
    work
        Steps to simulate, about.
    hot, cold
        Temperature at the start and at the end, in bytes; it falls geometrically with the work done.
    scale
        Bytes that one byte-step of live bytes above the capacity counts.
    reach
        How many steps before a changed range the replay may start, to reconsider evictions there.
    moves
        Shares of shift, and of shift and hoist, among the moves; the rest sinks. Share of shifts that take a block of
        several operators.
    first, beyond
        Steps to reorder.

    Returns
    -------
    work, tried
        Steps simulated and moves tried.
    """
    n = tape.order.shape[0]
    stride = tape.stride[0]
    order = tape.order
    done, tried, quiet = np.int64(0), np.int64(0), np.bool_(False)
    rewarm = np.int64(0)
    temperature = hot
    backup = np.empty(n, dtype=np.int32)
    unsaved = False
    while done < work:
        if tried % 32 == 0:
            temperature = hot * (cold / hot) ** (done / work)
        if done >= rewarm:
            warm(tape, walk, first, beyond)
            rewarm = done + 20 * (beyond - first)
        tried += 1
        done += 4
        at = pick_step(walk, first, beyond)
        v = np.int64(order[at])
        kind = random_unit(walk.state)
        if kind < moves[0]:
            length = np.int64(1)
            if random_unit(walk.state) < moves[2]:
                length += 1 + random_below(walk.state, np.int64(1) << random_below(walk.state, BLOCK_POWERS))
                at = min(at, np.int64(beyond) - length)
                if at < first:
                    continue
                v = np.int64(order[at])
            low, high = precedence_window(net, tape, at, length)
            low, high = max(low, np.int64(first)), min(high, np.int64(beyond - length))
            if low == high:
                continue
            to = low + random_below(walk.state, high - low)
            if to >= at:
                to += 1
            if random_unit(walk.state) < 0.5:
                # Half of the moves stay near: a neighbour's place, or one of the ends of the window.
                near = random_below(walk.state, 4)
                if near == 0:
                    to = low
                elif near == 1:
                    to = high
                elif near == 2:
                    to = max(low, at - 1 - random_below(walk.state, 4))
                else:
                    to = min(high, at + 1 + random_below(walk.state, 4))
                if to == at:
                    continue
            begin, end = min(at, to), max(at, to) + length - 1
            for i in range(begin, end + 1):
                backup[i] = order[i]
            shift(tape, backup, at, length, to)
        elif kind < moves[1]:
            far = np.int64(1) << random_below(walk.state, FAR_POWERS)
            begin = max(np.int64(first), at - 1 - random_below(walk.state, far))
            end = at
            if begin >= end:
                continue
            for i in range(begin, end + 1):
                backup[i] = order[i]
            if gather(tape, walk, at, begin, net.successor_start, net.successor) > end - begin:
                continue
        else:
            far = np.int64(1) << random_below(walk.state, FAR_POWERS)
            begin = at
            end = min(np.int64(beyond - 1), at + 1 + random_below(walk.state, far))
            if begin >= end:
                continue
            for i in range(begin, end + 1):
                backup[i] = order[i]
            if gather(tape, walk, at, end, net.predecessor_start, net.predecessor) > end - begin:
                continue
        low, high = begin, end
        while low < high and order[low] == backup[low]:
            low += 1
        while high > low and order[high] == backup[high]:
            high -= 1
        start = low
        if reach > 0:
            start = last_touch_before(net, tape, np.int64(order[low]), low, reach)
            start = min(start, last_touch_before(net, tape, v, low, reach))
        start = start // stride * stride
        slack = -temperature * np.log(1.0 - random_unit(walk.state))
        stop, cost, excess, scanned = simulate(net, tape, start, high + 1, slack, quiet)
        done += (stop if stop >= 0 else high + 1) - start + scanned // SCANNED_PER_STEP
        if stop >= 0 and cost + scale * excess <= slack:
            adopt(tape, start, stop)
            walk.total[0] += cost
            walk.total[1] += excess
            if walk.total[0] < walk.total[2] or (walk.total[0] == walk.total[2] and walk.total[1] < walk.total[3]):
                walk.total[2] = walk.total[0]
                walk.total[3] = walk.total[1]
                unsaved = True
                if walk.total[0] == 0:
                    break
            elif unsaved:
                # Copied only when the best order is left behind: on the way down every move improves.
                copy_order(order, walk.best, first, beyond)
                for i in range(low, high + 1):
                    walk.best[i] = backup[i]
                unsaved = False
        else:
            for i in range(low, high + 1):
                order[i] = backup[i]
                tape.position[backup[i]] = i
    if unsaved:
        copy_order(order, walk.best, first, beyond)
    return done, tried
