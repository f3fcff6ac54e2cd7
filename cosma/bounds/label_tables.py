"""The instance and the labels as the kernels of the label search read them: few arrays of 64-bit numbers.

Every array a kernel takes, and every function it calls, is compiled again into its callers; so the instance is
five arrays (:class:`LabelTables`) and a layer of labels is three, with one column per attribute, named below.

Constants read by kernels in other files are compiled into them: see :mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cosma.arrays import Array, Floats, Ints
from cosma.problem.rules import may_stream_anything, store_bytes

if TYPE_CHECKING:
    from cosma.bounds.dual import Potential
    from cosma.problem import Problem

    def integer(value: int | np.uint64) -> int:
        """Make a 64-bit integer: a callee is compiled again for an argument that may be a literal number."""
else:
    integer = np.int64

DONE = integer(0)
"""Word of a label in which the set of operators that have run begins."""

OPERATORS, TENSORS, OPERATOR_WORDS, TENSOR_WORDS, HERE, AWAY, CLEAN, STREAMABLE, CAPACITY = range(9)
"""Entries of ``shape``. ``HERE``, ``AWAY`` and ``CLEAN`` say in which word of a label these sets begin."""

OPERAND, RESULT, PREDECESSOR, SUCCESSOR, PAIR = range(5)
"""Columns of ``operators``: where in ``links`` its lists begin; they end where the next operator's begin."""

SIZE, SPACE, WRITE, MUST_STORE, PRODUCER, CONSUMER, LOAD, CHAIN = range(8)
"""Columns of ``tensors``; the last three say where in ``links`` its lists begin."""

COST, USED, PARENT, BY, ALIVE, PURE, NEXT, KEY = range(8)
"""Columns of a layer's ``notes``: bytes paid, bytes held, label it came from (a place in the list of labels chosen
from the layer before) and operator run, whether it is not dominated, whether no other label was merged into it, next
label in the hash table, hash of the down-set."""

BOUND, REST = range(2)
"""Columns of a layer's ``bounds``: no completion costs less; value of the dual solution for what has not run."""

MADE, COMPARED, COVERS, DEPTH, FREED, PAID = range(6)
"""Entries of ``tally``: labels made, comparisons, sets of ways tried; the one at work: see ``next_cover``."""

GAIN, PRICE, WHICH, LEFT, CHOSEN = range(5)
"""Columns of ``ways`` to free space: bytes freed, bytes to pay, the tensor (an operand or bystander ``t``, a result
``t + tensors``), what this way and all later ones free; and, by depth, the way chosen."""

MOST_WAYS = 256
"""Ways to free space at one operator, at most."""

ONE = np.uint64(1)
"""A named constant is a fraction of the work for the compiler that the expression is."""


class LabelTables(NamedTuple):
    """The instance, and a dual solution of its covering program, as the kernels read them.

    ``operators`` and ``tensors`` have one row more than there are, where the last lists end. ``links`` holds all
    lists: numbers of operators or tensors, two numbers per pair (result, operand), four per load (operator, first
    and last stretch, and where in ``prices`` its amount is). ``WRITE`` is the store that giving a tensor up needs
    while it has no off-chip copy (0: none ever). ``prices`` lists what drops out of the dual solution when an
    operator has run, then when a tensor has been stored, then the loads' amounts.
    """

    shape: Ints
    operators: Ints
    tensors: Ints
    links: Ints
    prices: Floats

    @property
    def words(self) -> int:
        """Words of a label: ``done | ready | here | away | clean``."""
        return int(self.shape[CLEAN] + self.shape[TENSOR_WORDS])


def label_tables(problem: Problem, potential: Potential) -> LabelTables:
    """Lay the instance out for the kernels."""
    operator_count, tensor_count = problem.operator_count, problem.tensor_count
    operator_words, tensor_words = (operator_count + 63) // 64, (tensor_count + 63) // 64
    here = 2 * operator_words
    shape = np.array(
        [
            operator_count, tensor_count, operator_words, tensor_words,
            here, here + tensor_words, here + 2 * tensor_words, may_stream_anything(problem), problem.capacity_bytes,
        ],
        dtype=np.int64,
    )  # fmt: skip
    pieces: list[Ints] = []
    pairs = np.stack([problem.pair_result, problem.pair_operand], axis=1)
    operators = np.zeros((operator_count + 1, 5), dtype=np.int64)
    operators[:, OPERAND] = _append(pieces, problem.operand_start, problem.operand)
    operators[:, RESULT] = _append(pieces, problem.result_start, problem.result)
    operators[:, PREDECESSOR] = _append(pieces, problem.predecessor_start, problem.predecessor)
    operators[:, SUCCESSOR] = _append(pieces, problem.successor_start, problem.successor)
    operators[:, PAIR] = _append(pieces, problem.pair_start, pairs)
    tensors = np.zeros((tensor_count + 1, 8), dtype=np.int64)
    tensors[:-1, SIZE] = problem.size_bytes
    tensors[:-1, SPACE] = problem.space_bytes
    tensors[:-1, WRITE] = store_bytes(problem)
    tensors[:-1, MUST_STORE] = problem.must_store
    tensors[:-1, PRODUCER] = problem.producer
    tensors[:, CONSUMER] = _append(pieces, problem.consumer_start, problem.consumer)
    loads = sorted(potential.loads)
    first = operator_count + tensor_count
    rows = [(v, low, high, first + i) for i, (_, v, low, high, _) in enumerate(loads)]
    start = np.searchsorted([load[0] for load in loads], np.arange(tensor_count + 1))
    tensors[:, LOAD] = _append(pieces, start, np.array(rows, dtype=np.int64).reshape(-1, 4))
    chains = [potential.chains.get(t, ()) for t in range(tensor_count)]
    start = np.cumsum([0, *map(len, chains)])
    tensors[:, CHAIN] = _append(pieces, start, np.array([v for chain in chains for v in chain], dtype=np.int64))
    prices = np.concatenate([potential.operator, potential.store_share, [load[4] for load in loads]])
    return LabelTables(shape, operators, tensors, np.concatenate(pieces), prices)


def _append(pieces: list[Ints], start: Array, values: Array) -> Ints:
    """Add lists to ``links``; return where each begins, and the last ends."""
    offset = sum(len(piece) for piece in pieces)
    pieces.append(values.astype(np.int64).ravel())
    width = values.shape[1] if values.ndim == 2 else 1
    begins: Ints = offset + width * start.astype(np.int64)
    return begins


def linked(keys: Ints, heads: Ints, *, first: int, none: int) -> Ints:
    """Enter rows ``first`` onward into a hash table by their keys; return what follows each in its slot.

    The last row of each slot is its head, and ``none`` stands for no row.
    """
    slots = keys & (len(heads) - 1)
    heads.fill(none)
    heads[slots] = np.arange(first, first + len(keys))
    order = np.argsort(slots, kind="stable")
    slots = slots[order]
    after = np.full(len(keys), none, dtype=np.int64)
    after[order[1:]] = np.where(slots[1:] == slots[:-1], order[:-1] + first, none)
    return after
