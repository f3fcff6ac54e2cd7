"""Ten thousand cells are listed, resumed and summarised in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cosma.experiments import Experiment, load_rows
from cosma.experiments.environment import environment
from cosma.experiments.row import Row
from cosma.experiments.run_cell import describe
from cosma.experiments.store import Store
from cosma.experiments.sweep import outline_folder, sweep
from cosma.experiments.tables import TABLES, make_tables


def test_ten_thousand_cells_in_ten_seconds(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    sizes = ", ".join(str(64 * i) for i in range(1, 51))
    made = experiment(
        *(f"net{i}" for i in range(50)),
        strategies='["e1", "e2", "e3", "auto"]',
        grids=f'[[grids]]\nname = "T"\nscratchpad = [{sizes}]\n',
    )
    cells = made.cells()
    assert len(cells) == 10_000
    out = tmp_path / "out"
    with Store(out) as store:
        for i, cell in enumerate(cells[:-1]):
            store.add(_row(describe(cell), i))
    environment()
    started_s = time.process_time()
    outline = outline_folder(made, out)
    assert len(outline.waiting) == 1
    with Store(out) as store:
        store.add(_row(describe(cells[-1]), 0))
    assert sweep(made, out, quiet=True).ran == 0
    rows = load_rows(out)
    assert len(rows) == 10_000
    tables = {table.name: table for table in make_tables(rows, list(TABLES))}
    assert len(tables["fronts"].rows) == 2_500
    assert len(tables["models"].rows) == 50
    assert time.process_time() - started_s < 10


def _row(known: dict[str, object], number: int) -> Row:
    achieved = 1000 + number % 97
    row = {**known, "status": "feasible", "noncompulsory": achieved, "lower_bound": 900, "scratchpad": 64}
    return msgspec.convert({**row, "gap": 1 - 900 / achieved, "seconds": 0.5, "total": 5000}, Row)
