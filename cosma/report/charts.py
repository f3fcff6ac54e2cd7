"""The figures of a page, as bokeh models without data: the page's script fills them from the page's data."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosma.report.style import CAPACITY, OCCUPANCY, TRAFFIC
from cosma.text import counted
from cosma.units import format_size, unit_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline

#: Heights in pixels.
MAP_HEIGHT, STREAM_HEIGHT, PANEL_HEIGHT = 430, 190, 170
#: One step in so many may be off the scale.
FEW = 50


def bokeh(module: str) -> Any:
    """A module of bokeh, whose own types know less than its documentation."""
    return import_module(f"bokeh.{module}")


def plan_figures(plan: Plan, timeline: Timeline, suffix: str = "", beside: Timeline | None = None) -> Any:
    """Lay out the figures of one plan.

    Parameters
    ----------
    suffix
        Tells the models of two plans on one page apart.
    beside
        Of the other of two plans: bytes are drawn on one scale.
    """
    both = (timeline,) if beside is None else (timeline, beside)
    count = max(1, len(timeline.steps))
    x_range = bokeh("models").Range1d(0, count, bounds=(-0.5, count + 0.5), min_interval=1, name=f"steps{suffix}")
    figures = []
    if plan.graph.is_tiled:
        figures.append(_lane(x_range, suffix))
    figures.append(_memory_map(plan, x_range, suffix))
    if any(transfer.kind.startswith("stream") and transfer.size_bytes for transfer in timeline.transfers):
        figures.append(_streams(both, x_range, suffix))
    figures += [_occupancy(plan, x_range, suffix), _traffic(both, x_range, suffix)]
    figures[-1].xaxis.axis_label = "step"
    return bokeh("layouts").column(*figures, sizing_mode="stretch_width", name=f"figures{suffix}")


def _figure(title: str, label: str, x_range: Any, height: int, name: str, **options: Any) -> Any:
    models = bokeh("models")
    drawn = bokeh("plotting").figure(
        title=title,
        height=height,
        x_range=x_range,
        sizing_mode="stretch_width",
        tools="xpan,xwheel_zoom,box_zoom,tap,reset,save",
        active_scroll="xwheel_zoom",
        active_drag="box_zoom",
        y_axis_label=label,
        min_border_left=64,
        name=name,
        **options,
    )
    drawn.toolbar.logo = None
    drawn.grid.grid_line_alpha = 0.4
    drawn.xaxis.ticker = models.AdaptiveTicker(base=10, mantissas=[1, 2, 5], min_interval=1, num_minor_ticks=0)
    # Sizes are counted in powers of two, and so are their ticks.
    drawn.yaxis.ticker = models.AdaptiveTicker(base=2, mantissas=[1], num_minor_ticks=0, desired_num_ticks=5)
    return drawn


def _source(name: str, columns: str) -> Any:
    return bokeh("models").ColumnDataSource({column: [] for column in columns.split()}, name=name)


def _hover(drawn: Any, glyphs: Sequence[Any], rows: Sequence[tuple[str, str]], mode: str = "mouse") -> None:
    models = bokeh("models")
    drawn.add_tools(models.HoverTool(renderers=list(glyphs), tooltips=list(rows), mode=mode, visible=False))


def _boxes(drawn: Any, source: Any, name: str, **style: Any) -> Any:
    glyph = drawn.quad(
        left="left", right="right", bottom="bottom", top="top", source=source, fill_color="fill", fill_alpha="alpha",
        line_color="#ffffff", line_width=0.5, line_alpha=0.5, name=name, **style,
    )  # fmt: skip
    glyph.nonselection_glyph = None
    return glyph


def _names(drawn: Any, name: str) -> None:
    drawn.text(
        x="x", y="y", text="text", angle="angle", text_color="ink", background_fill_color="fill",
        background_fill_alpha="backed", padding=3, border_radius=2, text_align="center", text_baseline="middle",
        text_font_size="11px", name=f"{name} glyph",
        source=_source(name, "x y text angle ink fill backed tensor alpha"),
    ).nonselection_glyph = None  # fmt: skip


def _lane(x_range: Any, suffix: str) -> Any:
    models = bokeh("models")
    drawn = _figure(
        "Tiles by operator, and fused groups above", "", x_range, 90,
        f"lane{suffix}", y_range=models.Range1d(0, 2),
    )  # fmt: skip
    drawn.yaxis.visible = False
    drawn.ygrid.visible = False
    tiles = _boxes(drawn, _source(f"tiles{suffix}", "left right bottom top fill alpha tensor type of"), "tile glyph")
    groups = _boxes(drawn, _source(f"groups{suffix}", "left right bottom top fill alpha tensor members"), "group glyph")
    _hover(drawn, [tiles], [("step", "@left"), ("tile", "@tensor"), ("operator", "@of (@type)")])
    _hover(drawn, [groups], [("fused", "@tensor"), ("operators", "@members")])
    _names(drawn, f"lane_names{suffix}")
    return drawn


def _memory_map(plan: Plan, x_range: Any, suffix: str) -> Any:
    models = bokeh("models")
    factor, unit = unit_for(plan.accelerator.capacity_bytes)
    drawn = _figure(
        "Memory map (hatched: leaves while still needed)",
        f"address ({unit})",
        x_range,
        MAP_HEIGHT,
        f"map{suffix}",
        y_range=models.Range1d(
            0, plan.accelerator.capacity_bytes / factor, bounds=(0, plan.accelerator.scratchpad / factor)
        ),
    )
    columns = "left right bottom top fill alpha tensor size address steps came left_by producer cost"
    glyph = _boxes(drawn, _source(f"stays{suffix}", columns), "stay glyph")
    # One pattern for all: a pattern of each box took two fifths of the time that a page of 5,000 stays loads.
    drawn.quad(
        left="left", right="right", bottom="bottom", top="top", fill_alpha=0, line_alpha=0, hatch_pattern="/",
        hatch_color="#000000", hatch_alpha=0.55, hatch_scale=9, name="spill glyph",
        source=_source(f"spills{suffix}", "left right bottom top"),
    ).nonselection_glyph = None  # fmt: skip
    rows = [
        ("tensor", "@tensor"), ("size", "@size"), ("address", "@address"), ("steps", "@steps"), ("came", "@came"),
        ("left", "@left_by"), ("made by", "@producer"), ("cost", "@cost"),
    ]  # fmt: skip
    _hover(drawn, [glyph], rows)
    _names(drawn, f"names{suffix}")
    return drawn


def _streamed(both: Sequence[Timeline], kind: str) -> list[int]:
    """Bytes of each step."""
    moved: Counter[tuple[int, int]] = Counter()
    for i, one in enumerate(both):
        for transfer in one.transfers:
            if transfer.kind == kind:
                moved[i, transfer.step] += transfer.size_bytes
    return list(moved.values())


def _reach(moved: Sequence[int]) -> tuple[int, str]:
    """How high to draw the bytes of steps, and a line of a title on those that are higher.

    A classifier at the end may read a hundred times as much as any other step, which nobody would see then.
    """
    found = sorted(filter(None, moved))
    most = found[-1] if found else 0
    usual = found[-1 - len(found) // FEW] if found else 0
    if most <= 4 * usual:
        return most, ""
    over = sum(one > 2 * usual for one in found)
    return 2 * usual, f"\n{counted(over, 'step')} off the scale, up to {format_size(most)}"


def _streams(both: Sequence[Timeline], x_range: Any, suffix: str) -> Any:
    """Tensors that pass the scratchpad by: read upwards, written downwards."""
    (up, over), (down, under) = (_reach(_streamed(both, kind)) for kind in ("stream in", "stream out"))
    factor, unit = unit_for(max(up, down))
    drawn = _figure(
        f"Streamed past the scratchpad (pale: compulsory){over or under}",
        f"written | read ({unit})",
        x_range,
        STREAM_HEIGHT,
        f"streams{suffix}",
        y_range=bokeh("models").Range1d(-1.05 * down / factor, 1.05 * up / factor),
        tags=[factor],
    )
    drawn.yaxis.formatter = bokeh("models").CustomJSTickFormatter(code="return String(Math.abs(tick))")
    columns = "left right bottom top fill alpha tensor size what operator"
    glyph = _boxes(drawn, _source(f"stream_boxes{suffix}", columns), "stream glyph")
    _hover(drawn, [glyph], [("tensor", "@tensor"), ("size", "@size"), ("", "@what"), ("operator", "@operator")])
    _names(drawn, f"stream_names{suffix}")
    return drawn


def _occupancy(plan: Plan, x_range: Any, suffix: str) -> Any:
    models = bokeh("models")
    capacity = plan.accelerator.capacity_bytes
    factor, unit = unit_for(capacity)
    drawn = _figure(
        f"Occupancy (dashed: capacity of {format_size(capacity)})",
        f"occupied ({unit})",
        x_range,
        PANEL_HEIGHT,
        f"occupancy{suffix}",
        y_range=models.Range1d(0, 1.08 * capacity / factor),
    )
    source = _source(f"occupied{suffix}", "left right top step operator type occupied")
    bars = drawn.quad(
        left="left", right="right", bottom=0, top="top", source=source, color=OCCUPANCY, alpha=0.7, line_alpha=0
    )
    bars.nonselection_glyph = None
    rows = [("step", "@step"), ("operator", "@operator"), ("type", "@type"), ("occupied", "@occupied")]
    _hover(drawn, [bars], rows, "vline")
    line = {"line_color": CAPACITY, "line_dash": "dashed", "line_width": 1.5}
    drawn.add_layout(models.Span(location=capacity / factor, dimension="width", name="capacity", **line))
    return drawn


def _traffic(both: Sequence[Timeline], x_range: Any, suffix: str) -> Any:
    kinds = list(TRAFFIC)
    most, over = _reach([sum(getattr(step, kind) for kind in kinds) for one in both for step in one.steps])
    factor, unit = unit_for(most)
    drawn = _figure(
        f"Traffic per step, beyond the compulsory in colour{over}",
        f"bytes ({unit})",
        x_range,
        PANEL_HEIGHT + 40,
        f"traffic{suffix}",
        y_range=bokeh("models").Range1d(0, 1.05 * max(1, most) / factor),
        tags=[factor],
    )
    source = _source(
        f"moved{suffix}", " ".join(("left right step operator moved zero", *kinds, *(f"{kind}_text" for kind in kinds)))
    )
    bottom, bars = "zero", []
    for kind in kinds:
        bar = drawn.quad(
            left="left", right="right", bottom=bottom, top=kind, source=source, color=TRAFFIC[kind], line_alpha=0,
            legend_label=kind,
        )  # fmt: skip
        bar.nonselection_glyph = None
        bars.append(bar)
        bottom = kind
    drawn.add_layout(drawn.legend[0], "below")
    drawn.legend.orientation = "horizontal"
    drawn.legend.click_policy = "hide"
    drawn.legend.padding = drawn.legend.margin = 2
    drawn.legend.border_line_alpha = 0
    rows = [("step", "@step"), ("operator", "@operator")]
    _hover(drawn, bars[:1], [*rows, *((kind, f"@{kind}_text") for kind in kinds), ("moved", "@moved")], "vline")
    return drawn
