"""The tables of a sweep, each a function of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Final

from cosma.experiments.capacity import multiple_of_smallest
from cosma.experiments.row import Row
from cosma.experiments.summary import (
    BEST,
    EXISTING,
    gap_profile,
    grids_of,
    labels_of,
    pair,
    performance_profile,
    quality,
    reduction,
    time_profile,
)
from cosma.experiments.table import Table
from cosma.units import format_size

#: Gaps, seconds and ratios at which the profiles are tabulated.
GAPS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)
SECONDS = (0.1, 1.0, 10.0, 30.0, 60.0)
RATIOS = (1.0, 1.05, 1.25, 2.0, 5.0, 10.0)
#: What is compared with, and what may not be concluded.
METHODS = (
    "e1 (order as given, first-fit, LRU), e2 (depth-first order, best-fit, Belady), e3 (peak-minimising order, "
    "best-fit, Belady) and the best of the three on each cell"
)
CLAIMS = (
    "The COSMA paper reports 84 %, and 85 % with divide and conquer, on networks and sizes that are not published as "
    "files: these are our networks, grids and reading of the existing methods."
)


def headline(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """The figures to quote, a line per grid."""
    table = []
    for label in labels:
        for grid in grids_of(rows):
            here = [row for row in rows if row.grid == grid]
            pairings = pair(here, label)
            q = quality([row for row in here if row.label == label])
            against = [reduction(pairings, versus) for versus in (*EXISTING, BEST)]
            table.append(
                (grid, label, len({row.model for row in here}), q.cells, *(r.mean for r in against),
                 against[-1].compared, against[-1].worse, q.failed, q.optimal_share, q.mean_gap, q.median_s, q.p90_s)
            )  # fmt: skip
    return Table(
        "headline",
        "Headline",
        (
            ("grid", "text"), ("strategy", "text"), ("models", "count"), ("cells", "count"),
            *((f"vs {versus}", "share") for versus in EXISTING), ("vs best", "share"), ("compared", "count"),
            ("worse", "count"), ("no plan", "count"), ("optimal", "share"), ("mean gap", "share"),
            ("median s", "seconds"), ("90 % s", "seconds"),
        ),
        tuple(table),
        f"Mean reduction of non-compulsory traffic against {METHODS}, over the cells where theirs is above zero "
        f"(compared: against the best). {CLAIMS}",
    )  # fmt: skip


def reductions(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Reduction of non-compulsory traffic against each existing method, by grid."""
    table = []
    for label in labels:
        for grid in grids_of(rows):
            here = [row for row in rows if row.grid == grid]
            pairings = pair(here, label)
            for versus in (*EXISTING, BEST):
                r = reduction(pairings, versus)
                if not r.pairings:
                    continue
                table.append(
                    (grid, label, versus, r.pairings, r.compared, r.mean, r.median, r.model_mean, r.total, r.worse,
                     r.unplanned)
                )  # fmt: skip
    return Table(
        "reduction",
        "Reduction of non-compulsory traffic",
        (
            ("grid", "text"), ("strategy", "text"), ("against", "text"), ("cells", "count"), ("compared", "count"),
            ("mean", "share"), ("median", "share"), ("mean of models", "share"), ("of total", "share"),
            ("worse", "count"), ("no plan", "count"),
        ),
        tuple(table),
        f"Reduction = 1 - ours / theirs over the compared cells: those where theirs is above zero. Against {METHODS}. "
        f"{CLAIMS}",
    )  # fmt: skip


def proof(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Optimal share, gap and seconds, by grid and strategy."""
    table = []
    for grid in grids_of(rows):
        for label in labels:
            q = quality([row for row in rows if row.grid == grid and row.label == label])
            table.append(
                (grid, label, q.cells, q.failed, q.optimal_share, q.proven_in_10_s, q.proven_in_60_s, q.mean_gap,
                 q.max_gap, q.median_s, q.p90_s, q.max_s)
            )  # fmt: skip
    return Table(
        "proof",
        "Proof and time",
        (
            ("grid", "text"), ("strategy", "text"), ("cells", "count"), ("no plan", "count"), ("optimal", "share"),
            ("proven in 10 s", "count"), ("proven in 60 s", "count"), ("mean gap", "share"), ("largest gap", "share"),
            ("median s", "seconds"), ("90 % s", "seconds"), ("longest s", "seconds"),
        ),
        tuple(table),
        "Gap = (achieved - bound) / achieved, 0 where proven optimal. Seconds are wall-clock, of the compile alone.",
    )  # fmt: skip


def by_group(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Reduction, proof and time by group of models."""
    return _by("groups", "By group of models", "group", lambda row: row.group, rows, labels)


def by_model(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Reduction, proof and time by model."""
    return _by("models", "By model", "model", lambda row: row.model, rows, labels)


def _by(
    name: str, title: str, heading: str, of: Callable[[Row], str], rows: Sequence[Row], labels: Sequence[str]
) -> Table:
    table = []
    for label in labels:
        for grid in grids_of(rows):
            here: dict[str, list[Row]] = {}
            for row in rows:
                if row.grid == grid:
                    here.setdefault(of(row), []).append(row)
            for value in sorted(here):
                pairings = pair(here[value], label)
                q = quality([row for row in here[value] if row.label == label])
                best = reduction(pairings, BEST)
                table.append(
                    (value, grid, label, q.cells, *(reduction(pairings, versus).mean for versus in EXISTING), best.mean,
                     best.worse, q.optimal, q.mean_gap, q.median_s, q.failed)
                )  # fmt: skip
    return Table(
        name,
        title,
        (
            (heading, "text"), ("grid", "text"), ("strategy", "text"), ("cells", "count"),
            *((f"vs {versus}", "share") for versus in EXISTING), ("vs best", "share"), ("worse", "count"),
            ("optimal", "count"), ("mean gap", "share"), ("median s", "seconds"), ("no plan", "count"),
        ),
        tuple(table),
        "Mean reduction over the cells where theirs is above zero; - where it is nowhere.",
    )  # fmt: skip


def profiles(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Gap, time and traffic profiles, all grids together."""
    present = [label for label in (*EXISTING, *labels) if any(row.label == label for row in rows)]
    present = list(dict.fromkeys(present))
    traffic = performance_profile(rows, present, RATIOS)
    table: list[tuple[str | float | None, ...]] = []
    for label in present:
        own = [row for row in rows if row.label == label]
        table.append((label, *gap_profile(own, GAPS), *time_profile(own, SECONDS), *traffic[label]))
    return Table(
        "profiles",
        "Profiles",
        (
            ("strategy", "text"),
            *((f"gap <= {100 * gap:g} %", "share") for gap in GAPS),
            *((f"proven in {s:g} s", "share") for s in SECONDS),
            *((f"traffic <= {ratio:g} x best", "share") for ratio in RATIOS),
        ),
        tuple(table),
        "Shares of all cells. Traffic is compared with the best of the strategies listed, cell by cell.",
    )


def fronts(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Non-compulsory traffic against capacity, by model: ours, the bound, and the best existing method."""
    table = []
    for label in labels:
        for p in sorted(
            pair(rows, label),
            key=lambda p: (p.ours.grid, p.ours.model, p.ours.scratchpad or 0, p.ours.seed, p.ours.repeat),
        ):
            row = p.ours
            table.append(
                (row.model, row.grid, label, show_capacity(row), row.scratchpad, row.compulsory, row.noncompulsory,
                 row.lower_bound, p.theirs.get(BEST), row.status, row.seconds)
            )  # fmt: skip
    return Table(
        "fronts",
        "Traffic against capacity",
        (
            ("model", "text"), ("grid", "text"), ("strategy", "text"), ("capacity", "text"), ("scratchpad", "bytes"),
            ("compulsory", "bytes"), ("non-compulsory", "bytes"), ("lower bound", "bytes"), (BEST, "bytes"),
            ("status", "text"), ("s", "seconds"),
        ),
        tuple(table),
    )  # fmt: skip


def failures(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    """Cells without a plan and why."""
    table = [
        (row.model, row.grid, show_capacity(row), row.label, row.seed, row.status, (row.reason or "").split("\n")[0])
        for row in rows
        if not row.planned
    ]
    columns = ("model", "grid", "capacity", "strategy", "seed", "status", "reason")
    return Table("failures", "Cells without a plan", tuple((c, "text") for c in columns), tuple(table))


def show_capacity(row: Row) -> str:
    """Write a row's capacity as an experiment would: ``1.1x``, or a size with its unit."""
    return row.capacity if multiple_of_smallest(row.capacity) is not None else format_size(int(row.capacity))


#: Every table by name, in the order they are read.
TABLES: Final[dict[str, Callable[[Sequence[Row], Sequence[str]], Table]]] = {
    "headline": headline,
    "reduction": reductions,
    "proof": proof,
    "groups": by_group,
    "models": by_model,
    "profiles": profiles,
    "fronts": fronts,
    "failures": failures,
}

#: What a summary shows unless told otherwise: all that grow slower than the cells.
SUMMARY = ("headline", "reduction", "proof", "groups", "models", "profiles", "failures")


def make_tables(rows: Sequence[Row], names: Sequence[str] = SUMMARY, strategies: Sequence[str] = ()) -> list[Table]:
    """Build tables by name.

    Parameters
    ----------
    names
        Keys of :data:`TABLES`.
    strategies
        Labels to report on; by default all that are no existing method.
    """
    labels = labels_of(rows, strategies)
    return [TABLES[name](rows, labels) for name in names]


def provenance(rows: Sequence[Row]) -> str:
    """Say in one line what rows were computed with and on."""
    versions = sorted({row.cosma for row in rows})
    machines = sorted({row.machine for row in rows})
    efforts = sorted({row.effort for row in rows if row.effort})
    models = len({row.model for row in rows})
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return (
        f"{len(rows)} cells over {models} {'model' if models == 1 else 'models'}; cosma {', '.join(versions)}; effort "
        f"{', '.join(f'{effort:g}' for effort in efforts)}; {'; '.join(machines)}; "
        f"mean {fmean(seconds) if seconds else 0:.2f} s a cell"
    )
