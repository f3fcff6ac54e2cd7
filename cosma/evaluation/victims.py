"""Which tensors a step can give up where it lacks room, and which of them goes first (numba).

Victims at a step: tensors that wait, and, under ``streamable``, what the step itself would bring in (``WAITS``);
operands in use now that could make room for the step's result if they were not kept afterwards (``PAIR``);
under ``streamable`` operands in use now, which are then read off-chip (``IN_USE``), and the result of a chain, whose
head then writes off-chip for the next member to read (``LATE``); it enters once the head has run, if it fits then.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

import numpy as np

from cosma.compiled import helper
from cosma.evaluation.network import Network
from cosma.evaluation.tape import Tape

WAITS, PAIR, IN_USE, LATE = 0, 1, 2, 3


@helper
def list_offers(net: Network, tape: Tape, operator: int, step: int, count: int, mark: int) -> int:
    """List what could be given up at a step, with price and price times weight; returns how many there are.

    A tensor may be listed twice: as ``PAIR`` and as ``IN_USE``.
    """
    n = tape.order.shape[0]
    offers = np.int64(0)
    for k in range(count):
        t = np.int64(tape.held[k])
        following = np.int64(tape.next_use[t])
        store = np.int64(0) if tape.stored[t] == 1 else net.store[t]
        price = net.size[t] + store
        kind, space = WAITS, net.space[t]
        if tape.pin[t] == mark:
            if following < n:
                for j in range(net.pair_start[operator], net.pair_start[operator + 1]):
                    if net.pair_operand[j] == t:
                        tape.offer[offers] = t
                        tape.offer_kind[offers] = PAIR
                        tape.offer_price[offers] = price
                        tape.offer_space[offers] = net.space[net.pair_result[operator]]
                        tape.offer_score[offers] = price * tape.weight[following - step]
                        offers += 1
            if tape.fixed[t] == mark:
                continue
            if following < n:
                price += net.size[t]
            kind = IN_USE
            following = np.int64(step)
        elif tape.pin[t] == -mark and net.chain_cost[operator] > 0:
            price = 2 * net.size[t]
            kind = LATE
            following = np.int64(step)
        elif following == n:
            # A result nobody reads only needs room while its operator runs.
            price -= net.size[t]
            following = np.int64(step)
        tape.offer[offers] = t
        tape.offer_kind[offers] = kind
        tape.offer_price[offers] = price
        tape.offer_space[offers] = space
        tape.offer_score[offers] = price * tape.weight[following - step]
        offers += 1
    return offers


@helper
def choose_offer(tape: Tape, offers: int, over: int, may_pair: bool) -> int:
    """The offer of least score per byte of room gained, -1 if there is none. Ties: least tensor, then kind first."""
    best, best_tensor, best_score = np.int64(-1), np.int64(-1), np.inf
    for k in range(offers):
        score = tape.offer_score[k] / min(tape.offer_space[k], over)
        if score <= best_score and (may_pair or tape.offer_kind[k] != PAIR):
            t = np.int64(tape.offer[k])
            if (
                score < best_score
                or t < best_tensor
                or (t == best_tensor and tape.offer_kind[k] < tape.offer_kind[best])
            ):
                best, best_tensor, best_score = np.int64(k), t, score
    return best


@helper
def withdraw_offers(tape: Tape, offers: int, tensor: int) -> int:
    """Strike the offers of a tensor; returns how many are left."""
    k = np.int64(0)
    while k < offers:
        if tape.offer[k] == tensor:
            offers -= 1
            tape.offer[k] = tape.offer[offers]
            tape.offer_kind[k] = tape.offer_kind[offers]
            tape.offer_price[k] = tape.offer_price[offers]
            tape.offer_space[k] = tape.offer_space[offers]
            tape.offer_score[k] = tape.offer_score[offers]
        else:
            k += 1
    return offers
