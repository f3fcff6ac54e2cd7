"""How commands print: tables for people, JSON for programs, messages on stderr.

Whatever names hold, no control character reaches a terminal: see :mod:`cosma.text`. Where an output of the command
goes to standard output (``-o -``), nothing else does: the rest is printed on stderr.
"""

from __future__ import annotations

import io
import sys
from typing import IO, TYPE_CHECKING, Any, Final

from cosma.text import plain, plain_lines, safe_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from cosma.cli.safe_table import SafeTable

#: Endings that files of one kind may have.
PLAN, CSV, HTML = (".json",), (".csv",), (".html", ".htm")
#: Endings that say in which form something is written; such a file needs one of them.
FIGURE: Final = (".png", ".svg", ".pdf")
HEADER: Final = (".h", ".hpp", ".hh", ".inc")
EXPORT: Final = (*HEADER, ".csv", ".bin", ".tflite")
#: Columns of tables that go to no terminal.
TABLE_COLUMNS = 160
_taken = False


def reset() -> None:
    """Take note that another command begins."""
    global _taken  # one standard output a process
    _taken = False


def claim_outputs(
    outputs: Mapping[str, tuple[Path | Sequence[Path] | None, Sequence[str]]],
    inputs: Sequence[Path | None] = (),
    *,
    json: bool = False,
) -> None:
    """Check a command's outputs before it does any work, and keep standard output for the one that goes there.

    Raises InputError if one cannot be written, has an unknown ending, would replace what is read, or two go to one
    place.

    Parameters
    ----------
    outputs
        By option: where it goes, once or more, if given, and the endings a file may have.
    inputs
        Files that the command reads, where given; not plans and placements that it may go on from.
    """
    global _taken  # one standard output a process
    from pathlib import Path

    from cosma.errors import InputError
    from cosma.files import check_output, is_standard_output

    given: list[tuple[str, Path]] = []
    for option, (paths, endings) in outputs.items():
        for path in [paths] if isinstance(paths, Path) else paths or ():
            check_output(path, option, endings)
            piped = endings == EXPORT and is_standard_output(path)
            if endings in (FIGURE, EXPORT) and path.suffix.lower() not in endings and not piped:
                raise InputError(f"{option} {path}: the ending says what to write; use {' or '.join(endings)}")
            given.append((option, path))
    standard = [option for option, path in given if is_standard_output(path)]
    if json and standard:
        standard.append("--json")
    if len(standard) > 1:
        raise InputError(f"{' and '.join(standard)} both go to standard output; give one of them a file")
    _taken = bool(standard) and not json
    places = [(option, path.resolve()) for option, path in given if not is_standard_output(path)]
    for i, (option, place) in enumerate(places):
        for other, same in places[:i]:
            if place == same and not (place.exists() and not place.is_file()):
                raise InputError(f"{other} and {option} both write {place}; give each a file of its own")
        if place.is_file() and place in {path.resolve() for path in inputs if path is not None}:
            raise InputError(f"{option} would replace {place}, which is read; give another file")


def deliver(path: Path, content: str | bytes, what: str) -> None:
    """Write a result and say so; where that fails, keep it elsewhere and say where.

    Raises InputError if it could not be written where it should go; the message says where it is now.
    """
    from cosma.errors import InputError
    from cosma.files import is_standard_output, write_atomic

    if isinstance(content, str) and is_standard_output(path) and sys.stdout.isatty():
        content = plain_lines(content)
    try:
        write_atomic(path, content)
    except InputError as error:
        raise InputError(f"{error}; {_rescue(path, content, what)}") from error
    if not is_standard_output(path):
        note(f"wrote {path}")


def deliver_figures(paths: Sequence[Path] | None, draw: Callable[[str], str | bytes]) -> None:
    """Draw a figure once for each file, in the form that its ending says."""
    for path in paths or ():
        deliver(path, draw(path.suffix.lower().removeprefix(".")), "the figure")


def _rescue(path: Path, content: str | bytes, what: str) -> str:
    import os
    import tempfile

    from cosma.files import write_atomic

    try:
        handle, name = tempfile.mkstemp(prefix="cosma-", suffix=path.suffix)
        os.close(handle)
        try:
            write_atomic(name, content)
        except Exception:  # whatever it is, no empty file stays
            os.unlink(name)
            raise
    except Exception as error:  # it is told beside the error that led here, which matters more
        return f"{what} is lost, as it could not be kept elsewhere either ({error})"
    return f"{what} is kept in {name}"


def _stream() -> IO[str]:
    return sys.stderr if _taken else sys.stdout


def print_json(value: Any) -> None:
    """Print one JSON value, keys in the order given."""
    sys.stdout.write(json_text(value))


def json_text(value: Any) -> str:
    """Write one JSON value, keys in the order given."""
    import msgspec

    return safe_json(msgspec.json.format(msgspec.json.encode(value).decode(), indent=2)) + "\n"


def print_text(text: str = "") -> None:
    """Print a line of the result; a line feed in it is shown, not printed."""
    _stream().write(plain(text) + "\n")


def print_lines(text: str) -> None:
    """Print lines of the result: text whose line feeds are our own."""
    _stream().write(plain_lines(text) + "\n")


def print_data(text: str) -> None:
    """Print text for programs, such as CSV; what a terminal would act upon is escaped on a terminal alone."""
    sys.stdout.write(plain_lines(text) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """Print a message that is not part of the result."""
    sys.stderr.write(plain(text) + "\n")


def make_table(title: str | None, columns: Sequence[str], *, right: Iterable[int] = ()) -> SafeTable:
    """Build a plain table; the columns listed in ``right`` are right-aligned."""
    from rich import box

    from cosma.cli.safe_table import SafeTable

    title = None if title is None else plain(title)
    table = SafeTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.show_header = any(columns)
    aligned = set(right)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in aligned else "left", overflow="fold")
    return table


def print_rows(
    title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (),
    most: int | None = None,
) -> None:  # fmt: skip
    """Print a table of rows; where there are more than ``most``, a last row says how many are left out."""
    table, found = make_table(title, columns, right=right), list(rows)
    for row in found[:most]:
        table.add_row(*row)
    if most is not None and len(found) > most:
        table.add_row(f"and {len(found) - most} more; --json lists all")
    print_table(table)


def print_table(table: SafeTable) -> None:
    """Print a table; without a terminal it is as wide as it needs to be and has no colour."""
    from rich.console import Console

    stream = _stream()
    # Drawn into a string: a console that finds its reader gone ends the process by itself, with exit code 1.
    drawn = io.StringIO()
    if stream.isatty():
        size = Console(file=stream).size
        console = Console(
            file=drawn, highlight=False, markup=False, emoji=False, width=size.width, force_terminal=True
        )
    else:
        console = Console(
            file=drawn, highlight=False, markup=False, emoji=False, width=_columns(), no_color=True,
            force_terminal=False,
        )  # fmt: skip
    for part in table.fitted(console.width):
        console.print(part)
    stream.write(drawn.getvalue())


def _columns() -> int:
    """Width without a terminal: what ``COLUMNS`` says, else wide enough for every table."""
    import os

    given = os.environ.get("COLUMNS", "")
    return max(20, int(given)) if given.isascii() and given.isdigit() and int(given) else TABLE_COLUMNS


def as_option(setting: str, value: str | int) -> str:
    """A field of the accelerator and its value, written as an option."""
    flag = f"--{setting.replace('_', '-')}"
    return flag if value is True else f"{flag} {value}"


def share(part: float, whole: float) -> str:
    """Write a share as per cent; a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
