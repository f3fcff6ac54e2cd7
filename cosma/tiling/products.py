"""Tilings of networks of matrix products: rows, columns and sums, and heads of attention, for each run of operators.

Operators in the order given are cut into runs by dynamic programming: a product with the elementwise operators behind
it, two products of which one reads what the other yields, an attention of two products by heads and rows, or any
operator by rows. A run's last operator is cut as its closed form says; those before it are cut where the tiles behind
need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from math import ceil, prod

from cosma.access import Box, NodeSite, whole
from cosma.access.boxes import box_shape
from cosma.access.operator import OperatorAccess, operator_access
from cosma.graph import Graph, TensorKind
from cosma.graph.semantics import is_elementwise
from cosma.rewrite.tiling import REDUCED, Cuts, Tiling, even_cuts, step_cuts
from cosma.tiling.loops import Extents, PairLoops, counts, pair_loops, single_loops

#: Shares of the capacity that closed forms may fill. They know no addresses and no rounding to the alignment.
SHARES = (0.95, 0.8, 0.6)
#: Most operators of one run. An attention of six products and movements, with a mask and a scale, has eleven.
LONGEST_RUN = 14
_PRODUCTS = frozenset({"MatMul", "Gemm"})


@dataclass(slots=True)
class _Run:
    """Operators ``[begin, end)`` with the cuts of the last, and what they are estimated to move."""

    begin: int
    end: int
    moved_bytes: int
    cuts: tuple[Cuts, ...]
    loops: tuple[int, ...] = ()
    sums: dict[int, Cuts] = field(default_factory=dict)
    at: int | None = None  # the operator that the cuts are of, where it is not the last


def product_tilings(graph: Graph, sites: Mapping[str, NodeSite], capacity_bytes: int) -> list[Tiling]:
    """Tilings of a network in which matrix products prevail, the boldest first; none for other networks."""
    runs = _Runs(graph, sites)
    if 2 * sum(one is not None for one in runs.extents) < sum("Conv" in o.type for o in graph.operators) or not any(
        one is not None for one in runs.extents
    ):
        return []
    found: list[Tiling] = []
    for share in SHARES:
        tiling = runs.best(int(capacity_bytes * share))
        if tiling is not None and tiling not in found:
            found.append(tiling)
    return found


class _Runs:
    """The operators of a network, and the runs that they may be cut into."""

    def __init__(self, graph: Graph, sites: Mapping[str, NodeSite]) -> None:
        self.graph = graph
        self.access = [operator_access(graph, sites, operator) for operator in graph.operators]
        self.extents = [_extents(graph, one) for one in self.access]
        self._reader = {
            name: graph.operator_index(readers[0])
            for name in graph.tensors
            if len(readers := graph.consumers(name)) == 1 and graph.tensors[name].kind is TensorKind.INTERMEDIATE
        }
        self._single = cache(single_loops)
        self._pair = cache(pair_loops)

    def best(self, capacity: int) -> Tiling | None:
        """The cheapest runs; None where some operator fits in none."""
        count = len(self.access)
        cost: list[int | None] = [0, *([None] * count)]
        chosen: list[_Run | None] = [None] * (count + 1)
        for begin in range(count):
            before = cost[begin]
            if before is None:
                continue
            for run in self._from(begin, capacity):
                total = before + run.moved_bytes
                known = cost[run.end]
                if known is None or total < known:
                    cost[run.end], chosen[run.end] = total, run
        if cost[count] is None:
            return None
        runs: list[_Run] = []
        end = count
        while end:
            last = chosen[end]
            assert last is not None
            runs.append(last)
            end = last.begin
        return self._tiling(runs[::-1])

    # -- runs ---------------------------------------------------------------------------------------------

    def _from(self, begin: int, capacity: int) -> list[_Run]:
        """Runs that begin at an operator."""
        found = [run for run in (self._by_rows(begin, capacity),) if run is not None]
        if self.extents[begin] is not None:
            end = begin + 1
            found += self._alone(begin, end, capacity)
            while self._follows(end) and end - begin < LONGEST_RUN:
                end += 1
                found += self._alone(begin, end, capacity)
            found += self._paired(begin, end, capacity)
        found += self._attention(begin, capacity)
        return found

    def _follows(self, v: int) -> bool:
        """Whether an operator works element by element on the result of the one before it, which only it reads."""
        if v >= len(self.access) or not is_elementwise(self.access[v].operator):
            return False
        before = self.access[v - 1].result
        return self._reader.get(before) == v and self.access[v].shapes.get(self.access[v].result) == self.access[
            v - 1
        ].shapes.get(before)

    def _alone(self, begin: int, end: int, capacity: int) -> list[_Run]:
        """A product and what follows it element by element."""
        one, access = self.extents[begin], self.access[begin]
        assert one is not None
        shape = access.shapes[access.result]
        loops = self._single(one, capacity)
        if loops is None:
            return []
        cuts = [even_cuts(size, size) for size in shape[:-2]]
        heads = prod(shape[:-2])
        cuts += [even_cuts(one.rows, loops.rows), even_cuts(one.columns, loops.columns)]
        rank = len(shape)
        order = (rank - 1, rank - 2) if loops.columns_outside else (rank - 2, rank - 1)
        sums = {begin: step_cuts(one.reduced, loops.step)} if loops.step else {}
        extra = sum(self._size(name) for v in range(begin + 1, end) for name in self.access[v].operator.operands)
        extra -= sum(self._size(self.access[v].result) for v in range(begin, end - 1))
        moved = loops.moved_bytes * heads + extra
        return [_Run(begin, end, moved, tuple(cuts), (*range(rank - 2), *order, REDUCED), sums)]

    def _paired(self, begin: int, end: int, capacity: int) -> list[_Run]:
        """Two products, the second of what the first and the elementwise operators behind it yield."""
        if end >= len(self.access):
            return []
        up, down, last = self.extents[begin], self.extents[end], self.access[end]
        between = self.access[end - 1].result
        if up is None or down is None or last.operator.inputs[:1] != (between,) or self._reader.get(between) != end:
            return []
        shape = last.shapes[last.result]
        operand = last.chain[0].operands[0]
        if operand is None or operand.shape != last.shapes[between] or last.chain[0].site.integer("transA", 0):
            return []
        if prod(shape[:-2]) != 1 or up.rows != down.rows or up.columns != down.reduced or not last.reduced():
            return []
        loops = self._pair(up, down, capacity)
        if loops is None:
            return []
        rank = len(shape)
        cuts = (*((),) * (rank - 2), even_cuts(down.rows, loops.rows), even_cuts(down.columns, loops.columns))
        return [_Run(begin, end + 1, loops.moved_bytes, cuts, (*range(rank - 2), rank - 2, REDUCED, rank - 1),
                     self._pair_sums(begin, end, loops))]  # fmt: skip

    def _pair_sums(self, begin: int, end: int, loops: PairLoops) -> dict[int, Cuts]:
        up, down = self.extents[begin], self.extents[end]
        assert up is not None
        assert down is not None
        found = {end: even_cuts(down.reduced, loops.middle)}
        if loops.step:
            found[begin] = step_cuts(up.reduced, loops.step)
        return found

    def _attention(self, begin: int, capacity: int) -> list[_Run]:
        """Two products of heads with all between them and what moves elements around them, by heads and rows."""
        found: list[_Run] = []
        products: list[int] = []
        for end in range(begin + 1, min(len(self.access), begin + LONGEST_RUN) + 1):
            one = self.access[end - 1]
            if one.barrier or not any(one.cuts()):
                break
            if self.extents[end - 1] is not None:
                products.append(end - 1)
            if len(products) > 2:
                break
            if len(products) == 2 and self._is_closed(begin, end):
                found += self._by_heads(begin, end, products, capacity)
        return found

    def _is_closed(self, begin: int, end: int) -> bool:
        """Whether nothing but the last result of a run is read behind it."""
        return all(
            self.graph.tensors[one.result].kind is TensorKind.INTERMEDIATE
            and all(self.graph.operator_index(reader) < end for reader in self.graph.consumers(one.result))
            for one in self.access[begin : end - 1]
        )

    def _by_heads(self, begin: int, end: int, products: Sequence[int], capacity: int) -> list[_Run]:
        """The fewest tiles of rows that fit, all heads apart; the tiles are those of the second product."""
        at = products[1]
        shape = self.access[at].shapes[self.access[at].result]
        if prod(shape[:-2]) < 2:
            return []
        for rows in counts(shape[-2]):
            cuts = (*(even_cuts(size, size) for size in shape[:-2]), even_cuts(shape[-2], rows), ())
            run = _Run(begin, end, 0, cuts, (*range(len(shape)), REDUCED), at=at)
            if self._held(run) <= capacity:
                names = {n for one in self.access[begin:end] for n in one.operator.operands}
                made = {one.result for one in self.access[begin : end - 1]}
                run.moved_bytes = sum(self._size(n) for n in names - made) + self._size(self.access[end - 1].result)
                return [run]
        return []

    def _held(self, run: _Run) -> int:
        """Estimate what lies in the scratchpad while tiles of a run are computed: what they share, and one at work."""
        boxes = self._boxes(run)
        most = max(len(row) for row in boxes.values())
        shared: dict[str, int] = {}
        work = 0
        for v in range(run.begin, run.end - 1):
            if len(boxes[v]) < most:
                shared[self.access[v].result] = self._size(self.access[v].result, boxes[v][0])
        for v in range(run.begin, run.end):
            one = self.access[v]
            needs = {one.result: boxes[v][0], **one.reads(boxes[v][0])}
            work = max(work, sum(self._size(name, box) for name, box in needs.items() if name not in shared))
        return sum(shared.values()) + work

    def _by_rows(self, v: int, capacity: int) -> _Run | None:
        """One operator by rows, with as few tiles as fit; a product only whole."""
        one = self.access[v]
        shape = one.shapes.get(one.result, ())
        moved = sum(self._size(name) for name in (*one.operator.operands, *one.operator.outputs))
        if moved <= capacity:
            return _Run(v, v + 1, moved, ((),) * len(shape))
        if self.extents[v] is not None:
            return None
        allowed = one.cuts()
        axes = [i for i, size in enumerate(shape) if allowed[i] and size > 1]
        cuts: list[Cuts] = [()] * len(shape)
        for axis in axes:
            for count in counts(shape[axis]):
                cuts[axis] = even_cuts(shape[axis], count)
                first = tuple((0, (edges[0] if edges else size)) for edges, size in zip(cuts, shape, strict=True))
                held = sum(self._size(n, box) for n, box in {one.result: first, **one.reads(first)}.items())
                if held <= capacity:
                    return _Run(v, v + 1, moved, tuple(cuts))
        return None

    def _size(self, name: str, box: Box | None = None) -> int:
        tensor = self.graph.tensors[name]
        if box is None or tensor.shape is None:
            return tensor.size_bytes
        return tensor.size_bytes * prod(box_shape(box)) // max(1, prod(tensor.shape))

    # -- cuts ---------------------------------------------------------------------------------------------

    def _boxes(self, run: _Run) -> dict[int, list[Box]]:
        """Tiles of every operator of a run, those before the last as the tiles behind them need them."""
        cuts = self._cuts(run)
        found = {}
        for v in range(run.begin, run.end):
            one = self.access[v]
            shape = one.shapes.get(one.result, ())
            found[v] = [box for box, _ in Tiling({one.operator.name: cuts[v]}).pieces(one.operator.name, shape)]
        return found

    def _cuts(self, run: _Run) -> dict[int, tuple[Cuts, ...]]:
        """Cuts of every operator of a run: at the boundaries of what the tiles of its readers read."""
        at = run.end - 1 if run.at is None else run.at
        found = {at: run.cuts}
        for v in range(at + 1, run.end):  # behind: where the operands are cut
            found[v] = self._forward(v, found)
        wanted: dict[str, list[set[int]]] = {}
        for v in range(run.end - 1, run.begin - 1, -1):
            one = self.access[v]
            shape = one.shapes.get(one.result, ())
            if v not in found:
                edges = wanted.get(one.result, [set() for _ in shape])
                allowed = one.cuts()
                found[v] = tuple(
                    tuple(sorted(e for e in axis if 0 < e < size)) if may else ()
                    for axis, size, may in zip(edges, shape, allowed, strict=True)
                )
            self._note(v, found[v], run.sums.get(v, ()), wanted)
        return found

    def _note(self, v: int, cuts: tuple[Cuts, ...], sums: Cuts, wanted: dict[str, list[set[int]]]) -> None:
        """Note the boundaries of what the tiles of an operator read."""
        one = self.access[v]
        shape = one.shapes.get(one.result, ())
        full = whole(shape)
        for axis, positions in enumerate(cuts):
            edges = (0, *positions, shape[axis])
            for a, b in pairwise(edges):
                for name, read in one.reads((*full[:axis], (a, b), *full[axis + 1 :])).items():
                    rows = wanted.setdefault(name, [set() for _ in read])
                    for row, span in zip(rows, read, strict=True):
                        row.update(span)
        if sums and one.operator.inputs:
            wanted.setdefault(one.operator.inputs[0], [set() for _ in shape])[-1].update(sums)

    def _forward(self, v: int, cuts: Mapping[int, tuple[Cuts, ...]]) -> tuple[Cuts, ...]:
        """Cuts of an operator behind the one that is cut: those with which its tiles read tiles of it one by one."""
        one = self.access[v]
        shape = one.shapes.get(one.result, ())
        allowed = one.cuts()
        maker = {self.access[u].result: row for u, row in cuts.items()}
        found: list[Cuts] = [()] * len(shape)
        full = whole(shape)
        for axis, size in enumerate(shape):
            if not allowed[axis] or size < 2:
                continue
            middle = one.reads((*full[:axis], (size // 2, size // 2 + 1), *full[axis + 1 :]))
            for name, read in middle.items():
                operand = one.shapes[name]
                narrow = [i for i, span in enumerate(read) if span != (0, operand[i])]
                if name in maker and len(narrow) == 1 and operand[narrow[0]] == size:
                    found[axis] = maker[name][narrow[0]]
        return tuple(found)

    def _tiling(self, runs: Sequence[_Run]) -> Tiling:
        cuts: dict[str, tuple[Cuts, ...]] = {}
        sums: dict[str, Cuts] = {}
        loops: dict[str, tuple[int, ...]] = {}
        for run in runs:
            for v, row in self._cuts(run).items():
                name = self.access[v].operator.name
                if any(row):
                    cuts[name] = row
                if run.sums.get(v):
                    sums[name] = run.sums[v]
            last = self.access[run.end - 1]
            if run.at is not None and run.at != run.end - 1:
                loops[last.operator.name] = _heads_first(cuts.get(last.operator.name, ()), run.cuts)
            elif run.loops:
                loops[last.operator.name] = run.loops
        groups = tuple(tuple(self.access[v].operator.name for v in range(run.begin, run.end)) for run in runs)
        return Tiling(cuts, groups, sums, loops)


def _heads_first(cuts: Sequence[Cuts], head_cuts: Sequence[Cuts]) -> tuple[int, ...]:
    """Axes of a result in the order in which heads are gone through outside of rows."""
    axes = range(len(cuts))
    return (*sorted(axes, key=lambda axis: (cuts[axis] not in head_cuts[:-2] or not cuts[axis], axis)), REDUCED)


def _extents(graph: Graph, one: OperatorAccess) -> Extents | None:
    """Extents of a matrix product; None for another operator."""
    if not one.chain or not any(one.cuts()):
        return None
    site = one.chain[0].site
    if site.part.type not in _PRODUCTS or len(one.shapes.get(one.result, ())) < 2:
        return None
    first, result = site.operands[0], one.shapes[one.result]
    if first is None or len(first) < 2 or len(site.operands[1] or ()) < 2:
        return None
    reduced = first[0 if site.integer("transA", 0) else -1]
    width = ceil(graph.tensors[one.result].size_bytes / max(1, prod(result)))
    return Extents(result[-2], result[-1], reduced, width, by_steps=bool(one.reduced()))
