"""The figures of a sweep: PNG and SVG, the same bytes for the same rows and the same matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from cosma.errors import SolverUnavailableError
from cosma.experiments.row import Row
from cosma.experiments.summary import (
    BEST,
    EXISTING,
    front,
    gap_profile,
    grids_of,
    labels_of,
    pair,
    performance_profile,
    time_profile,
)
from cosma.figures import figure_bytes, new_figure
from cosma.files import make_folder, write_atomic
from cosma.text import figure_text
from cosma.units import unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Most models one figure of fronts shows: those with most to gain.
MAX_FRONTS = 12
_STYLE: Any = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
#: Colours that stay apart for colour-blind readers (Okabe and Ito), ours first.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")


def make_figures(
    rows: Sequence[Row],
    folder: Path | str,
    *,
    names: Sequence[str] = (),
    formats: Sequence[str] = ("png", "svg"),
    strategies: Sequence[str] = (),
) -> list[Path]:
    """Draw figures of a sweep and write them into a folder, which is made where it does not exist.

    Raises SolverUnavailableError if matplotlib is not installed. Raises InputError if a strategy is not among the rows,
    or the folder cannot be written.

    Parameters
    ----------
    folder
        Where ``NAME.FORMAT`` goes.
    names
        Keys of :data:`FIGURES`; all by default.
    formats
        Some of ``png``, ``svg`` and ``pdf``.
    strategies
        Labels to report on; by default all that are no existing method.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise SolverUnavailableError("figures need matplotlib: pip install 'cosma[report]'") from error
    labels = labels_of(rows, strategies)
    make_folder(folder, "figures")
    written = []
    with matplotlib.rc_context(_STYLE):
        for name in names or FIGURES:
            for kind in formats:
                path = Path(folder) / f"{name}.{kind}"
                # Drawn anew for each: rendering moves things, and what came before must not show.
                write_atomic(path, figure_bytes(FIGURES[name](rows, labels), kind, 150))
                written.append(path)
    return written


def draw_reductions(rows: Sequence[Row], labels: Sequence[str]) -> Figure:
    """Mean reduction against the best existing method and against e1, by model, a panel per grid."""
    grids = grids_of(rows)
    models = sorted({row.model for row in rows})
    figure: Figure = new_figure(max(5.0, 0.16 * len(models) + 1.5), 3.2 * len(grids))
    pairings = pair(rows, labels[0])
    for axes, grid in zip(_panels(figure, len(grids), 1), grids, strict=True):
        compared: set[int] = set()
        for versus, colour, width in (("e1", _COLOURS[4], 0.8), (BEST, _COLOURS[0], 0.4)):
            means: dict[str, list[float]] = {}
            for p in pairings:
                value = p.reduction(versus)
                if p.ours.grid == grid and value is not None:
                    means.setdefault(p.ours.model, []).append(100 * value)
            places = [i for i, model in enumerate(models) if model in means]
            heights = [fmean(means[models[i]]) for i in places]
            said = "order as given, LRU" if versus == "e1" else "best existing method"
            axes.bar(places, heights, width=width, color=colour, label=f"against {said}")
            compared.update(places)
        for i in sorted(set(range(len(models))) - compared):
            axes.text(i, 1, "not compared", rotation=90, fontsize=5, ha="center", va="bottom", color="0.4")
        names = [figure_text(model) for model in models]
        axes.set_xticks(range(len(models)), names, rotation=90 if len(models) > 3 else 0, fontsize=6)
        axes.set_xlim(-0.8, len(models) - 0.2)
        axes.set_ylabel("non-compulsory traffic\nsaved on average, %")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.0), max(high, 1.0))
        # In a line of its own, above the legend.
        axes.set_title(figure_text(f"grid {grid}, {labels[0]}"), loc="left", wrap=True, pad=18)
        # Above the bars: they reach the top of the axes in most models.
        axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, ncols=2, frameon=False)
    return figure


def draw_gaps(rows: Sequence[Row], labels: Sequence[str]) -> Figure:
    """Share of cells proven to within a gap, a line per grid and strategy."""
    gaps = [i / 200 for i in range(201)]
    figure: Figure = new_figure(5, 3.4)
    axes = _panels(figure, 1, 1)[0]
    for series, own in _series(rows, labels):
        axes.step([100 * gap for gap in gaps], gap_profile(own, gaps), where="post", **series)
    _finish(figure, axes, "proven gap at most, %", "share of cells", "Gap profile")
    return figure


def draw_times(rows: Sequence[Row], labels: Sequence[str]) -> Figure:
    """Share of cells proven optimal within a time, a line per grid and strategy."""
    seconds = [10 ** (i / 20) for i in range(-40, 57)]
    figure: Figure = new_figure(5, 3.4)
    axes = _panels(figure, 1, 1)[0]
    for series, own in _series(rows, labels):
        axes.step(seconds, time_profile(own, seconds), where="post", **series)
    _log_axis(axes)
    _finish(figure, axes, "wall-clock seconds", "share of cells proven optimal", "Time profile")
    return figure


def draw_performance(rows: Sequence[Row], labels: Sequence[str]) -> Figure:
    """Share of instances on which each method is within a ratio of the best method's traffic."""
    from cosma.compiler.strategies import STRATEGIES

    ratios = [10 ** (i / 50) for i in range(101)]
    present = list(dict.fromkeys(label for label in (*labels, *EXISTING) if any(r.label == label for r in rows)))
    figure: Figure = new_figure(5, 3.4)
    axes = _panels(figure, 1, 1)[0]
    for i, (label, shares) in enumerate(performance_profile(rows, present, ratios).items()):
        said = f"{label}: {STRATEGIES[label].summary}" if label in EXISTING else label
        axes.step(ratios, shares, where="post", label=figure_text(said), color=_COLOURS[i % len(_COLOURS)])
    _log_axis(axes)
    _finish(figure, axes, "non-compulsory traffic over the best method's", "share of instances", "Performance profile")
    return figure


def _log_axis(axes: Axes) -> None:
    """Spread the axis logarithmically, with ticks as plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def draw_fronts(rows: Sequence[Row], labels: Sequence[str]) -> Figure:
    """Non-compulsory traffic against scratchpad: ours, our bound, the best existing method, a panel per model.

    Lines are steps: a plan serves every larger scratchpad, and a bound holds for every smaller one.
    """
    grid = max(grids_of(rows), key=lambda g: len({row.scratchpad for row in rows if row.grid == g}))
    pairings = [p for p in pair(rows, labels[0]) if p.ours.grid == grid and p.ours.planned]
    saved: dict[str, int] = {}
    for p in pairings:
        saved[p.ours.model] = saved.get(p.ours.model, 0) + p.theirs.get(BEST, 0) - (p.ours.noncompulsory or 0)
    models = sorted(sorted(saved, key=lambda model: (-saved[model], model))[:MAX_FRONTS])
    columns = min(4, max(1, len(models)))
    lines = max(1, -(-len(models) // columns))
    figure: Figure = new_figure(3 * columns, 2.3 * lines)
    panels = _panels(figure, lines, columns)
    # Ticks are whole numbers where sizes are: the least of them decides on the unit.
    shown = [p for p in pairings if p.ours.model in models]
    size = unit_for(min((p.ours.scratchpad or 0 for p in shown), default=0))
    moved = unit_for(max((max(p.theirs.get(BEST, 0), p.ours.noncompulsory or 0) for p in shown), default=0))
    for axes, model in zip(panels, models, strict=False):
        own = sorted((p for p in pairings if p.ours.model == model), key=lambda p: p.ours.scratchpad or 0)
        theirs = [p for p in own if BEST in p.theirs]
        units, existing = (size[0], moved[0]), [p.theirs[BEST] for p in theirs]
        _line(axes, [p.ours for p in theirs], existing, units, "best existing", _COLOURS[1], "s")
        best = front([p.ours for p in own])
        _line(axes, best, [row.noncompulsory or 0 for row in best], units, labels[0], _COLOURS[0], "o")
        bounds = [p.ours for p in own]
        held = list(accumulate((row.lower_bound or 0 for row in reversed(bounds)), max))[::-1]
        _line(axes, bounds, held, units, "lower bound", _COLOURS[2], "_", "steps-pre")
        axes.set_title(figure_text(model), fontsize=7)
        ticks = sorted({(p.ours.scratchpad or 0) / size[0] for p in own})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:.0f}" if tick >= 100 else f"{tick:.3g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=6)
    for axes in panels[len(models) :]:
        axes.set_axis_off()
    if models:
        panels[0].legend(fontsize=6)
        figure.supxlabel(f"scratchpad, {size[1]}", fontsize=8)
        figure.supylabel(f"non-compulsory traffic, {moved[1]}", fontsize=8)
    figure.suptitle(f"grid {figure_text(grid)}", fontsize=9, wrap=True)
    return figure


#: Every figure by name.
FIGURES: Final[dict[str, Callable[[Sequence[Row], Sequence[str]], Any]]] = {
    "reductions": draw_reductions,
    "gaps": draw_gaps,
    "times": draw_times,
    "performance": draw_performance,
    "fronts": draw_fronts,
}


def _series(rows: Sequence[Row], labels: Sequence[str]) -> list[tuple[dict[str, Any], list[Row]]]:
    """A line per grid (colour) and strategy (dash), with its rows."""
    series = []
    for i, grid in enumerate(grids_of(rows)):
        for j, label in enumerate(labels):
            own = [row for row in rows if row.grid == grid and row.label == label]
            if own:
                style = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": ("-", "--", ":", "-.")[j % 4]}
                series.append(({**style, "label": figure_text(f"grid {grid}, {label}")}, own))
    return series


def _line(
    axes: Axes, rows: Sequence[Row], values: Sequence[int], units: tuple[int, int], label: str, colour: str,
    marker: str, steps: str = "steps-post",
) -> None:  # fmt: skip
    places = [(row.scratchpad or 0) / units[0] for row in rows]
    heights = [value / units[1] for value in values]
    axes.plot(
        places, heights, label=figure_text(label), color=colour, marker=marker, markersize=3, linewidth=1,
        drawstyle=steps,
    )  # fmt: skip


def _finish(figure: Figure, axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(0, 1.02)
    axes.set_title(figure_text(title), wrap=True)
    if axes.get_legend_handles_labels()[0]:
        # Below, where it covers no line.
        figure.legend(loc="outside lower center", ncols=2, fontsize=7)


def _panels(figure: Figure, lines: int, columns: int) -> list[Axes]:
    return list(figure.subplots(lines, columns, squeeze=False).flat)
