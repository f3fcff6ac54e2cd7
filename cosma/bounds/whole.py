"""Lower bounds from methods that look at the whole network, the cheapest first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cosma.bounds.bound import Bound
from cosma.clock import never
from cosma.parameters.bounds import BoundParameters
from cosma.problem import check_feasible
from cosma.problem.reductions import without_oversized

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cosma.bounds.dual import Potential
    from cosma.bounds.least_peak import LeastPeak
    from cosma.bounds.lifetimes import Lifetime
    from cosma.bounds.rows import Either, Row
    from cosma.problem import Problem
    from cosma.problem.precedence import Reach

    #: A method in slices: each ``yield`` reports the work (nominal seconds) spent since the last one.
    Slices = Generator[float, None, None]

DEFAULTS = BoundParameters()


class WholeBounds:
    """A lower bound from methods that look at the whole network, that grows with the work given.

    The bound is a function of the problem, the seed, the upper bounds given and the work asked for: no clock is
    read. It starts at the constant part of the traffic, which is always a bound. Raises InfeasibleError if no plan
    exists because an operator does not fit.

    Parameters
    ----------
    problem
        The instance. What its tensors that are larger than the scratchpad cost is counted, and they are left out.
    upper_bound
        Non-compulsory traffic of a known plan, in bytes: work stops when the bound meets it, and methods
        that enumerate use it to discard what cannot improve on it.

    Attributes
    ----------
    order
        An order worth a plan, once found: one of low peak, or, when the label search has an answer, one that the
        optimum of the relaxation takes. In the latter case the bound is exact but for addresses, and keeping the
        right tensors under this order reaches it.
    settled
        Whether every cheap method has had its turn: a bound that has not risen before may still do so at once.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        upper_bound: int | None = None,
        parameters: BoundParameters = DEFAULTS,
    ) -> None:
        check_feasible(problem)
        self.problem = without_oversized(problem).problem
        self.seed = seed
        self.parameters = parameters
        self.upper_bound = upper_bound
        self._value = self.problem.constant_noncompulsory_bytes
        self._method = "no plan moves less than the compulsory traffic"
        if self.problem is not problem:
            self._method = "tensors larger than the scratchpad are streamed"
        self.order: tuple[int, ...] | None = None
        self.settled = False
        self._granule = math.gcd(*self.problem.size_bytes.tolist(), 0) or 1
        self._covered = False
        self._exhausted = False
        self._whole_work = 0.0
        self._whole_is_done = False
        self._owed = 0.0
        self._granted = 0.0
        self._stop: Callable[[], bool] = never
        self._slices = self._methods()

    def update_upper(self, upper_bound: int) -> None:
        """Say that a plan with this non-compulsory traffic (bytes) is known; worse ones than known change nothing."""
        if self.upper_bound is None or upper_bound < self.upper_bound:
            self.upper_bound = upper_bound

    @property
    def bound(self) -> Bound:
        """The bound so far."""
        return Bound(self._value, self._method, self._exhausted or self._met())

    @property
    def work_done(self) -> float:
        """Nominal seconds of work spent so far."""
        return self._whole_work

    def run(self, work: float, stop: Callable[[], bool] = never) -> Bound:
        """Spend about ``work`` nominal seconds on raising the bound.

        Parameters
        ----------
        work
            Deterministic work in nominal seconds. What a slice takes beyond it is owed, and paid by the next call.
        stop
            Polled between slices; return True to end early (the result then depends on when).
        """
        self._stop = stop
        self._granted = work - self._owed
        while self._granted > 0 and not self._exhausted and not self._met() and not stop():
            self._granted -= self._next_slice()
        self._owed = max(0.0, -self._granted)
        return self.bound

    def _next_slice(self) -> float:
        """Go on with the methods; returns the nominal seconds spent."""
        spent = self._next_whole_slice()
        if spent is None:
            self._exhausted = True
        return spent or 0.0

    def _next_whole_slice(self) -> float | None:
        """Go on with the methods; None once all have ended."""
        spent = None if self._whole_is_done else next(self._slices, None)
        if spent is None:
            self._whole_is_done = True
        else:
            self._whole_work += spent
        return spent

    # -- the methods, in order ----------------------------------------------------------------------------

    def _methods(self) -> Slices:
        """Run every method, the cheapest first; each later one uses what the earlier ones found."""
        yield 0.0
        from cosma.bounds.least_peak import LeastPeak
        from cosma.bounds.lifetimes import lifetimes_of
        from cosma.problem.precedence import reach_of

        reach = reach_of(self.problem)
        lifetimes = lifetimes_of(self.problem, reach)
        yield 1e-6 * self.problem.operator_count * (10 + self.problem.operator_count / 1000)
        rows: list[Row] = []
        pairs: list[Either] = []
        yield from self._forced_liveness(reach, lifetimes, rows, pairs)
        if rows or pairs:
            yield from self._covering(lifetimes, rows, pairs, 0.25)
        yield from self._labels(None, self.parameters.first_width)
        self.settled = True
        known = self._value - self.problem.constant_noncompulsory_bytes
        peaks = LeastPeak(self.problem, reach, lifetimes, known, self.parameters.peaks)
        slices = peaks.run()
        if not known:
            yield from self._peaks(peaks, slices, self.parameters.first_peak_work)
        potential = None
        if rows:
            potential = yield from self._prices(lifetimes, rows)
        width = 4 * self.parameters.first_width
        yield from self._labels(potential, width)
        if rows or pairs:
            yield from self._covering(lifetimes, rows, pairs, 1.0)
        share = self.parameters.later_peak_work
        if known:
            yield from self._peaks(peaks, slices, share)
        while width * 8 <= self._widest():
            width *= 8
            share *= 4
            yield from self._peaks(peaks, slices, share)
            yield from self._labels(potential, width)
        yield from self._peaks(peaks, slices, math.inf)
        if rows or pairs:
            yield from self._covering(lifetimes, rows, pairs, 8.0)

    def _forced_liveness(
        self, reach: Reach, lifetimes: dict[int, Lifetime], rows: list[Row], pairs: list[Either]
    ) -> Slices:
        from cosma.bounds.rows import RowBuilder, disjoint_rows

        builder = RowBuilder(self.problem, reach, lifetimes, self.parameters.rows)
        crowded = builder.crowded()
        spent = 0.0
        for operator in crowded:
            row = builder.build(operator)
            if row is not None:
                rows.append(row)
            if builder.work - spent > 0.02:
                yield builder.work - spent
                spent = builder.work
        if not crowded:
            # Nothing can be crowded out: any order is a plan without non-compulsory traffic.
            self._exhausted = True
        rows.sort(key=lambda row: row.operator)
        self._raise_to(disjoint_rows(rows, lifetimes), "forced liveness, disjoint rows")
        yield builder.work - spent + 1e-5 * len(rows)
        spent = builder.work
        pairs += builder.pairs({row.operator: row for row in rows})
        yield builder.work - spent + 1e-5 * len(crowded)

    def _covering(self, lifetimes: dict[int, Lifetime], rows: list[Row], pairs: list[Either], limit: float) -> Slices:
        from cosma.bounds.covering import CoveringProgram

        if self._covered:
            return
        # Solving cannot be cut into slices: one that outlasts what was granted by far would be waited for.
        limit = min(limit, max(self.parameters.least_covering_work, self._granted))
        program = CoveringProgram(lifetimes, rows, pairs)
        yield 1e-5 * sum(
            len(row.absences) + len(row.loose)
            for row in [*rows, *(row for pair in pairs for row in pair.first + pair.second)]
        )
        result = program.solve(limit, seed=self.seed, stop=self._stop)
        self._covered = result.proven
        method = "forced liveness, covering program" + (" over pairs of operators" if pairs else "")
        self._raise_to(result.value_bytes, method)
        yield result.work

    def _peaks(self, peaks: LeastPeak, slices: Slices, limit: float) -> Slices:
        """Go on with the least peak of every segment for so many nominal seconds."""
        while limit > 0:
            work = next(slices, None)
            self._raise_to(peaks.value_bytes, "least peak over all orders")
            if self.order is None:
                self.order = peaks.order
            if work is None:
                return
            limit -= work
            yield work

    def _prices(self, lifetimes: dict[int, Lifetime], rows: list[Row]) -> Generator[float, None, Potential]:
        from cosma.bounds.potential import PriceProgram, potential_of

        program = PriceProgram(lifetimes, _neediest(rows, self.parameters.most_priced_terms))
        prices = program.solve(rounds=6)
        yield 1e-3 * len(program.rows) + 1e-4 * program.items
        potential = potential_of(self.problem, prices)
        self._raise_to(self._rounded(potential.total), "forced liveness, priced operators")
        return potential

    def _labels(self, potential: Potential | None, width: int) -> Slices:
        from cosma.bounds.dual import no_potential
        from cosma.bounds.labels import LabelSearch

        constant = self.problem.constant_noncompulsory_bytes
        upper = self.upper_bound - constant if self.upper_bound is not None else None
        search = LabelSearch(self.problem, potential or no_potential(self.problem), upper, width)
        for work in search.run():
            self._raise_to(self._rounded(search.bound_bytes), f"label search, width {width}")
            yield work
            if self.upper_bound is not None:
                search.lower_upper(self.upper_bound - constant)
        self._raise_to(self._rounded(search.bound_bytes), f"label search, width {width}")
        if search.order is not None:
            self.order = search.order
        if search.proven:
            self._exhausted = True

    def _widest(self) -> int:
        """Most labels a layer may keep within bounded memory."""
        words = self.problem.operator_count // 32 + 3 * self.problem.tensor_count // 64 + 16
        return max(
            self.parameters.first_width,
            min(self.parameters.most_width, self.parameters.label_bytes // (64 * words + 400)),
        )

    # -- bookkeeping --------------------------------------------------------------------------------------

    def _rounded(self, value: float) -> int:
        """Round a bound up to what a sum of transfers can be, well clear of rounding errors."""
        safe = value - max(1e-2, 1e-9 * value)
        return max(0, math.ceil(safe / self._granule)) * self._granule

    def _raise_to(self, value_bytes: int, method: str) -> None:
        """Take a bound on the decisions' part of the traffic, if it is higher than what is known."""
        total = value_bytes + self.problem.constant_noncompulsory_bytes
        if total > self._value:
            self._value, self._method = total, method

    def _met(self) -> bool:
        return self.upper_bound is not None and self._value >= self.upper_bound


def _neediest(rows: list[Row], most_terms: int) -> list[Row]:
    """Thin rows out to about ``most_terms`` terms: of each run of rows in operator order, the one that needs most."""
    terms = sum(len(row.absences) + len(row.loose) for row in rows)
    together = max(1, -(-terms // most_terms))
    return [max(rows[i : i + together], key=lambda row: row.need_bytes) for i in range(0, len(rows), together)]
