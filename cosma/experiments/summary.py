"""Rows against rows: reductions, shares and profiles, as numbers.

A *pairing* is one instance (model on accelerator) with our row and the rows of existing methods. The reduction
1 - ours / theirs of non-compulsory traffic is taken over the pairings where theirs is above zero; where it is
zero there is nothing to reduce, and such pairings are counted, not averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean, median

from cosma.errors import InputError
from cosma.experiments.row import Row

#: Labels of the existing methods, and of the best of them on each instance.
EXISTING = ("e1", "e2", "e3")
BEST = "best existing"
#: Not methods of ours, so not compared with the existing ones unless asked for.
_BASELINES = (*EXISTING, "existing")


@dataclass(frozen=True, slots=True)
class Pairing:
    """Our row on an instance and the non-compulsory bytes of existing methods there, by label."""

    ours: Row
    theirs: dict[str, int]

    def reduction(self, versus: str) -> float | None:
        """1 - ours / theirs; None where theirs is zero or either has no plan."""
        theirs, ours = self.theirs.get(versus), self.ours.noncompulsory
        return None if not theirs or ours is None else 1 - ours / theirs


@dataclass(frozen=True, slots=True)
class Reduction:
    """Non-compulsory traffic of a method of ours against one existing method, over some pairings."""

    #: Instances on which theirs has a plan.
    pairings: int
    #: Those where theirs is above zero and ours has a plan.
    compared: int
    #: Those where theirs is zero already.
    zero: int
    #: Those where ours has no plan though theirs has.
    unplanned: int
    #: Those where ours moves more.
    worse: int
    #: Over the compared, each cell once; None where there are none.
    mean: float | None
    median: float | None
    #: Mean over models of the mean over a model's cells.
    model_mean: float | None
    #: 1 - sum of ours / sum of theirs over the compared.
    total: float | None


@dataclass(frozen=True, slots=True)
class Quality:
    """Proof and time of one method over some cells."""

    #: All of them, those proven infeasible excepted.
    cells: int
    #: Those without a plan.
    failed: int
    #: Those proven optimal.
    optimal: int
    #: Over the cells with a plan; optimal ones count as 0.
    mean_gap: float | None
    max_gap: float | None
    #: Wall-clock seconds of the compile.
    median_s: float | None
    p90_s: float | None
    max_s: float | None
    #: Cells proven optimal within that many seconds.
    proven_in_10_s: int
    proven_in_60_s: int

    @property
    def optimal_share(self) -> float | None:
        """Share of all cells proven optimal; a failed cell is not."""
        return self.optimal / self.cells if self.cells else None


def labels_of(rows: Iterable[Row], chosen: Sequence[str] = ()) -> list[str]:
    """Labels to report on: those chosen, or all that are no existing method, in the order they appear.

    Raises InputError if a chosen label has no row.
    """
    present = list(dict.fromkeys(row.label for row in rows))
    for label in chosen:
        if label not in present:
            raise InputError(f"no cell of strategy {label!r} among the results; there are {', '.join(present)}")
    return list(chosen) or [label for label in present if label not in _BASELINES] or present


def grids_of(rows: Iterable[Row]) -> list[str]:
    """Grids in the order they appear."""
    return list(dict.fromkeys(row.grid for row in rows))


def pair(rows: Sequence[Row], label: str) -> list[Pairing]:
    """Pair every row of a label with the existing methods' plans on the same instance.

    Where an existing method ran several times its lowest traffic counts; they are deterministic.
    """
    theirs: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.label in EXISTING and row.noncompulsory is not None:
            known = theirs.setdefault(row.instance, {})
            known[row.label] = min(row.noncompulsory, known.get(row.label, row.noncompulsory))
    for known in theirs.values():
        known[BEST] = min(known.values())
    return [Pairing(row, theirs.get(row.instance, {})) for row in rows if row.label == label]


def reduction(pairings: Sequence[Pairing], versus: str) -> Reduction:
    """Sum up reductions against one existing method."""
    present = [p for p in pairings if versus in p.theirs]
    compared = [(p, r) for p in present if (r := p.reduction(versus)) is not None]
    by_model: dict[str, list[float]] = {}
    for p, r in compared:
        by_model.setdefault(p.ours.model, []).append(r)
    ours = sum(p.ours.noncompulsory or 0 for p, _ in compared)
    theirs = sum(p.theirs[versus] for p, _ in compared)
    values = [r for _, r in compared]
    return Reduction(
        pairings=len(present),
        compared=len(compared),
        zero=sum(p.theirs[versus] == 0 for p in present),
        unplanned=sum(p.ours.noncompulsory is None for p in present),
        worse=sum((p.ours.noncompulsory or 0) > p.theirs[versus] for p in present),
        mean=fmean(values) if values else None,
        median=median(values) if values else None,
        model_mean=fmean(fmean(v) for v in by_model.values()) if by_model else None,
        total=1 - ours / theirs if theirs else None,
    )


def quality(rows: Sequence[Row]) -> Quality:
    """Sum up proof and time over rows of one method."""
    cells = [row for row in rows if row.status != "infeasible"]
    planned = [row for row in cells if row.planned]
    gaps = [row.gap or 0.0 for row in planned]
    seconds = sorted(row.seconds or 0.0 for row in planned)
    proven = [row.seconds or 0.0 for row in planned if row.status == "optimal"]
    return Quality(
        cells=len(cells),
        failed=len(cells) - len(planned),
        optimal=len(proven),
        mean_gap=fmean(gaps) if gaps else None,
        max_gap=max(gaps, default=None),
        median_s=median(seconds) if seconds else None,
        p90_s=seconds[min(len(seconds) - 1, int(0.9 * len(seconds)))] if seconds else None,
        max_s=seconds[-1] if seconds else None,
        proven_in_10_s=sum(s <= 10 for s in proven),
        proven_in_60_s=sum(s <= 60 for s in proven),
    )


def gap_profile(rows: Sequence[Row], gaps: Sequence[float]) -> list[float]:
    """Share of a method's cells proven to within each gap; cells without a plan are within none."""
    cells = [row for row in rows if row.status != "infeasible"]
    reached = [row.gap or 0.0 for row in cells if row.planned]
    return [_share(sum(gap <= limit for gap in reached), len(cells)) for limit in gaps]


def time_profile(rows: Sequence[Row], seconds: Sequence[float]) -> list[float]:
    """Share of a method's cells proven optimal within each number of wall-clock seconds."""
    cells = [row for row in rows if row.status != "infeasible"]
    proven = [row.seconds or 0.0 for row in cells if row.status == "optimal"]
    return [_share(sum(s <= limit for s in proven), len(cells)) for limit in seconds]


def performance_profile(
    rows: Sequence[Row], labels: Sequence[str], ratios: Sequence[float]
) -> dict[str, list[float]]:
    """Share of instances on which a method's non-compulsory traffic is within each ratio of the best method's.

    Performance profiles as in Dolan and Moré (2002). A method's worst run on an instance counts. Where the best
    is zero, a method is within every ratio if it is zero too, and within none otherwise.
    """
    worst: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.label in labels and row.status != "infeasible":
            known = worst.setdefault(row.instance, {})
            reached = inf if row.noncompulsory is None else float(row.noncompulsory)
            known[row.label] = max(reached, known.get(row.label, 0.0))
    within = {label: [0] * len(ratios) for label in labels}
    for known in worst.values():
        best = min(known.values())
        for label, value in known.items():
            for i, ratio in enumerate(ratios):
                within[label][i] += value < inf and value <= ratio * best
    return {label: [_share(count, len(worst)) for count in counts] for label, counts in within.items()}


def front(rows: Sequence[Row]) -> list[Row]:
    """Rows that no other beats in both scratchpad and non-compulsory traffic, by rising scratchpad."""
    planned = [row for row in rows if row.noncompulsory is not None and row.scratchpad is not None]
    kept: list[Row] = []
    for row in sorted(planned, key=lambda row: (row.scratchpad or 0, row.noncompulsory or 0, row.key)):
        if not kept or (row.noncompulsory or 0) < (kept[-1].noncompulsory or 0):
            kept.append(row)
    return kept


def statuses(rows: Iterable[Row]) -> dict[str, int]:
    """Number of rows by status, most frequent first."""
    return dict(Counter(row.status for row in rows).most_common())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
