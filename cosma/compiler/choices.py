"""Graphs to plan for a request, on its own machine or on another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.compiler.uncut import uncut_choices
from cosma.errors import InfeasibleError

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.compiler.fusion import Choice
    from cosma.compiler.limits import TilingWork
    from cosma.compiler.request import Request


def choices_of(request: Request, accelerator: Accelerator, search: TilingWork | None = None) -> tuple[Choice, ...]:
    """Graphs to plan where all operators copy that do; see :func:`cosma.compiler.tilings.tiling_choices`."""
    source, graph = request.source, request.graph
    starts = [start.plan.graph for start in request.starts]
    if request.tiling is None or request.tiling == "none":
        try:
            return uncut_choices(source, graph, accelerator, starts, parts=request.counts_effort)
        except InfeasibleError as error:
            from cosma.compiler.tilings import tiling_remedies

            error.remedies += tiling_remedies(source, graph, accelerator)
            raise
    # With numba they take almost half of the time that a compile needs for imports.
    from cosma.compiler.tilings import tiling_choices

    return tiling_choices(
        source, graph, accelerator, request.tiling, starts,
        parts=request.counts_effort, search=search, coarser=request.limits.trade_off > 0,
    )  # fmt: skip
