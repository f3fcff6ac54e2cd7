"""Tables whose columns know their unit: Markdown for people, CSV and records for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cosma.text import csv_lines, plain
from cosma.units import format_size

#: What a column holds, which decides how Markdown shows it. CSV and records hold plain numbers: shares in
#: [0, 1], bytes, seconds.
KINDS = ("text", "count", "share", "bytes", "seconds", "number")


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table."""

    #: For file names and options, and for headings.
    name: str
    title: str
    #: Heading and kind (one of :data:`KINDS`) of each.
    columns: tuple[tuple[str, str], ...]
    #: Values, None where there is none.
    rows: tuple[tuple[Any, ...], ...]
    #: What the numbers mean.
    note: str = ""

    def to_markdown(self, level: int = 3) -> str:
        """Write as a Markdown section; numbers right-aligned, shares as per cent."""
        lines = [f"{'#' * level} {self.title}", ""]
        if not self.rows:
            return "\n".join([*lines, "None.", ""])
        lines.append("| " + " | ".join(heading for heading, _ in self.columns) + " |")
        lines.append("|" + "|".join(" --- " if kind == "text" else " ---: " for _, kind in self.columns) + "|")
        for row in self.rows:
            shown = (_shown(value, kind) for value, (_, kind) in zip(row, self.columns, strict=True))
            lines.append("| " + " | ".join(shown) + " |")
        if self.note:
            lines += ["", self.note]
        return "\n".join([*lines, ""])

    def to_csv(self) -> str:
        """Write as CSV with a header; None is an empty field."""
        return csv_lines([[heading for heading, _ in self.columns], *self.rows])

    def to_records(self) -> list[dict[str, Any]]:
        """Return the rows as records by heading."""
        headings = [heading for heading, _ in self.columns]
        return [dict(zip(headings, row, strict=True)) for row in self.rows]


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "bytes":
        return format_size(value)
    if kind == "seconds":
        return f"{value:.2f}" if value < 100 else f"{value:.0f}"
    if kind == "number":
        return f"{value:.2f}"
    return plain(str(value)).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
