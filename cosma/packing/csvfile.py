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
    columns: dict[str, int] | None = None
    inclusive = False
    buffers: list[Buffer] = []
    lines: dict[str, int] = {}
    try:
        for row in reader:
            if not row:
                continue
            where = f"{name}, line {reader.line_num}"
            if columns is None:
                columns, inclusive = _header([field.strip() for field in row], where)
                continue
            if len(row) != len(columns):
                raise FormatError(f"{where}: {len(row)} fields where the header names {len(columns)} columns")
            fields = {column: row[index].strip() for column, index in columns.items()}
            fields["id"] = csv_text(fields["id"])
            buffer = _buffer(fields, where, inclusive)
            if buffer.id in lines:
                raise FormatError(f"{where}: id {buffer.id!r} is already on line {lines[buffer.id]}")
            if capacity is not None and buffer.size > capacity:
                raise FormatError(
                    f"{where}: buffer {buffer.id!r} needs {buffer.size} bytes, the capacity is {capacity}"
                )
            lines[buffer.id] = reader.line_num
            buffers.append(buffer)
    except csv.Error as error:
        raise FormatError(f"{name}, line {reader.line_num}: {error}") from error
    if columns is None:
        raise FormatError(f"{name}: empty; the first line names the columns {', '.join(_REQUIRED)}")
    return buffers


def _header(names: list[str], where: str) -> tuple[dict[str, int], bool]:
    columns: dict[str, int] = {}
    inclusive = "end" in names
    for index, given in enumerate(names):
        column = "upper" if given == "end" else _ALIASES.get(given, given)
        if column not in _REQUIRED and column not in _OPTIONAL:
            if other := next((mark for mark in (";", "\t", "|") if mark in given), None):
                raise FormatError(f"{where}: columns are separated by {other!r}; separate them by commas")
            raise FormatError(
                f"{where}: unknown column {given!r}; known are {', '.join((*_REQUIRED, *_OPTIONAL))}"
            )
        if column in columns:
            raise FormatError(f"{where}: column {column!r} is named twice")
        columns[column] = index
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise FormatError(f"{where}: no column {', '.join(missing)}; required are {', '.join(_REQUIRED)}")
    return columns, inclusive


def _buffer(fields: dict[str, str], where: str, inclusive: bool) -> Buffer:
    def integer(column: str) -> int:
        text = fields[column]
        if not _INTEGER.fullmatch(text):
            raise FormatError(f"{where}: {column} {text!r} is not a whole number of at most 18 digits")
        return int(text)

    def optional(column: str) -> int | None:
        return integer(column) if fields.get(column) else None

    if not fields["id"]:
        raise FormatError(f"{where}: the id is empty")
    more = 1 if inclusive else 0
    if "\0" in fields["id"]:
        raise FormatError(f"{where}: the id {fields['id']!r} holds a NUL character")
    alignment = optional("alignment")
    try:
        buffer = Buffer(
            id=fields["id"],
            lower=integer("lower"),
            upper=integer("upper") + more,
            size=integer("size"),
            alignment=1 if alignment is None else alignment,
            offset=optional("offset"),
            hint=optional("hint"),
            gaps=tuple(_gap(text, where, more) for text in fields.get("gaps", "").split()),
        )
        check_buffer(buffer)
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(f"{where}: {error}") from error
    return buffer


def _gap(text: str, where: str, more: int) -> Gap:
    match = _GAP.fullmatch(text)
    if match is None:
        raise FormatError(f"{where}: gap {text!r} is not of the form lower-upper or lower-upper@low:high")
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
    for buffer in buffers:
        if offsets is not None and buffer.id not in offsets:
            raise FormatError(f"buffer {buffer.id!r} has no address to write")
        offset = buffer.offset if offsets is None else offsets[buffer.id]
        values = {
            "id": buffer.id,
            "lower": buffer.lower,
            "upper": buffer.upper,
            "size": buffer.size,
            "alignment": buffer.alignment,
            "gaps": " ".join(_gap_text(gap) for gap in buffer.gaps),
            "hint": buffer.hint,
            "offset": offset,
        }
        rows.append([values[column] for column in columns])
    return csv_lines(rows)


def _gap_text(gap: Gap) -> str:
    window = "" if gap.window is None else f"@{gap.window[0]}:{gap.window[1]}"
    return f"{gap.lower}-{gap.upper}{window}"
