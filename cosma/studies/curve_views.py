"""A traffic curve as CSV, as a figure and as text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cosma.report.figure import Format, load_matplotlib, save_figure, size_ticks
from cosma.report.style import BOUND, OCCUPANCY
from cosma.text import figure_text
from cosma.units import format_size, unit_for

if TYPE_CHECKING:

    from cosma.studies.curve import Curve


def curve_csv(curve: Curve) -> str:
    """Write a curve as CSV; sizes in bytes."""
    lines = ["capacity,noncompulsory,lower_bound,total,gap,knee"]
    for p in curve.points:
        gap = (p.noncompulsory_bytes - p.bound_bytes) / p.noncompulsory_bytes if p.noncompulsory_bytes else 0.0
        total = curve.compulsory_bytes + p.noncompulsory_bytes
        lines.append(
            f"{p.capacity_bytes},{p.noncompulsory_bytes},{p.bound_bytes},{total},{gap:.6f},{'yes' if p.knee else 'no'}"
        )
    return "\n".join(lines) + "\n"


def curve_figure(curve: Curve, kind: Format, *, dpi: int = 160) -> bytes:
    """Draw a curve: plans as steps, bounds as the lower edge of what is unknown, knees marked."""
    figure = load_matplotlib()(figsize=(8.0, 4.6), layout="constrained")
    axes: Any = figure.subplots()
    capacities = [p.capacity_bytes for p in curve.points]
    factor_x, _ = unit_for(capacities[-1])
    factor_y, unit_y = unit_for(max(p.noncompulsory_bytes for p in curve.points) or curve.compulsory_bytes)
    x = [c / factor_x for c in capacities]
    achieved = [p.noncompulsory_bytes / factor_y for p in curve.points]
    bound = [p.bound_bytes / factor_y for p in curve.points]
    axes.step(x, achieved, where="post", color=OCCUPANCY, label="plan", linewidth=1.8)
    axes.plot(x, achieved, "o", color=OCCUPANCY, markersize=3.5)
    # Between two capacities the bound of the larger one holds.
    axes.step(x, bound, where="pre", color=BOUND, label="lower bound", linewidth=1.4, linestyle="--")
    knees = [i for i, p in enumerate(curve.points) if p.knee]
    # A knee may lie on the axis, and its mark is drawn whole there.
    axes.plot(
        [x[i] for i in knees], [achieved[i] for i in knees], "D", color="#D55E00", markersize=7, label="knee",
        clip_on=False, zorder=4,
    )  # fmt: skip
    for i in knees:
        axes.annotate(
            format_size(capacities[i]), (x[i], achieved[i]), textcoords="offset points", xytext=(-7, 7), ha="right",
            fontsize=8, zorder=5, bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: format_size(round(value * factor_x)))
    size_ticks(axes.yaxis, max(achieved))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("scratchpad")
    axes.set_ylabel(f"non-compulsory traffic ({unit_y})")
    title = f"{figure_text(curve.model)}: compulsory {format_size(curve.compulsory_bytes)}"
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.legend()
    return save_figure(figure, kind, dpi)


def curve_text(curve: Curve, width: int = 60) -> str:
    """Draw a curve with letters: one line a capacity, ``|`` the bound, ``*`` the plan, ``<`` a knee."""
    most = max((p.noncompulsory_bytes for p in curve.points), default=0) or 1
    stream = io.StringIO()
    for p in curve.points:
        at = round(p.noncompulsory_bytes / most * (width - 1))
        low = round(p.bound_bytes / most * (width - 1))
        row = ["-" if low < i < at else " " for i in range(width)]
        row[low], row[at] = "|", "*"
        mark = f"  < knee, {format_size(p.noncompulsory_bytes)}" if p.knee else ""
        stream.write(f"{format_size(p.capacity_bytes):>12} {''.join(row)}{mark}\n")
    return stream.getvalue()
