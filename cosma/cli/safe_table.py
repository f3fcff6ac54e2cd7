"""A table whose cells reach the terminal without control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from cosma.text import plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.style import StyleType


class SafeTable(Table):
    """Rich's table; text in its rows is escaped by :func:`cosma.text.plain`."""

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        """Add a row of cells."""
        cells = (plain(cell) if isinstance(cell, str) else cell for cell in renderables)
        super().add_row(*cells, style=style, end_section=end_section)
