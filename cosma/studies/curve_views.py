"""A traffic curve as CSV, as a figure and as text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cosma import door
from cosma.errors import InputError
from cosma.figures import figure_bytes, new_figure
from cosma.report.figure import size_ticks
from cosma.report.style import BOUND, OCCUPANCY
from cosma.text import csv_lines, figure_text
from cosma.units import format_size, unit_for

if TYPE_CHECKING:
    from cosma.studies.points import Curve, CurvePoint


def curve_csv(curve: Curve) -> str:
    """Write a curve as CSV; sizes in bytes. With a tiling, both are in it: plans of tiles and of whole operators."""
    records = curve.to_records()
    shown = ({**row, "gap": f"{row['gap']:.6f}", "knee": "yes" if row["knee"] else "no"} for row in records)
    return csv_lines([records[0] if records else (), *(row.values() for row in shown)])


def render_curve(curve: Curve, kind: str, *, dpi: int = 160) -> bytes:
    """Draw a curve as ``png``, ``svg`` or ``pdf``: plans as steps, bounds below them, knees marked.

    Raises
    ------
    InputError
        If the kind is another one, or the curve has no points.
    SolverUnavailableError
        If matplotlib is not installed.
    """
    from cosma.studies.points import Curve, corners

    door.instance(curve, Curve, "curve")
    if not curve.points:
        raise InputError("curve: there are no points to draw")
    figure = new_figure(8.0, 4.6)
    axes: Any = figure.subplots()
    tiled = curve.tiling != "none"
    capacities = [p.capacity_bytes for p in curve.points]
    factor_x, _ = unit_for(capacities[-1])
    most = max((value for p in curve.points for value in (p.noncompulsory_bytes, _whole(p) or 0)), default=0)
    factor_y, unit_y = unit_for(most or curve.compulsory_bytes)
    x = [c / factor_x for c in capacities]
    achieved = [p.noncompulsory_bytes / factor_y for p in curve.points]
    bound = [p.bound_bytes / factor_y for p in curve.points]
    if tiled:
        _draw_whole(axes, curve.points, factor_x, factor_y)
    steps = ([c / factor_x for c in corners(curve.points)] + x[-1:], achieved + achieved[-1:])
    axes.step(*steps, where="post", color=OCCUPANCY, label="plan of tiles" if tiled else "plan", linewidth=1.8)
    axes.plot(x, achieved, "o", color=OCCUPANCY, markersize=3.5)
    if tiled:
        of_tiles = [p.tiles.bound_bytes / factor_y if p.tiles is not None else 0.0 for p in curve.points]
        axes.plot(x, of_tiles, "_", color=OCCUPANCY, markersize=9, label="lower bound for these tiles")
    # Between two capacities the bound of the larger one holds.
    word = "lower bound for any tiling" if tiled else "lower bound"
    axes.step(x, bound, where="pre", color=BOUND, label=word, linewidth=1.4, linestyle="--")
    _mark_knees(axes, curve.points, factor_x, factor_y)
    if tiled and curve.once_bytes is not None:
        axes.axvline(curve.once_bytes / factor_x, color=OCCUPANCY, linewidth=0.8, linestyle=":",
                     label=f"nothing twice from {format_size(curve.once_bytes)}")  # fmt: skip
    axes.set_xscale("log", base=2)
    if capacities[-1] < 8 * capacities[0]:
        from matplotlib.ticker import LogLocator

        # Powers of two alone would leave one or two ticks.
        axes.xaxis.set_major_locator(LogLocator(2, subs=(1, 1.5)))
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value * factor_x))
    size_ticks(axes.yaxis, most / factor_y)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("scratchpad")
    axes.set_ylabel(f"non-compulsory traffic ({unit_y})")
    title = f"{figure_text(curve.model)}: compulsory {format_size(curve.compulsory_bytes)}"
    axes.set_title(title, fontsize=10, loc="left", wrap=True)
    axes.grid(alpha=0.3)
    # Below, where it covers no line.
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure_bytes(figure, kind, dpi)


def _tick(size_bytes: float) -> str:
    """Write a power of two in the largest unit in which it is a whole number."""
    factor, unit = unit_for(4 * round(size_bytes))
    return f"{size_bytes / factor:g} {unit}"


def _draw_whole(axes: Any, points: tuple[CurvePoint, ...], factor_x: int, factor_y: int) -> None:
    known = [(p.capacity_bytes / factor_x, p.whole) for p in points if _whole(p) is not None]
    x = [at for at, _ in known]
    achieved = [(whole.noncompulsory_bytes or 0) / factor_y for _, whole in known if whole is not None]
    bound = [whole.bound_bytes / factor_y for _, whole in known if whole is not None]
    grey = "#777777"
    axes.step(x, achieved, where="post", color=grey, label="plan of whole operators", linewidth=1.4)
    axes.plot(x, achieved, "s", color=grey, markersize=3)
    axes.step(x, bound, where="pre", color=grey, label="lower bound for whole operators", linewidth=1, linestyle="--")


def _mark_knees(axes: Any, points: tuple[CurvePoint, ...], factor_x: int, factor_y: int) -> None:
    from cosma.studies.points import suffices

    knees = [p for p in points if p.knee]
    at = [(suffices(p) / factor_x, p.noncompulsory_bytes / factor_y) for p in knees]
    # A knee may lie on the axis, and its mark is drawn whole there.
    axes.plot(
        [x for x, _ in at], [y for _, y in at], "D", color="#D55E00", markersize=7, label="knee", clip_on=False,
        zorder=6,
    )  # fmt: skip
    for point, place in zip(knees, at, strict=True):
        # A curve falls, so that above and right of a point it is not; near the right end there is no room.
        last = 2 * suffices(point) > points[-1].capacity_bytes
        axes.annotate(
            format_size(suffices(point)), place, textcoords="offset points", xytext=(-7 if last else 7, 5),
            ha="right" if last else "left", fontsize=8, zorder=5,
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
        )  # fmt: skip


def curve_text(curve: Curve) -> str:
    """Draw a curve with letters: one line a capacity.

    ``|`` is the bound, ``*`` the plan, ``<`` a knee; with a tiling, ``o`` is the plan of whole operators.
    """
    width = 60
    most = max((value for p in curve.points for value in (p.noncompulsory_bytes, _whole(p) or 0)), default=0) or 1
    stream = io.StringIO()
    for p in curve.points:
        at = round(p.noncompulsory_bytes / most * (width - 1))
        low = round(p.bound_bytes / most * (width - 1))
        low = min(low, width - 1)
        row = ["-" if low < i < at else " " for i in range(width)]
        whole = _whole(p)
        if whole is not None:
            row[round(whole / most * (width - 1))] = "o"
        row[low], row[at] = "|", "*"
        mark = f"  < {knee_text(p)}: {format_size(p.noncompulsory_bytes)}" if p.knee else ""
        stream.write(f"{format_size(p.capacity_bytes):>12} {''.join(row)}{mark}\n")
    return stream.getvalue()


def knee_text(point: CurvePoint) -> str:
    """Say from which capacity on a knee's traffic is possible; empty where it is no knee."""
    from cosma.studies.points import suffices

    return f"knee from {format_size(suffices(point))}" if point.knee else ""


def _whole(point: CurvePoint) -> int | None:
    return None if point.whole is None else point.whole.noncompulsory_bytes
