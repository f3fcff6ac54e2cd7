"""Graphs to plan for a request, on its own machine or on another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.compiler.tilings import tiling_choices

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.compiler.fusion import Choice
    from cosma.compiler.limits import TilingWork
    from cosma.compiler.request import Request


def choices_of(request: Request, accelerator: Accelerator, search: TilingWork | None = None) -> tuple[Choice, ...]:
    """Graphs to plan where all operators copy that do; see :func:`cosma.compiler.tilings.tiling_choices`."""
    return tiling_choices(
        request.source, request.graph, accelerator, request.tiling, [start.plan.graph for start in request.starts],
        parts=request.counts_effort, search=search, coarser=request.limits.trade_off > 0,
    )  # fmt: skip
