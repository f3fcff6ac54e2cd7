"""A little more traffic for fewer transfers, where that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cosma.rewrite.tiling import Cuts, Tiling, tiling_of_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.compiler.fusion import Choice
    from cosma.compiler.run import CompileRun

#: Coarser tilings tried, each with half as many tiles along each axis as the one before; not measured.
STEPS = 2


def traded_off(
    states: Sequence[CompileRun], best: CompileRun, share: float
) -> tuple[CompileRun, dict[str, Any]]:
    """Take the plan with the fewest transfers among those that move at most a share more than the best.

    Returns the run whose best plan it is then, and the trade-off as plan files say it; empty without one.
    """
    if not share:
        return best, {}
    assert best.best_report is not None
    least, transfers = best.best_report.traffic.total, best.best_report.transfers
    allowed = [
        (plan.padding_bytes, plan.report.transfers, plan.total_bytes, i, k)
        for i, state in enumerate(states)
        for k, plan in enumerate(state.front)
        if plan.total_bytes <= least * (1 + share)
    ]
    chosen = best
    if allowed:
        *_, i, k = min(allowed)
        chosen = states[i]
        chosen.take(chosen.front[k])
    return chosen, {"trade_off": share, "least_traffic": least, "transfers_of_least": transfers}


def coarser_choices(cut: Choice, again: Callable[[Tiling], Choice | None]) -> list[Choice]:
    """Give the tilings with half and a quarter as many tiles along each axis, as far as they fit.

    ``again`` cuts the same network by another tiling; None where that does not fit.
    """
    found: list[Choice] = []
    tiling = tiling_of_tiles(cut.graph)
    for _ in range(STEPS):
        tiling = Tiling(
            {name: tuple(_halved(axis) for axis in axes) for name, axes in tiling.cuts.items()},
            sums={name: _halved(positions) for name, positions in tiling.sums.items()},
        )
        if not tiling.operators:
            break
        choice = again(tiling)
        if choice is None:
            break
        found.append(replace(choice, name="coarser"))
    return found


def _halved(positions: Cuts) -> Cuts:
    """Every second position."""
    return positions[1::2]
