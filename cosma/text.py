"""Text from outside, made safe for where it goes: terminals, JSON, CSV.

Names of tensors, models and files are written by others. A name may hold escape sequences that change a terminal,
line feeds that forge a line, marks that turn the direction of writing, or the start of a spreadsheet formula.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Categories of characters that are never shown as they are: controls, formats (direction marks, zero width),
#: surrogates, private use, unassigned, separators of lines and paragraphs.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Letters that a data class is shown in; its name and those of its fields come on top where they are many.
_LONGEST = 180
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
#: Characters that JSON allows in a string and a terminal may act upon. The first class of a name is ASCII, so most
#: text is passed without a look at each character.
_BEYOND = re.compile(r"[\x00-\x1f\x7f-\uffff\U00010000-\U0010ffff]")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
#: Characters that a cell of a CSV file may escape, all but those that it quotes; and what stands for one there.
_RAW = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\uffff\U00010000-\U0010ffff]")
_ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?%?")


def plain(text: str) -> str:
    r"""Escape what is not printable: ``ESC`` becomes ``\x1b``, a line feed ``\n``, a direction mark ``\u202e``."""
    return _BEYOND.sub(_shown, text)


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, which takes an s where there is not just one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def plain_lines(text: str) -> str:
    """Escape like :func:`plain`, line by line; only for text whose line feeds are our own."""
    return "\n".join(plain(line) for line in text.split("\n"))


def short_repr(record: Any) -> str:
    """Write a data class as its fields that differ from their defaults, on one line; long values are cut."""
    from dataclasses import MISSING, fields

    def given(one: Any, value: object) -> bool:
        default = one.default if one.default_factory is MISSING else one.default_factory()
        return default is MISSING or type(value) is not type(default) or bool(value != default)

    values = {one.name: value for one in fields(record) if one.repr and given(one, value := getattr(record, one.name))}
    for width in (70, 40, 20, 10):
        text = f"{type(record).__name__}({', '.join(f'{name}={_cut(value, width)}' for name, value in values.items())})"
        if len(text) <= _LONGEST:
            break
    return text


#: Letters of a name in a figure: a title of two lines at most.
_FIGURE_LETTERS = 120


def shortened(text: str, width: int = 70) -> str:
    """Cut text in the middle to about so many letters."""
    return text if len(text) <= width else f"{text[: width // 2]}\u2026{text[-(width // 2) :]}"


def _cut(value: object, width: int) -> str:
    """Write a value in about so many letters: the beginning and end of text, how many there are of other things."""
    if isinstance(value, Mapping):
        text, short = repr(dict(value)) if len(value) <= 4 else "", f"{{{len(value)} entries}}"
    elif isinstance(value, tuple | list | frozenset):
        text, short = repr(value) if len(value) <= 8 else "", f"({len(value)} in all)"
    else:
        text = repr(str(value)) if isinstance(value, Enum) else repr(value)
        short = shortened(text, width)
    return text if text and len(text) <= width else short


def html_text(text: str) -> str:
    """Escape for a page: markup, and what is not printable."""
    from html import escape

    return escape(plain(text))


def html_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write an HTML table of text; names cannot break it."""

    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


def safe_json(text: str) -> str:
    """Escape in JSON text, as JSON does, what a terminal might act upon; the value stays the same."""
    return _BEYOND.sub(_json_escape, text)


def figure_text(text: str) -> str:
    """Cut for a figure, and escape control characters and dollar signs, which matplotlib takes for formulas."""
    return plain(shortened(text, _FIGURE_LETTERS)).replace("$", "\\$")


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Point to names like one that is not known, on a scale from 0 to 1; empty where there is none."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), 3, likeness)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def csv_cell(value: object) -> object:
    r"""Keep a cell of a CSV file from starting a formula in a spreadsheet, or from acting on a terminal.

    Text that starts with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe before it, and so
    does text that has apostrophes before such a character; numbers stay as they are. Characters that are never shown as
    they are become escapes, but for those that a CSV file quotes: ``ESC`` is ``\x1b``. Only text with such a character,
    or with what looks like an escape, has its backslashes doubled. :func:`csv_text` takes all that back.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    shown = _RAW.sub(_shown, value)
    if shown != value or _ESCAPED.search(value):
        shown = _RAW.sub(_shown, value.replace("\\", "\\\\"))
    return "'" + shown if _FORMULA.match(shown) else shown


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """Write rows as CSV; no cell starts a formula, and None is an empty one."""
    import csv
    import io

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(
        [csv_cell(cell) if type(cell) is str else cell for cell in row] for row in rows
    )
    return stream.getvalue()


def csv_text(cell: str) -> str:
    """Return what :func:`csv_cell` was given."""
    guarded = cell.startswith("'") and _FORMULA.match(cell[1:]) and not _NUMBER.fullmatch(cell[1:])
    return _ESCAPED.sub(_meant, cell[1:] if guarded else cell)


def _meant(match: re.Match[str]) -> str:
    code = next((digits for digits in match.groups() if digits), None)
    return "\\" if code is None else chr(int(code, 16))


def _shown(match: re.Match[str]) -> str:
    character = match.group()
    if unicodedata.category(character) not in _HIDDEN:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in "\n\r\t" or unicodedata.category(character) not in _HIDDEN:
        return character  # whitespace between values; within strings JSON has escaped it
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
