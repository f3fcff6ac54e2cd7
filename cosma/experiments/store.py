"""A folder of results that survives being killed at any moment.

``cells.jsonl`` is the base: one row a line, appended when a cell has finished. A line is complete or it is not
there: a torn last line, left by a kill in the middle of a write, is cut off when the folder is next opened and
its cell runs again. Everything else is derived from it, or written beside and renamed:

- ``experiment.toml``: the experiment as it was last run;
- ``listing.json``: the keys of its cells, in order;
- ``plans/KEY.json``: the plan files, where they are kept;
- ``rows.csv``, ``rows.parquet``: the rows of the listed cells, written when a sweep ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cosma.errors import FormatError, InputError
from cosma.experiments.row import Row, read_parquet, rows_from_csv, rows_to_csv, write_parquet
from cosma.files import read_bytes, write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = "cells.jsonl"
LISTING = "listing.json"


class Store:
    """A results folder, held by one sweep at a time; use as a context manager.

    Parameters
    ----------
    folder
        Made where it does not exist.

    Raises
    ------
    InputError
        If the folder cannot be made, or another sweep holds it.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.rows: dict[str, Row] = {}
        self.notes: list[str] = []
        try:
            (self.folder / "plans").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"cannot write results to {self.folder}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise InputError(f"{self.folder}: another sweep writes there; wait for it or choose another -o") from error
        self._log = os.open(self.folder / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._recover()

    def add(self, row: Row, plan: str | None = None) -> None:
        """Keep a finished cell: first its plan, then its row, so that a row never lacks its plan."""
        if plan is not None:
            write_atomic(self.plan_path(row.key), plan)
        data = memoryview(msgspec.json.encode(row) + b"\n")
        while data:
            data = data[os.write(self._log, data) :]
        self.rows[row.key] = row

    def plan_path(self, key: str) -> Path:
        """Where the plan of a cell is kept."""
        return self.folder / "plans" / f"{key}.json"

    def list_cells(self, keys: Sequence[str], text: str) -> None:
        """Say which cells the experiment has, in order, and keep its file beside them."""
        write_atomic(self.folder / "experiment.toml", text)
        write_atomic(self.folder / LISTING, msgspec.json.encode(list(keys)) + b"\n")

    def export(self, keys: Sequence[str]) -> list[Path]:
        """Write the listed cells' rows as CSV, and as Parquet where pyarrow is installed."""
        rows = [self.rows[key] for key in keys if key in self.rows]
        paths = [self.folder / "rows.csv"]
        write_atomic(paths[0], rows_to_csv(rows))
        from importlib.util import find_spec

        if find_spec("pyarrow") is not None:
            paths.append(self.folder / "rows.parquet")
            write_parquet(rows, paths[1])
        return paths

    def close(self) -> None:
        """Put what was written on disk and let go of the folder."""
        os.fsync(self._log)
        os.close(self._log)
        os.close(self._lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recover(self) -> None:
        """Read the rows there are and cut off a line that a kill left half-written."""
        data = (self.folder / LOG).read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._log, whole)
            self.notes.append("the last line was torn by a kill; its cell runs again")
        self.rows, damaged = read_log(data[:whole])
        if damaged:
            lines = ", ".join(map(str, damaged[:5]))
            self.notes.append(f"{LOG}: {len(damaged)} damaged lines left out (line {lines}); their cells run again")


def kept_plans(folder: Path | str) -> frozenset[str]:
    """Keys of the cells whose plan file is kept in a results folder."""
    return frozenset(path.stem for path in (Path(folder) / "plans").glob("*.json"))


def load_rows(path: Path | str) -> list[Row]:
    """Read results: a results folder, or a ``.jsonl``, ``.csv`` or ``.parquet`` file of rows.

    Of a folder that has its log, the rows of the cells last listed are read, in that order; a folder that was
    kept for its table alone is read from ``rows.csv``. Raises InputError if there is nothing of the kind. Raises
    FormatError if a file does not hold rows.
    """
    path = Path(path)
    if path.is_dir():
        if (path / LOG).is_file():
            return _listed_rows(path)
        for name in ("rows.csv", "rows.parquet"):
            if (path / name).is_file():
                return load_rows(path / name)
        raise InputError(f"{path}: no results there: neither {LOG} nor rows.csv")
    if path.suffix == ".parquet":
        return read_parquet(path)
    data = read_bytes(path, "results")
    if path.suffix == ".jsonl":
        return list(read_log(data)[0].values())
    if path.suffix == ".csv":
        return rows_from_csv(data.decode("utf-8", errors="replace"), str(path))
    raise InputError(f"{path}: results are a folder, or a .jsonl, .csv or .parquet file")


def _listed_rows(folder: Path) -> list[Row]:
    rows, _ = read_log((folder / LOG).read_bytes())
    if not (folder / LISTING).is_file():
        return list(rows.values())
    try:
        keys = msgspec.json.decode((folder / LISTING).read_bytes(), type=list[str])
    except msgspec.DecodeError as error:
        raise FormatError(f"{folder / LISTING}: {error}") from error
    return [rows[key] for key in keys if key in rows]


def read_log(data: bytes) -> tuple[dict[str, Row], list[int]]:
    """Rows by key, a later line before an earlier one, and the numbers of complete lines that hold no row."""
    rows: dict[str, Row] = {}
    damaged = []
    decode = msgspec.json.Decoder(Row).decode
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if number < len(lines):
                damaged.append(number)
            continue
        rows[row.key] = row
    return rows, damaged
