"""Traces and counts in CSV.

With a header that names a layer, an expert and a count, rows are counts. With one that names a token, a layer and an
expert, every row is one choice. Otherwise every row is a token and every column a layer; a cell holds an id, several
separated by spaces, or nothing.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError
from cosma.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: A table, what its header says it is, and the layers' own numbers.
_Table = tuple["NDArray[Any]", "str | None", "tuple[int, ...] | None"]
_LAYER = ("layer", "layer_id", "layer_idx", "layer_index", "moe_layer", "moe_layer_id")
_EXPERT = ("expert", "expert_id", "expert_idx", "expert_index", "logical_expert", "logical_expert_id")
_COUNT = ("count", "counts", "tokens", "token_count", "num_tokens", "load", "visits", "hits")
_TOKEN = ("token", "token_id", "token_idx", "token_index", "position", "pos")
_REQUEST = ("request", "request_id", "sequence", "sequence_id", "rid")
#: Largest file read; a CSV is held in memory.
_MOST_BYTES = 256 << 20
#: Largest number of cells of a table that rows of numbered layers and experts may span.
_MOST_CELLS = 1 << 26


@dataclass(frozen=True, slots=True)
class CsvReader:
    """A ``.csv`` or ``.tsv`` file."""

    path: Path

    @property
    def kind(self) -> str | None:
        """``load`` or ``trace`` where the header says so, else None."""
        return self._read()[1]

    @property
    def layer_ids(self) -> tuple[int, ...] | None:
        """The layers' own numbers, where rows name them."""
        return self._read()[2]

    def rows(self, most: int) -> Iterator[NDArray[Any]]:
        """Yield the table, at most ``most`` rows at a time."""
        table = self._read()[0]
        for first in range(0, table.shape[0], most):
            yield table[first : first + most]

    def _read(self) -> _Table:
        try:
            stamp = self.path.stat()
        except OSError as error:
            raise InputError(f"trace {self.path}: cannot be read ({error.strerror or error})") from error
        if stamp.st_size > _MOST_BYTES:
            raise FormatError(
                f"trace {self.path}: {stamp.st_size >> 20} MiB of CSV; save large traces as .npy or JSON lines"
            )
        return _parse(self.path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=2)
def _parse(path: Path, _changed: int, _size: int) -> _Table:
    """Read the table of a file as it was last changed; passes over one trace read it several times."""
    where = f"trace {path}"
    try:
        text = read_bytes(path, "trace").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not text ({error})") from error
    # Commas inside brackets separate the experts of one cell.
    first = re.sub(r"\[[^\]]*\]", "", text.partition("\n")[0])
    separator = max(",;\t", key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if any(c.strip() for c in row)]
    except csv.Error as error:
        raise FormatError(f"{where}: not CSV ({error})") from error
    if not rows:
        raise FormatError(f"{where}: no tokens; the file is empty")
    names = [cell.strip().lower() for cell in rows[0]]
    if names == ["expert", "node"]:
        raise FormatError(f"{where}: ExFlow's placement, not a trace; it can be scored on a trace")
    layer, expert, count, token = (_column(names, known) for known in (_LAYER, _EXPERT, _COUNT, _TOKEN))
    if layer is not None and expert is not None and token is not None:
        request = _column(names, _REQUEST)
        return _choices(rows[1:], (request, token, layer, expert), where)
    if layer is not None and expert is not None and count is not None:
        return _counts(rows[1:], (layer, expert, count), where)
    return _tokens(rows, names, where), None, None


def _column(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _number(row: list[str], column: int, line: int, where: str) -> int:
    try:
        value = int(row[column])
    except (ValueError, IndexError) as error:
        cell = row[column] if column < len(row) else ""
        raise FormatError(f"{where}, row {line}: {cell[:40]!r} in column {column + 1} is no whole number") from error
    if not -(2**62) < value < 2**62:
        raise FormatError(f"{where}, row {line}: {row[column][:40]} is too large")
    return value


def _counts(
    rows: list[list[str]], columns: tuple[int, int, int], where: str
) -> tuple[NDArray[Any], str, tuple[int, ...]]:
    """Return ``[layers, experts]``; several rows of one layer and expert add up."""
    found: dict[tuple[int, int], float] = {}
    for line, row in enumerate(rows, start=2):
        layer, expert = (_number(row, column, line, where) for column in columns[:2])
        try:
            value = float(row[columns[2]])
        except (ValueError, IndexError) as error:
            raise FormatError(f"{where}, row {line}: no number in column {columns[2] + 1}") from error
        if layer < 0 or expert < 0 or not 0 <= value < 2.0**53:
            raise FormatError(f"{where}, row {line}: {row}; layers, experts and counts are not negative")
        found[layer, expert] = found.get((layer, expert), 0.0) + value
    if not found:
        raise FormatError(f"{where}: a header and no counts")
    layers = sorted({layer for layer, _ in found})
    experts = 1 + max(expert for _, expert in found)
    if len(layers) * experts > _MOST_CELLS:
        raise FormatError(f"{where}: experts up to {experts - 1} in {len(layers)} layers are more than can be counted")
    table = np.zeros((len(layers), experts))
    number = {layer: at for at, layer in enumerate(layers)}
    for (layer, expert), value in found.items():
        table[number[layer], expert] = value
    whole = table.astype(np.int64)
    return (whole if (whole == table).all() else table), "load", tuple(layers)


def _choices(
    rows: list[list[str]], columns: tuple[int | None, int, int, int], where: str
) -> tuple[NDArray[Any], str, tuple[int, ...]]:
    """Return ``[tokens, layers, k]`` from rows of one choice each, tokens in the order of their first row."""
    request, *rest = columns
    order: dict[tuple[str, int], int] = {}
    chosen: dict[tuple[int, int], list[int]] = {}
    for line, row in enumerate(rows, start=2):
        token, layer, expert = (_number(row, column, line, where) for column in rest)
        owner = row[request] if request is not None and request < len(row) else ""
        number = order.setdefault((owner, token), len(order))
        chosen.setdefault((number, layer), []).append(expert)
    if not chosen:
        raise FormatError(f"{where}: a header and no tokens")
    layers = sorted({layer for _, layer in chosen})
    most = max(len(experts) for experts in chosen.values())
    if len(order) * len(layers) * most > 8 * _MOST_CELLS:
        raise FormatError(f"{where}: {len(order)} x {len(layers)} x {most} choices are too many")
    table = np.full((len(order), len(layers), most), -1, dtype=np.int64)
    at = {layer: index for index, layer in enumerate(layers)}
    for (number, layer), experts in chosen.items():
        table[number, at[layer], : len(experts)] = experts
    return table, "trace", tuple(layers)


def _tokens(rows: list[list[str]], names: list[str], where: str) -> NDArray[Any]:
    """Return ``[tokens, layers]`` or ``[tokens, layers, k]`` from one row per token."""
    header = not all(_is_cell(cell) for cell in rows[0]) or not rows[0][0].strip()
    skip = 0
    if header:
        # An index column, as data frames write it.
        skip = int(names[0] in {"", "id", "index", "token", "token_id", "position"})
        if any("layer" not in name and not name.lstrip("l").isdigit() for name in names[skip:]):
            raise FormatError(
                f"{where}: header {','.join(names)[:80]}; expected layer,expert,count, or token,layer,expert, or one "
                "column per layer (layer_0, layer_1, ...)"
            )
    cells: list[list[list[int]]] = []
    width = len(rows[0])
    for line, row in enumerate(rows[int(header) :], start=1 + int(header)):
        if len(row) != width:
            raise FormatError(f"{where}, row {line}: ragged ({len(row)} cells, {width} above)")
        if not all(_is_cell(cell) for cell in row[skip:]):
            raise FormatError(f"{where}, row {line}: {','.join(row)[:60]!r}; expected whole expert ids")
        cells.append([[int(part) for part in _parts(cell)] for cell in row[skip:]])
    if not cells or width == skip:
        raise FormatError(f"{where}: a header and no tokens")
    most = max(len(chosen) for row in cells for chosen in row)
    table = np.full((len(cells), width - skip, max(1, most)), -1, dtype=np.int64)
    for token, chosen_row in enumerate(cells):
        for layer, chosen in enumerate(chosen_row):
            table[token, layer, : len(chosen)] = chosen
    return table[:, :, 0] if most <= 1 else table


def _parts(cell: str) -> list[str]:
    return cell.replace("[", " ").replace("]", " ").replace(",", " ").replace("|", " ").replace(";", " ").split()


def _is_cell(cell: str) -> bool:
    return all(part.removeprefix("-").isdecimal() and len(part) < 19 for part in _parts(cell))
