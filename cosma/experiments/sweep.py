"""A sweep: run the cells of an experiment that have no result yet, and keep each as it finishes."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.experiments.environment import environment
from cosma.experiments.isolated import RUNNER
from cosma.experiments.progress import Estimate, ProgressView
from cosma.experiments.store import LOG, Store, kept_plans, read_log
from cosma.process import core_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.experiments.cell import Cell
    from cosma.experiments.experiment import Experiment
    from cosma.experiments.row import Row


@dataclass(frozen=True, slots=True)
class Outline:
    """What a sweep would do."""

    #: Every cell of the experiment with its key, in order.
    cells: dict[str, Cell]
    #: Those to run.
    waiting: list[Cell]
    #: Results kept though the source code of the same version has changed since.
    other_code: int
    #: Predicted wall-clock seconds, from the rows there are; None where there are none.
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How a sweep ended."""

    #: Of all cells of the experiment that have a result, in the experiment's order.
    rows: list[Row]
    #: Cells run this time, and cells there are.
    ran: int
    cells: int
    #: Tables written.
    files: list[Path]

    @property
    def statuses(self) -> dict[str, int]:
        """Number of cells by status, most frequent first."""
        return dict(Counter(row.status for row in self.rows).most_common())


def outline_sweep(
    experiment: Experiment,
    rows: dict[str, Row],
    kept: frozenset[str] = frozenset(),
    *,
    retry: bool = False,
    fresh: bool = False,
    jobs: int = 1,
) -> Outline:
    """Find which cells of an experiment have no result among ``rows`` yet, which are by key.

    A failure counts as a result, unless its cell was given up at a limit that is higher now. ``kept`` are the keys of
    the cells whose plan file is kept; ``jobs`` cells will run at once, for the estimate.
    """
    here = environment()
    cells = {cell.key(here["cosma"]): cell for cell in experiment.cells()}
    waiting = [cell for key, cell in cells.items() if fresh or _is_open(cell, rows.get(key), key in kept, retry)]
    known = [rows[key] for key in cells if key in rows]
    estimate = Estimate(waiting, jobs)
    estimate.learn(known)
    return Outline(cells, waiting, sum(row.code != here["code"] for row in known), estimate.seconds_left())


def outline_folder(
    experiment: Experiment, folder: Path | str, *, retry: bool = False, fresh: bool = False, jobs: int = 1
) -> Outline:
    """Say what :func:`sweep` would run, without touching the folder, which need not exist."""
    log = Path(folder) / LOG
    rows = read_log(log.read_bytes())[0] if log.is_file() else {}
    return outline_sweep(experiment, rows, kept_plans(folder), retry=retry, fresh=fresh, jobs=jobs)


def sweep(
    experiment: Experiment,
    folder: Path | str,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    retry: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    note: Callable[[str], None] = lambda text: None,
    runner: str = RUNNER,
) -> SweepResult:
    """Run an experiment's open cells and keep every result in ``folder`` as soon as it is there.

    Interrupting or killing it at any moment loses no finished cell; running it again goes on where it stopped. Raises
    InputError if the folder cannot be used, or no Dask scheduler answers.

    Parameters
    ----------
    folder
        Where results go; see :mod:`cosma.experiments.store`.
    jobs
        Processes on this machine; by default one a processor.
    dask
        ``local`` or the address of a Dask scheduler, to run there instead.
    retry, fresh
        See :func:`outline_sweep`.
    note
        Receives remarks, one line each.
    runner
        ``MODULE:FUNCTION`` that runs a cell.
    """
    jobs = jobs if jobs is not None else core_count()
    with Store(folder) as store:
        for remark in store.notes:
            note(remark)
        outline = outline_sweep(experiment, store.rows, kept_plans(folder), retry=retry, fresh=fresh, jobs=jobs)
        if outline.other_code and not fresh:
            note(f"{outline.other_code} results are from other code of the same version; a fresh sweep runs them again")
        store.list_cells(list(outline.cells), experiment.text)
        estimate = Estimate(outline.waiting, jobs)
        estimate.learn(store.rows[key] for key in outline.cells if key in store.rows)
        view = ProgressView(len(outline.waiting), estimate, quiet=quiet)
        if outline.waiting:
            if dask is not None:
                from cosma.experiments.cluster import run_dask

                outcomes = run_dask(outline.waiting, dask, jobs, runner)
            else:
                from cosma.experiments.local import run_local

                outcomes = run_local(outline.waiting, jobs, runner)
            with closing(outcomes):  # type: ignore[type-var]
                for _, outcome in outcomes:
                    store.add(outcome.row, outcome.plan)
                    view.update(outcome.row)
            view.close()
        files = store.export(list(outline.cells))
        rows = [store.rows[key] for key in outline.cells if key in store.rows]
    return SweepResult(rows, len(outline.waiting), len(outline.cells), files)


def _is_open(cell: Cell, row: Row | None, kept: bool, retry: bool) -> bool:
    if row is None:
        return True
    if row.planned:
        return cell.keep_plan and not kept
    if row.status == "timeout" and (row.limit_s or 0.0) < cell.limit_s:
        return True
    if row.status == "memory" and (row.memory_limit or 0) < cell.memory_bytes:
        return True
    return retry
