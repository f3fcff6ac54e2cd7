"""The instance as the compiled search sees it: flat arrays, chains contracted, nothing that costs nothing.

A search operator stands for one operator or for a chain of them that is best run back to back (see
`cosma.problem.reductions.chains`). Zero-byte tensors are left out: they neither take space nor cause traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cosma.csr import csr
from cosma.problem.reductions import contract_chains
from cosma.problem.rules import first_arrival_is_compulsory, may_stream, may_stream_anything, store_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.arrays import Bytes, Int32s, Ints
    from cosma.problem import Problem


class Network(NamedTuple):
    """Arrays for the kernels; tables are CSR (offsets and values), rows sorted unless said otherwise."""

    #: Tensors each search operator reads, in operand order.
    operand_start: Int32s
    operand: Int32s
    #: Tensors each search operator produces.
    result_start: Int32s
    result: Int32s
    #: Search operators that read each tensor.
    consumer_start: Int32s
    consumer: Int32s
    #: Precedence between search operators.
    predecessor_start: Int32s
    predecessor: Int32s
    successor_start: Int32s
    successor: Int32s
    #: The result each search operator may write in place, -1 for none.
    pair_result: Int32s
    #: Operands that result may take the place of.
    pair_start: Int32s
    pair_operand: Int32s
    #: True bytes and bytes rounded up to the alignment, by tensor.
    size: Ints
    space: Ints
    #: 1 where an off-chip copy exists from the start.
    clean: Bytes
    #: Bytes that the first store adds, by tensor: 0 for graph outputs, and for whatever starts off-chip.
    store: Ints
    #: Bytes moved in addition, by search operator, where its result has no room while the operator runs: what lies
    #: inside a chain then goes off-chip and back.
    chain_cost: Ints
    #: One value: bytes available.
    capacity: Ints
    #: One value: 1 if operands and results may bypass the scratchpad.
    streamable: Ints
    #: Beside ``operand`` and ``result``: 1 where that operator may stream it.
    operand_streams: Bytes
    result_streams: Bytes


class Contraction(NamedTuple):
    """A network together with what its operators and tensors stand for."""

    #: The contracted network.
    network: Network
    #: Operators of the problem that each search operator stands for, in execution order.
    members: tuple[tuple[int, ...], ...]
    #: Tensor of the problem behind each tensor of the network.
    tensor_of: Int32s

    def expand(self, order: Iterable[int]) -> tuple[int, ...]:
        """Turn an order of search operators into one of the problem's operators."""
        return tuple(v for s in order for v in self.members[int(s)])

    def contract(self, order: Sequence[int]) -> Int32s:
        """Turn an order of operators into one of search operators, which run when their first member would.

        Chains are pulled together at their head; the result is topological whenever ``order`` is.
        """
        group = {v: s for s, row in enumerate(self.members) for v in row}
        return np.array(list(dict.fromkeys(group[int(v)] for v in order)), dtype=np.int32)


def build_network(problem: Problem, *, contract: bool = True) -> Contraction:
    """Flatten a problem for the kernels, contracting chains where no optimum is lost.

    Work and memory are linear in the problem.
    """
    members = contract_chains(problem) if contract else tuple((v,) for v in range(problem.operator_count))
    group = np.empty(problem.operator_count, dtype=np.int64)
    for s, row in enumerate(members):
        group[list(row)] = s
    inner = {t for row in members for t in _inside(problem, row)}
    kept = [t for t in range(problem.tensor_count) if problem.space_bytes[t] > 0 and t not in inner]
    number = {t: i for i, t in enumerate(kept)}
    operands = [[number[t] for t in problem.operands_of(row[0]).tolist() if t in number] for row in members]
    results = [[number[t] for t in problem.results_of(row[-1]).tolist() if t in number] for row in members]
    consumers = [sorted({int(group[v]) for v in problem.consumers_of(t)}) for t in kept]
    predecessors = [sorted({int(group[v]) for v in problem.predecessors_of(row[0])}) for row in members]
    successors = [sorted({int(group[v]) for v in problem.successors_of(row[-1])}) for row in members]
    pair_result, pairs = _pairs(problem, members, number)
    network = Network(
        *csr(operands),
        *csr(results),
        *csr(consumers),
        *csr(predecessors),
        *csr(successors),
        np.array(pair_result, dtype=np.int32),
        *csr(pairs),
        problem.size_bytes[kept].astype(np.int64),
        problem.space_bytes[kept].astype(np.int64),
        first_arrival_is_compulsory(problem)[kept].astype(np.uint8),
        store_bytes(problem)[kept],
        np.array([2 * int(problem.size_bytes[_inside(problem, row)].sum()) for row in members], dtype=np.int64),
        np.array([problem.capacity_bytes], dtype=np.int64),
        np.array([int(may_stream_anything(problem))], dtype=np.int64),
        _streams(problem, [row[0] for row in members], operands, kept),
        _streams(problem, [row[-1] for row in members], results, kept),
    )
    return Contraction(network, members, np.array(kept, dtype=np.int32))


def _streams(problem: Problem, operators: list[int], touched: list[list[int]], kept: list[int]) -> Bytes:
    if not problem.held:
        return np.full(sum(map(len, touched)), int(may_stream_anything(problem)), dtype=np.uint8)
    return np.array(
        [may_stream(problem, v, kept[t]) for v, row in zip(operators, touched, strict=True) for t in row],
        dtype=np.uint8,
    )


def _pairs(
    problem: Problem, members: tuple[tuple[int, ...], ...], number: dict[int, int]
) -> tuple[list[int], list[list[int]]]:
    """In-place pairs of each chain: its head's operands against its tail's result, which is of the same size."""
    pair_result: list[int] = []
    pairs: list[list[int]] = []
    for row in members:
        found = problem.pairs_of(row[0])
        result = problem.results_of(row[-1]).tolist()
        target = (found[0][0] if len(row) == 1 else result[0]) if found else -1
        operands = [number[u] for r, u in found if r == found[0][0] and u in number] if target in number else []
        pair_result.append(number[target] if operands else -1)
        pairs.append(operands)
    return pair_result, pairs


def _inside(problem: Problem, row: tuple[int, ...]) -> list[int]:
    return [int(t) for v in row[:-1] for t in problem.results_of(v)]

