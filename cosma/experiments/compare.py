"""Two sweeps against each other: what got worse, what got better, and what cannot both be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosma.experiments.row import Row

#: Kinds of regression, worst first.
REGRESSIONS = ("contradiction", "lost", "missing", "traffic", "bound", "slower")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs at one point."""

    #: ``traffic`` or ``bound`` (worse, beyond the tolerance), ``lost`` (had a plan, has none), ``missing`` (not among
    #: the new results), ``slower``, ``contradiction`` (a bound of one is above a plan of the other: one of the two is
    #: wrong), or ``better``, ``found`` and ``new`` where the new results are ahead.
    kind: str
    #: Where.
    model: str
    grid: str
    capacity: str
    label: str
    seed: int
    #: Bytes, seconds or status, whichever it is about.
    before: str | int | float | None
    after: str | int | float | None

    @property
    def regression(self) -> bool:
        """Whether it makes the new results worse, or one of the two wrong."""
        return self.kind in REGRESSIONS


def compare(
    before: Sequence[Row],
    after: Sequence[Row],
    *,
    tolerance: float = 0.0,
    slowdown: float | None = None,
    allow_missing: bool = False,
) -> list[Difference]:
    """Compare two sweeps point by point: same model file, accelerator, strategy, settings and seed.

    Parameters
    ----------
    before, after
        The rows of each; of rows at the same point the last counts.
    tolerance
        Relative worsening of non-compulsory traffic or of the bound that is let pass.
    slowdown
        Ratio of seconds from which a cell counts as slower; None leaves time out, as clocks differ.
    allow_missing
        Whether points that only the old results have are let pass.

    Returns
    -------
    list[Difference]
        Regressions first, then in the order of ``before``.
    """
    old = {row.point: row for row in before}
    new = {row.point: row for row in after}
    found: list[Difference] = []
    for point, row in old.items():
        match = new.get(point)
        if match is not None:
            found += _compare_rows(row, match, tolerance, slowdown)
        elif not allow_missing:
            found.append(_difference("missing", row, row.status, None))
    found += [_difference("new", row, None, row.status) for point, row in new.items() if point not in old]
    found += contradictions([*before, *after])
    rank = {kind: i for i, kind in enumerate(REGRESSIONS)}
    return sorted(found, key=lambda d: rank.get(d.kind, len(rank)))


def contradictions(rows: Sequence[Row]) -> list[Difference]:
    """Find lower bounds above the traffic of a plan for the same instance, whoever found either."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.noncompulsory is not None:
            known = best.get(row.instance)
            if known is None or row.noncompulsory < (known.noncompulsory or 0):
                best[row.instance] = row
    found = []
    for row in rows:
        match = best.get(row.instance)
        if match is not None and row.lower_bound is not None and row.lower_bound > (match.noncompulsory or 0):
            found.append(_difference("contradiction", row, row.lower_bound, match.noncompulsory))
    return found


def _compare_rows(old: Row, new: Row, tolerance: float, slowdown: float | None) -> list[Difference]:
    if old.planned != new.planned:
        return [_difference("lost" if old.planned else "found", new, old.status, new.status)]
    found = []
    before, after = old.noncompulsory, new.noncompulsory
    if before is not None and after is not None and before != after:
        worse = after > before * (1 + tolerance)
        if worse or after < before:
            found.append(_difference("traffic" if worse else "better", new, before, after))
    before, after = old.lower_bound, new.lower_bound
    # A lower bound that fell because the plan it certifies fell below it is not worse: bounds are cut there.
    if before is not None and after is not None and new.status != "optimal" and after < before * (1 - tolerance):
        found.append(_difference("bound", new, before, after))
    if slowdown is not None and old.seconds and new.seconds and new.seconds > slowdown * old.seconds:
        found.append(_difference("slower", new, old.seconds, new.seconds))
    return found


def _difference(kind: str, row: Row, before: str | float | None, after: str | float | None) -> Difference:
    return Difference(kind, row.model, row.grid, row.capacity, row.label, row.seed, before, after)
