"""How commands print: tables for people, JSON for programs, messages on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table


def print_json(value: Any) -> None:
    """Print one JSON value, keys in the order given."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value).decode(), indent=2) + "\n")


def print_text(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print a message that is not part of the result."""
    sys.stderr.write(text + "\n")


def make_table(title: str | None, columns: Sequence[str], *, right: Iterable[int] = ()) -> Table:
    """Build a plain table; the columns listed in ``right`` are right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    aligned = set(right)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in aligned else "left", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table on stdout; without a terminal it is as wide as it needs to be and has no colour."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160, no_color=True)
    console.print(table)


def share(part: float, whole: float) -> str:
    """Write a share as per cent; a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
