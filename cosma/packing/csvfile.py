"""MiniMalloc's CSV, read and written: ``id,lower,upper,size`` with optional alignment, gaps, offset and hint.

Columns may come in any order. ``buffer`` and ``buffer_id`` stand for ``id``, ``start`` and ``begin`` for
``lower``; ``end`` is an inclusive ``upper`` (gaps then end inclusively as well). Gaps are separated by spaces,
each ``lower-upper`` or ``lower-upper@low:high`` with the bytes that stay occupied. An empty alignment is 1; an
empty offset or hint is none. An id that a spreadsheet would take for a formula has an apostrophe before it. Anything
else is refused with its line number.
"""

from __future__ import annotations

import csv
import io
import re
from operator import attrgetter
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.errors import FormatError, InputError
from cosma.files import other_than, read_bytes
from cosma.packing.buffers import Buffer, Gap, check_buffer
from cosma.text import csv_lines, csv_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ALIASES = {"buffer": "id", "buffer_id": "id", "start": "lower", "begin": "lower"}
_REQUIRED = ("id", "lower", "upper", "size")
_OPTIONAL = ("alignment", "gaps", "offset", "hint")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_GAP = re.compile(r"(-?[0-9]{1,18})-(-?[0-9]{1,18})(?:@([0-9]{1,18}):([0-9]{1,18}))?")


def read_buffers(path: Path | str, *, capacity: int | None = None) -> list[Buffer]:
    """Read a buffer file.

    Raises InputError if the file cannot be read. Raises FormatError with file and line number, for the first line that
    breaks the format or makes no sense.

    Parameters
    ----------
    path
        The CSV file, UTF-8.
    capacity
        If given, a buffer larger than it is refused.
    """
    raw = read_bytes(door.path(path, "buffer file"), "buffer file")
    if raw.strip() and (other := other_than("a table of buffers", raw)):
        raise FormatError(f"{path}: {other}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise FormatError(f"{path}, line {line}: not UTF-8 text") from error
    return parse_buffers(text, name=str(path), capacity=capacity)


def parse_buffers(text: str, *, name: str = "buffers", capacity: int | None = None) -> list[Buffer]:
    """Parse CSV text; see `read_buffers`.

    Raises FormatError with `name` and line number.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    read: _Line | None = None
    buffers: list[Buffer] = []
    lines: dict[str, int] = {}
    try:
        for row in reader:
            if not row:
                continue
            if read is None:
                read = _Line([field.strip() for field in row])
                continue
            buffer = read(row)
            if lines.setdefault(buffer.id, reader.line_num) != reader.line_num:
                raise FormatError(f"id {buffer.id!r} is already on line {lines[buffer.id]}")
            if capacity is not None and buffer.size > capacity:
                raise FormatError(f"buffer {buffer.id!r} needs {buffer.size} bytes, the capacity is {capacity}")
            buffers.append(buffer)
    except (csv.Error, InputError) as error:
        raise FormatError(f"{name}, line {reader.line_num}: {error}") from error
    if read is None:
        raise FormatError(f"{name}: empty; the first line names the columns {', '.join(_REQUIRED)}")
    return buffers


class _Line:
    """Reads lines under one header. There may be a million, so that each takes as few steps as it can."""

    def __init__(self, names: list[str]) -> None:
        columns: dict[str, int] = {}
        self._more = 1 if "end" in names else 0
        for index, given in enumerate(names):
            column = "upper" if given == "end" else _ALIASES.get(given, given)
            if column not in _REQUIRED and column not in _OPTIONAL:
                if other := next((mark for mark in (";", "\t", "|") if mark in given), None):
                    raise FormatError(f"columns are separated by {other!r}; separate them by commas")
                raise FormatError(f"unknown column {given!r}; known are {', '.join((*_REQUIRED, *_OPTIONAL))}")
            if column in columns:
                raise FormatError(f"column {column!r} is named twice")
            columns[column] = index
        missing = [column for column in _REQUIRED if column not in columns]
        if missing:
            raise FormatError(f"no column {', '.join(missing)}; required are {', '.join(_REQUIRED)}")
        self._columns = columns
        self._id = columns.pop("id")
        self._gaps = columns.pop("gaps", None)
        self._count = len(names)

    def __call__(self, row: list[str]) -> Buffer:
        if len(row) != self._count:
            raise FormatError(f"{len(row)} fields where the header names {self._count} columns")
        name = csv_text(row[self._id].strip())
        if not name:
            raise FormatError("the id is empty")
        if "\0" in name:
            raise FormatError(f"the id {name!r} holds a NUL character")
        values = {}
        for column, index in self._columns.items():
            text = row[index].strip()
            if _INTEGER.fullmatch(text):
                values[column] = int(text)
            elif text or column in _REQUIRED:
                raise FormatError(f"{column} {text!r} is not a whole number of at most 18 digits")
        values["upper"] += self._more
        gaps = () if self._gaps is None else tuple(_gap(text, self._more) for text in row[self._gaps].split())
        buffer = Buffer(name, gaps=gaps, **values)
        check_buffer(buffer)
        return buffer


def _gap(text: str, more: int) -> Gap:
    match = _GAP.fullmatch(text)
    if match is None:
        raise FormatError(f"gap {text!r} is not of the form lower-upper or lower-upper@low:high")
    lower, upper, low, high = match.groups()
    window = None if low is None else (int(low), int(high))
    return Gap(int(lower), int(upper) + more, window)


def format_buffers(buffers: Sequence[Buffer], offsets: Mapping[str, int] | None = None) -> str:
    """Write buffers as CSV text, with an offset column when addresses are given or fixed.

    Columns of which no buffer has a value are left out. Lines end with a line feed. Raises FormatError if `offsets`
    lacks a buffer.
    """
    columns = list(_REQUIRED)
    if any(buffer.alignment != 1 for buffer in buffers):
        columns.append("alignment")
    if any(buffer.gaps for buffer in buffers):
        columns.append("gaps")
    if any(buffer.hint is not None for buffer in buffers):
        columns.append("hint")
    if offsets is not None or any(buffer.offset is not None for buffer in buffers):
        columns.append("offset")
    rows: list[list[object]] = [[*columns]]
    values = attrgetter(*columns)
    for buffer in buffers:
        row = [*values(buffer)]
        if "gaps" in columns:
            row[columns.index("gaps")] = " ".join(map(_gap_text, buffer.gaps))
        if offsets is not None:
            if buffer.id not in offsets:
                raise FormatError(f"buffer {buffer.id!r} has no address to write")
            row[-1] = offsets[buffer.id]
        rows.append(row)
    return csv_lines(rows)


def _gap_text(gap: Gap) -> str:
    window = "" if gap.window is None else f"@{gap.window[0]}:{gap.window[1]}"
    return f"{gap.lower}-{gap.upper}{window}"
