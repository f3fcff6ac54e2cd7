"""One cell of the tables: one network, one size of scratchpad, one method, planned and replayed in a process apart."""

from __future__ import annotations

import csv
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from os import times
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cosma import Plan, Tiling

#: Columns of ``cells.csv``. Bytes but for counts and seconds.
FIELDS = (
    "grid", "model", "sram_kib", "method", "noncompulsory", "compulsory", "weights_again", "bound_tiling",
    "bound_tilings", "operators", "tiles", "most_tiles", "transfers", "median_transfer", "most_ranges", "code_bytes",
    "cpu_s", "needed",
)  # fmt: skip
#: Whole operators in a mode that favours them: operands stream, weights pass by and are read once.
FAVOURED = {"operands": "streamable", "weights": "stream"}
#: Weights that never take room, as published designs count it.
BESIDE = {"operands": "resident", "weights": "stream", "fusion": "epilogue"}
#: Settings of the accelerator and tiling, by method.
METHODS: dict[str, tuple[dict[str, str], str | None, str]] = {
    "tiles": ({"operands": "stationary", "weights": "scratchpad", "fusion": "epilogue"}, "auto", "auto"),
    "tiles, resident": ({"operands": "resident", "weights": "scratchpad", "fusion": "epilogue"}, "auto", "auto"),
    "pixels, weights pass by": (BESIDE, "pixels", "given+belady+best-fit"),
    "stripes, weights pass by": (BESIDE, "rows=4", "auto"),
    "whole": ({**FAVOURED, "fusion": "epilogue"}, None, "auto"),
    "e1": (FAVOURED, None, "e1"),
    "e2": (FAVOURED, None, "e2"),
    "e3": (FAVOURED, None, "e3"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What is planned.

    Attributes
    ----------
    grid
        Table that the cell belongs to.
    model
        Name of the network.
    path
        Its ONNX file.
    sram_bytes
        Scratchpad.
    method
        A key of :data:`METHODS`, or a tiling (``rows=2`` or a file) in its place.
    dtype
        Element type counted, None for the model's own.
    """

    grid: str
    model: str
    path: Path
    sram_bytes: int
    method: str
    dtype: str | None = "int8"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What finds its row again."""
        return self.grid, self.model, f"{self.sram_bytes / 1024:g}", self.method


def measure(cell: Cell, effort: float) -> dict[str, str]:
    """Plan one cell; CPU seconds are those of the compile alone, its processes included."""
    from cosma import Accelerator, InfeasibleError, compile, load_onnx, replay
    from cosma.plan.overheads import overheads_of

    warnings.simplefilter("ignore")
    settings, chosen, strategy = METHODS[cell.method]
    tiling: Tiling | str | None = chosen
    if chosen == "pixels":
        from published import pixels

        tiling = pixels()
    accelerator = Accelerator(scratchpad=cell.sram_bytes, in_place=True, **settings)
    row: dict[str, Any] = dict(zip(FIELDS, cell.key, strict=False))
    began = times()
    try:
        plan = compile(cell.path, accelerator, dtype=cell.dtype, tiling=tiling, strategy=strategy, effort=effort)
    except InfeasibleError as error:
        return {name: str(value) for name, value in (row | {"needed": error.needed_bytes or "?"}).items()}
    seconds = sum(times()[:4]) - sum(began[:4])
    loaded = load_onnx(cell.path)
    graph = loaded.finest_graph if cell.dtype is None else loaded.finest_graph.with_dtype(cell.dtype)
    assert replay(plan, graph, model=cell.path).valid
    beside = overheads_of(plan)
    scopes = {bound.scope: bound.lower_bound for bound in plan.certificate.bounds}
    if plan.certificate.noncompulsory == 0:
        scopes = {"tiling": 0, "tilings": 0}
    row |= {
        "noncompulsory": plan.traffic.noncompulsory,
        "compulsory": plan.traffic.compulsory,
        "weights_again": _weights_again(plan),
        "bound_tiling": max(scopes.get("tiling", 0), plan.certificate.lower_bound),
        "bound_tilings": scopes.get("tilings", "") if tiling is not None else "",
        "operators": beside.operators,
        "tiles": beside.tiles,
        "most_tiles": beside.most_tiles,
        "transfers": beside.transfers,
        "median_transfer": beside.median_bytes,
        "most_ranges": beside.most_ranges,
        "code_bytes": beside.code_bytes,
        "cpu_s": f"{seconds:.1f}",
    }
    return {name: str(value) for name, value in row.items()}


def _weights_again(plan: Plan) -> int:
    """Bytes of weights read beyond once each."""
    from cosma.plan.instructions import Execute, Load

    passes_by = plan.accelerator.weights == "stream"
    size = {t.name: t.size_bytes for t in plan.graph.tensors.values() if t.kind == "weight"}
    read, used = 0, set()
    for step in plan.instructions:
        if isinstance(step, Load):
            read += size.get(step.tensor, 0)
        elif isinstance(step, Execute):
            weights = plan.graph.operator(step.operator).weights
            used.update(weights)
            read += sum(size[name] for name in weights if passes_by or name in step.streamed)
    return read - sum(size[name] for name in used)


def read_rows(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of an earlier run, by key."""
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        return {tuple(row[name] for name in FIELDS[:4]): row for row in csv.DictReader(stream)}


def _place(row: dict[str, str]) -> tuple[str, str, float, int]:
    methods = list(METHODS)
    return row["grid"], row["model"], float(row["sram_kib"]), methods.index(row["method"])


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write all rows; the file is whole at any moment."""
    part = path.with_suffix(".part")
    with part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def run_cells(
    cells: list[Cell], path: Path, *, effort: float, jobs: int, say: Callable[[str], None]
) -> dict[tuple[str, ...], dict[str, str]]:
    """Plan the cells that have no row yet; each finished one is written at once."""
    rows = read_rows(path)
    missing = [cell for cell in cells if cell.key not in rows]
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    futures: dict[Future[dict[str, str]], Cell] = {pool.submit(measure, cell, effort): cell for cell in missing}
    try:
        for done, future in enumerate(as_completed(futures), 1):
            row = future.result()
            rows[futures[future].key] = row
            write_rows(path, sorted(rows.values(), key=_place))
            values = row.get("noncompulsory") or f"needs {row['needed']} B"
            say(f"{done} of {len(missing)}: {' '.join(futures[future].key)}: {values}, {row.get('cpu_s', '-')} CPU s")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return rows
