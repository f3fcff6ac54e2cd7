"""A table whose cells reach the terminal without control characters, and that stays legible in a narrow one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cosma.text import plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.style import StyleType

#: Words up to this many letters are never broken; names of tensors may be.
WORD = 14
#: What rich puts between two columns.
_BETWEEN = 3


class SafeTable(Table):
    """Rich's table; text in its rows is escaped by :func:`cosma.text.plain`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.records: list[tuple[str, ...]] = []

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        """Add a row of cells."""
        cells = [plain(cell) if isinstance(cell, str) else cell for cell in renderables]
        self.records.append(tuple(str(cell or "") for cell in cells))
        super().add_row(*cells, style=style, end_section=end_section)

    def fitted(self, width: int) -> list[RenderableType]:
        """What to print in so many columns: the table, or its rows one below the other where words would be broken."""
        headers = [str(column.header) for column in self.columns]
        least = self._least()
        # A title of its own: rich would break one that is wider than its table.
        title: list[RenderableType] = [] if self.title is None else [Text(str(self.title), style="bold")]
        self.title = None
        if not any(headers) or sum(least) + _BETWEEN * (len(least) - 1) + 2 <= width:
            for column, size in zip(self.columns, least, strict=True):
                column.min_width = size
            return [*title, self]
        found: list[RenderableType] = [*title, ""] if title else []
        for record in self.records:
            block = Table.grid(padding=(0, 2, 0, 0))
            block.add_column()
            block.add_column(overflow="fold")
            for header, cell in zip(headers[1:], record[1:], strict=False):
                if cell:
                    block.add_row(f"  {header}", cell)
            heading = f"{headers[0]}: {record[0]}" if headers[0] else record[0]
            found += [Text(heading, style="bold"), block]
        return [*found, ""]

    def _least(self) -> list[int]:
        """Columns of a terminal that break no word of ordinary length, nor a number from its unit."""
        found = []
        for i, column in enumerate(self.columns):
            cells = [record[i] for record in self.records if i < len(record)]
            words = cells if column.justify == "right" else " ".join(cells).split()
            found.append(max((min(WORD, len(word)) for word in (*str(column.header).split(), *words)), default=0))
        return found
