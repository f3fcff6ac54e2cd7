"""Working memory of the compiled replay, and what is done there with a tensor or an order (numba)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosma.arrays import Bytes, Floats, Int32s, Ints, Words
from cosma.compiled import helper
from cosma.evaluation.network import Network


class Tape(NamedTuple):
    """Working memory of one simulation, and what is known before each step of the current order.

    ``row[i // stride]`` holds the tensors in the scratchpad before step ``i`` (twice the number, plus 1 where an
    off-chip copy exists), for ``i`` a multiple of ``stride``; ``step_cost[i]`` and ``step_excess[i]`` are the
    bytes paid at step ``i`` and the live bytes above the capacity there; ``key[i]`` hashes the state before it.
    ``trial_*`` is the same for the order under trial. ``pin[tensors]`` counts the steps simulated so far;
    ``fixed`` is that count for what the step at hand may not stream.
    ``offer*`` lists what could be given up at the step at hand.
    """

    order: Int32s
    position: Int32s
    stride: Ints
    row: Int32s
    count: Int32s
    step_cost: Ints
    step_excess: Ints
    live: Ints
    key: Words
    trial_row: Int32s
    trial_count: Int32s
    trial_cost: Ints
    trial_excess: Ints
    trial_live: Ints
    trial_key: Words
    held: Int32s
    slot: Int32s
    stored: Bytes
    next_use: Int32s
    pin: Ints
    fixed: Ints
    victim: Int32s
    victim_price: Ints
    weight: Floats
    tensor_key: Words
    dropped: Bytes
    born: Bytes
    offer: Int32s
    offer_kind: Int32s
    offer_price: Ints
    offer_space: Ints
    offer_score: Floats


@helper
def next_use_after(
    start: Int32s, consumer: Int32s, position: Int32s, n: int, tensor: int, step: int
) -> tuple[int, bool]:
    """First step after ``step`` that reads a tensor (number of steps if none), and whether one before it does."""
    found = np.int64(n)
    earlier = False
    for k in range(start[tensor], start[tensor + 1]):
        at = np.int64(position[consumer[k]])
        if at > step:
            found = min(found, at)
        elif at < step:
            earlier = True
    return found, earlier


@helper
def note_gap(net: Network, tape: Tape, tensor: int, end: int, value: int) -> None:
    """Note that a tensor is (1) or is not (0) given up on the way to the step that reads it at ``end``."""
    for k in range(net.consumer_start[tensor], net.consumer_start[tensor + 1]):
        if tape.position[net.consumer[k]] == end:
            tape.dropped[k] = value


@helper
def add_held(held: Int32s, slot: Int32s, count: int, tensor: int) -> int:
    """Put a tensor into the scratchpad; returns the new number held."""
    held[count] = tensor
    slot[tensor] = count
    return count + 1


@helper
def remove_held(held: Int32s, slot: Int32s, count: int, tensor: int) -> int:
    """Take a tensor out of the scratchpad; returns the new number held."""
    last = held[count - 1]
    held[slot[tensor]] = last
    slot[last] = slot[tensor]
    slot[tensor] = -1
    return count - 1


@helper
def copy_order(source: Int32s, target: Int32s, first: int, beyond: int) -> None:
    """Copy ``[first, beyond)`` of an order (a loop compiles in a tenth of the time a slice's assignment takes)."""
    for i in range(first, beyond):
        target[i] = source[i]


@helper
def adopt(tape: Tape, begin: int, end: int) -> None:
    """Make what the last trial found over ``[begin, end)`` the known state."""
    stride = tape.stride[0]
    for i in range(begin, end):
        tape.step_cost[i] = tape.trial_cost[i]
        tape.step_excess[i] = tape.trial_excess[i]
        tape.live[i] = tape.trial_live[i]
        tape.key[i] = tape.trial_key[i]
        if i % stride == 0:
            r = i // stride
            tape.count[r] = tape.trial_count[r]
            for k in range(tape.count[r]):
                tape.row[r, k] = tape.trial_row[r, k]
