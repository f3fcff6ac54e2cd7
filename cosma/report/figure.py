"""A plan as a still figure for papers: memory map, occupancy and traffic over the steps, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cosma.door as door
from cosma.figures import figure_bytes, new_figure
from cosma.plan.tiles import untiled_name
from cosma.plan.timeline import Ending, Origin, Timeline, timeline_of
from cosma.report.facts import warnings_of
from cosma.report.style import CAPACITY, FILL, OCCUPANCY, TRAFFIC, hues, is_spilled
from cosma.text import figure_text
from cosma.units import format_size, tick_step, unit_for
from cosma.validator import examine

if TYPE_CHECKING:
    from cosma.plan import Plan

#: Bars of traffic in a figure of ten inches: a bar is then a point wide, and thinner ones fade.
MOST_BARS = 650


def render_figure(plan: Plan, kind: str, *, width_inches: float = 10.0, dpi: int = 160) -> bytes:
    """Draw a plan as ``png``, ``svg`` or ``pdf``; the same plan gives the same bytes with the same matplotlib.

    Raises
    ------
    InputError
        If the kind is another one.
    SolverUnavailableError
        If matplotlib is not installed.
    """
    plan, report = examine(plan)
    width_inches = door.number(width_inches, "width_inches")
    figure = new_figure(width_inches, 0.72 * width_inches)
    timeline = timeline_of(plan)
    streams = any(t.kind.startswith("stream") and t.size_bytes for t in timeline.transfers)
    axes = figure.subplots(3 + streams, 1, sharex=True, height_ratios=(5, *((2,) if streams else ()), 2, 2))
    axes[0].set_xlim(0, max(1, len(timeline.steps)))
    axes[-1].xaxis.set_major_locator(_locator(len(timeline.steps)))
    _draw_map(axes[0], plan, timeline, 72 * width_inches)
    if streams:
        _draw_streams(axes[1], timeline)
    _draw_occupancy(axes[-2], plan, timeline)
    _draw_traffic(axes[-1], timeline)
    title = f"{figure_text(plan.model_name)}: {plan.accelerator.describe()}"
    axes[0].set_title(title, fontsize=9, loc="left", wrap=True)
    said = warnings_of(report, 1)
    if said:
        figure.suptitle("\n".join(map(figure_text, ("INVALID PLAN: its replay fails", *said[1:]))), color="#D55E00")
    axes[-1].set_xlabel("step")
    return figure_bytes(figure, kind, dpi)


def _locator(steps: int) -> Any:
    """Ticks at whole steps."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(min(10, max(1, steps)), integer=True)


def size_ticks(axis: Any, most: float, count: int = 8) -> None:
    """Put ticks at a power of two and its multiples, as sizes are counted; at most ``count`` of them above zero."""
    from matplotlib.ticker import MultipleLocator

    axis.set_major_locator(MultipleLocator(tick_step(most, count)))
    axis.set_major_formatter(lambda value, _: f"{abs(value):g}")


def _legend_above(axes: Any, **options: Any) -> None:
    """Write a legend on the upper edge, where it covers nothing."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, frameon=False, fontsize=7, handlelength=1.2,
        columnspacing=1.2, **options,
    )  # fmt: skip


def _brief(name: str) -> str:
    """Name of a part, of whose region only the axes that were cut say anything."""
    whole, _, axes = name.removesuffix("]").rpartition("[")
    return " ".join((whole, *(axis for axis in axes.split(", ") if axis != ":"))) if name.endswith("]") else name


def _draw_names(axes: Any, plan: Plan, timeline: Timeline, factor: int, width_points: float) -> None:
    """Write names into rectangles that have room for them, along or upright; sizes are of the letters drawn."""
    # Of letters of five points; where there is room they grow to nine.
    letter, line = 3.3, 6.0
    wide = 0.9 * width_points / max(1, len(timeline.steps))
    tall = 0.24 * width_points * factor / plan.accelerator.capacity_bytes
    for stay in timeline.stays:
        # The last step of what is taken over is drawn over by who takes it.
        end = stay.end - (stay.ending is Ending.TAKEN)
        width, height = (end - stay.start) * wide, stay.space_bytes / factor * tall
        name = figure_text(_brief(stay.tensor))
        room = len(name) * letter
        upright = width < room
        along, across = (height, width) if upright else (width, height)
        if along < room or across < line:
            continue
        at = (stay.start + end) / 2, (stay.address + stay.space_bytes / 2) / factor
        ink = "black" if stay.origin is Origin.LOADED else "white"
        points = min(9.0, 5 * along / room / 1.5, 5 * across / line / 1.5) if room else 5.0
        # A hatch would cross the letters.
        behind = {"facecolor": FILL[stay.origin], "edgecolor": "none", "pad": 0.8} if is_spilled(stay) else None
        axes.text(
            *at, name, rotation=90 * upright, ha="center", va="center", fontsize=max(5.0, points), color=ink,
            clip_on=True, bbox=behind,
        )  # fmt: skip


def _in_bins(moved: dict[str, Any]) -> tuple[dict[str, Any], Any, int]:
    """Sum bytes over so many steps that a bar is wide enough to be seen: the bars, their edges, and steps in each."""
    import numpy as np

    count = len(next(iter(moved.values())))
    width = max(1, -(-count // MOST_BARS))
    starts = np.arange(0, count, width)
    return {key: np.add.reduceat(one, starts) if count else one for key, one in moved.items()}, [*starts, count], width


def _draw_streams(axes: Any, timeline: Timeline) -> None:
    """Draw what passes the scratchpad by: read upwards, written downwards; pale what no plan does without."""
    import numpy as np

    moved = {key: np.zeros(len(timeline.steps)) for key in ("read", "read anew", "written", "written anew")}
    for t in timeline.transfers:
        if t.kind.startswith("stream") and t.step < len(timeline.steps):
            moved[("read" if t.kind == "stream in" else "written") + ("" if t.compulsory else " anew")][
                t.step
            ] += t.size_bytes
    moved, edges, _ = _in_bins(moved)
    up, down = moved["read"] + moved["read anew"], moved["written"] + moved["written anew"]
    factor, unit = unit_for(int(max(up.max(), down.max())))
    for sign, first, second in ((1, "read", "read anew"), (-1, "written", "written anew")):
        inner, outer = sign * moved[first] / factor, sign * (moved[first] + moved[second]) / factor
        axes.stairs(inner, edges, fill=True, color=TRAFFIC["streamed"], alpha=0.45, label="compulsory")
        axes.stairs(outer, edges, baseline=inner, fill=True, color=TRAFFIC["streamed"], label="beyond")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_ylabel(f"streamed ({unit})")
    axes.set_title("streamed past the scratchpad: read up, written down", fontsize=7, loc="left")
    size_ticks(axes.yaxis, float(up.max() + down.max()) / factor, 4)
    handles, labels = axes.get_legend_handles_labels()
    _legend_above(axes, handles=handles[:2], labels=labels[:2], ncols=2)


def _draw_map(axes: Any, plan: Plan, timeline: Timeline, width_points: float) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    colours = _tile_colours(plan, timeline)
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
            fill = [colours.get(s.tensor, FILL[origin]) for s in stays]
            collection = PolyCollection(boxes, facecolors=fill, edgecolors="white", linewidths=0.2)
            if spilled:
                collection.set_hatch("////")
                collection.set_edgecolor("black")
            axes.add_collection(collection)
        if not colours and any(s.origin is origin for s in timeline.stays):
            handles.append(Patch(facecolor=FILL[origin], label=str(origin)))
    if any(is_spilled(s) for s in timeline.stays):
        handles.append(Patch(facecolor="white", edgecolor="black", hatch="////", label="spilled"))
    axes.set_ylim(0, plan.accelerator.capacity_bytes / factor)
    axes.set_ylabel(f"address ({unit})")
    size_ticks(axes.yaxis, plan.accelerator.capacity_bytes / factor)
    _draw_names(axes, plan, timeline, factor, width_points)
    if colours:
        handles.insert(0, Patch(facecolor="white", label="a colour for each operator, of what it makes or reads first"))
    if handles:
        legend = {"loc": "upper left", "bbox_to_anchor": (0, 0), "frameon": False, "fontsize": 7, "handlelength": 1.2}
        axes.legend(handles=handles, ncols=len(handles), borderaxespad=0.2, columnspacing=1.2, **legend)


def _tile_colours(plan: Plan, timeline: Timeline) -> dict[str, str]:
    """Colours of tensors by the operator that makes or first reads them; empty where nothing is tiled."""
    if not plan.graph.is_tiled:
        return {}
    owners = {step.operator: untiled_name(plan.graph.operator(step.operator)) for step in timeline.steps}
    order = list(dict.fromkeys(owners.values()))
    colour = dict(zip(order, hues(len(order)), strict=True))
    found = {}
    for name, uses in timeline.uses.items():
        step = timeline.steps[uses[0]].operator if uses else None
        maker = plan.graph.producer(name) or step
        if maker in owners:
            found[name] = colour[owners[maker]]
    return found


def _draw_occupancy(axes: Any, plan: Plan, timeline: Timeline) -> None:
    capacity = plan.accelerator.capacity_bytes
    factor, unit = unit_for(capacity)
    heights = [step.occupied_bytes / factor for step in timeline.steps]
    axes.stairs(heights, range(len(heights) + 1), fill=True, color=OCCUPANCY, alpha=0.7)
    axes.axhline(capacity / factor, color=CAPACITY, linestyle="--", linewidth=1)
    axes.set_ylim(0, 1.12 * capacity / factor)
    axes.set_ylabel(f"occupied ({unit})")
    size_ticks(axes.yaxis, capacity / factor, 4)
    axes.set_title(f"dashed: capacity of {format_size(capacity)}", fontsize=7, loc="right")


def _draw_traffic(axes: Any, timeline: Timeline) -> None:
    import numpy as np

    steps = timeline.steps
    moved, edges, width = _in_bins({kind: np.array([getattr(s, kind) for s in steps], dtype=float) for kind in TRAFFIC})
    most = int(sum(moved.values()).max()) if steps else 0
    factor, unit = unit_for(most)
    below = np.zeros(len(edges) - 1)
    for kind, color in TRAFFIC.items():
        above = below + moved[kind] / factor
        axes.stairs(above, edges, baseline=below, fill=True, color=color, label=kind)
        below = above
    axes.set_ylabel(f"traffic ({unit})")
    if width > 1:
        axes.set_title(f"sums of {width} steps", fontsize=7, loc="left")
    size_ticks(axes.yaxis, most / factor, 4)
    _legend_above(axes, ncols=4)
