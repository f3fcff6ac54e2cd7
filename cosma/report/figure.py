"""A plan as a still figure for papers: memory map, occupancy and traffic over the steps, with matplotlib."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Literal

from cosma.errors import SolverUnavailableError
from cosma.plan.timeline import Origin, Timeline, timeline_of
from cosma.report.facts import warnings_of
from cosma.report.style import CAPACITY, FILL, OCCUPANCY, TRAFFIC, is_spilled, unit_for
from cosma.text import figure_text
from cosma.units import format_size
from cosma.validator import examine

if TYPE_CHECKING:
    from cosma.plan import Plan

Format = Literal["png", "svg"]


def render_figure(plan: Plan, kind: Format, *, width_inches: float = 10.0, dpi: int = 160) -> bytes:
    """Draw a plan; the same plan gives the same bytes with the same version of matplotlib.

    Raises
    ------
    SolverUnavailableError
        If matplotlib is not installed.
    """
    figure_class = load_matplotlib()
    plan, report = examine(plan)
    timeline = timeline_of(plan)
    figure = figure_class(figsize=(width_inches, 0.72 * width_inches), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(5, 2, 2))
    _draw_map(axes[0], plan, timeline)
    _draw_occupancy(axes[1], plan, timeline)
    _draw_traffic(axes[2], timeline)
    axes[0].set_xlim(0, max(1, len(timeline.steps)))
    title = f"{figure_text(plan.model_name)}: {plan.accelerator.describe()}"
    axes[0].set_title(title, fontsize=9, loc="left", wrap=True)
    said = warnings_of(report, 1)
    if said:
        figure.suptitle("\n".join(map(figure_text, ("INVALID PLAN: its replay fails", *said[1:]))), color="#D55E00")
    axes[2].set_xlabel("step")
    return save_figure(figure, kind, dpi)


def load_matplotlib() -> Any:
    """Matplotlib's ``Figure``, without a display and without touching anyone's settings.

    Raises
    ------
    SolverUnavailableError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SolverUnavailableError("matplotlib is not installed; install the extra `cosma[report]`") from error
    return Figure


def save_figure(figure: Any, kind: Format, dpi: int = 160) -> bytes:
    """Bytes of a figure, free of dates and random identifiers."""
    import matplotlib

    stream = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "cosma", "svg.fonttype": "none"}), warnings.catch_warnings():
        # A name may hold characters that the font lacks; the figure shows a box for each.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format=kind, dpi=dpi, metadata=metadata)
    return stream.getvalue()


def _draw_map(axes: Any, plan: Plan, timeline: Timeline) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    factor, unit = unit_for(plan.accelerator.capacity_bytes)
    handles = []
    for origin in Origin:
        for spilled in (False, True):
            stays = [
                s for s in timeline.stays if s.origin is origin and is_spilled(s) is spilled and s.space_bytes
            ]
            if not stays:
                continue
            boxes = []
            for s in stays:
                low, high = s.address / factor, (s.address + s.space_bytes) / factor
                boxes.append([(s.start, low), (s.end, low), (s.end, high), (s.start, high)])
            collection = PolyCollection(boxes, facecolors=FILL[origin], edgecolors="white", linewidths=0.2)
            if spilled:
                collection.set_hatch("////")
                collection.set_edgecolor("black")
            axes.add_collection(collection)
        if any(s.origin is origin for s in timeline.stays):
            handles.append(Patch(facecolor=FILL[origin], label=str(origin)))
    if any(is_spilled(s) for s in timeline.stays):
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="////", label="spilled"))
    axes.set_ylim(0, plan.accelerator.capacity_bytes / factor)
    axes.set_ylabel(f"address ({unit})")
    axes.legend(handles=handles, loc="upper right", fontsize=7, ncols=max(1, len(handles)), framealpha=0.85)


def _draw_occupancy(axes: Any, plan: Plan, timeline: Timeline) -> None:
    capacity = plan.accelerator.capacity_bytes
    factor, unit = unit_for(capacity)
    heights = [step.occupied_bytes / factor for step in timeline.steps]
    axes.stairs(heights, range(len(heights) + 1), fill=True, color=OCCUPANCY, alpha=0.7)
    axes.axhline(capacity / factor, color=CAPACITY, linestyle="--", linewidth=1)
    axes.set_ylim(0, 1.12 * capacity / factor)
    axes.set_ylabel(f"occupied ({unit})")
    axes.annotate(f"capacity {format_size(capacity)}", (0, capacity / factor), fontsize=7, va="bottom")


def _draw_traffic(axes: Any, timeline: Timeline) -> None:
    import numpy as np

    steps = timeline.steps
    most = max((step.noncompulsory + step.compulsory for step in steps), default=0)
    factor, unit = unit_for(most)
    below = np.zeros(len(steps))
    for kind, color in TRAFFIC.items():
        above = below + np.array([getattr(step, kind) for step in steps], dtype=float) / factor
        axes.stairs(above, range(len(steps) + 1), baseline=below, fill=True, color=color, label=kind)
        below = above
    axes.set_ylabel(f"traffic ({unit})")
    axes.legend(fontsize=7, ncols=4, loc="upper right", framealpha=0.85)
