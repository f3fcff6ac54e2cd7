"""A plan as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import re
from html import escape
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any

from cosma.errors import SolverUnavailableError
from cosma.plan.timeline import Origin, Stay, Timeline, timeline_of
from cosma.report.facts import (
    assumptions,
    certificate_sentence,
    cost_rows,
    status_of,
    summary_rows,
    warnings_of,
)
from cosma.report.style import CAPACITY, FILL, OCCUPANCY, TRAFFIC, WORDS, is_spilled, unit_for
from cosma.units import format_size
from cosma.validator import examine
from cosma.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.plan import Plan

#: Heights in pixels.
MAP_HEIGHT, PANEL_HEIGHT = 430, 170


def render_html(plan: Plan) -> str:
    """Draw a plan as a page; the same plan gives the same bytes with the same version of bokeh.

    Raises
    ------
    SolverUnavailableError
        If bokeh is not installed.
    PlanInvalidError
        If the plan speaks of tensors or operators that it does not have. Any other invalid plan is drawn as it is,
        under a warning.
    """
    try:
        json_item = _bokeh("embed").json_item
        resource_class = _bokeh("resources").Resources
    except ImportError as error:
        raise SolverUnavailableError("bokeh is not installed; install the extra `cosma[report]`") from error
    plan, report = examine(plan)
    timeline = timeline_of(plan)
    item = json_item(_figures(plan, timeline), "figures")
    scripts = resource_class(mode="inline", components=["bokeh"]).js_raw
    fields = {
        "TITLE": escape(plan.model_name),
        "BOKEH": "\n".join(f"<script>{_inside_script(script)}</script>" for script in scripts),
        "ITEM": _json(item),
        "PLACES": _json(_places(plan, timeline)),
        "SUMMARY": _table(summary_rows(plan), ("", "", ""), header=False),
        "CERTIFICATE": "<br>".join(map(escape, warnings_of(report) or [certificate_sentence(plan, report)])),
        "STATUS": status_of(plan, report),
        "ASSUMED": "".join(f"<li>{escape(row)}</li>" for row in assumptions(plan)),
        "COSTLIEST": _costliest(plan, timeline),
        "SCHEDULE": _schedule(timeline),
        "LEGEND": _legend(),
        "STEPS": f"{len(timeline.steps):,}",
        "STAYS": f"{len(timeline.stays):,}",
        "VERSION": __version__,
    }
    page = resources.files("cosma.report").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: fields[match.group(1)], page)


def _bokeh(module: str) -> Any:
    """A module of bokeh, whose own types know less than its documentation."""
    return import_module(f"bokeh.{module}")


def _inside_script(text: str) -> str:
    """Keep text from ending the script element it stands in."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _json(value: Any) -> str:
    """JSON that may stand in a script element, whatever names are in it."""
    import json

    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


# -- figures ----------------------------------------------------------------------------------------------


def _figures(plan: Plan, timeline: Timeline) -> Any:
    count = max(1, len(timeline.steps))
    x_range = _bokeh("models").Range1d(0, count, bounds=(-0.5, count + 0.5), min_interval=1, name="steps")
    figures = [
        _memory_map(plan, timeline, x_range),
        _occupancy(plan, timeline, x_range),
        _traffic(timeline, x_range),
    ]
    return _bokeh("layouts").column(*figures, sizing_mode="stretch_width", name="figures")


def _figure(title: str, label: str, x_range: Any, height: int, **options: Any) -> Any:
    drawn = _bokeh("plotting").figure(
        title=title,
        height=height,
        x_range=x_range,
        sizing_mode="stretch_width",
        tools="xpan,xwheel_zoom,box_zoom,reset,save",
        active_scroll="xwheel_zoom",
        active_drag="box_zoom",
        y_axis_label=label,
        min_border_left=75,
        **options,
    )
    drawn.toolbar.logo = None
    drawn.grid.grid_line_alpha = 0.4
    return drawn


def _memory_map(plan: Plan, timeline: Timeline, x_range: Any) -> Any:
    models = _bokeh("models")
    capacity = plan.accelerator.capacity_bytes
    factor, unit = unit_for(capacity)
    drawn = _figure(
        "Memory map: each rectangle is a tensor at its address; hatched ones leave while still needed",
        f"address ({unit})",
        x_range,
        MAP_HEIGHT,
        y_range=models.Range1d(0, capacity / factor, bounds=(0, plan.accelerator.scratchpad / factor)),
        name="map",
    )
    for origin in Origin:
        stays = [stay for stay in timeline.stays if stay.origin is origin and stay.space_bytes]
        if not stays:
            continue
        source = models.ColumnDataSource(_columns(plan, timeline, stays, factor), name=f"stays {origin}")
        glyph = drawn.quad(
            left="left",
            right="right",
            bottom="bottom",
            top="top",
            source=source,
            fill_color=FILL[origin],
            fill_alpha="alpha",
            line_color="#ffffff",
            line_width=0.5,
            line_alpha=0.4,
            hatch_pattern="hatch",
            hatch_color="#000000",
            hatch_alpha=0.55,
            hatch_scale=9,
            name=f"map {origin}",
        )
        glyph.nonselection_glyph = None
        drawn.add_tools(
            models.HoverTool(
                renderers=[glyph],
                tooltips=[
                    ("tensor", "@tensor"),
                    ("size", "@size"),
                    ("address", "@address"),
                    ("steps", "@steps"),
                    ("came", "@came"),
                    ("left", "@left_by"),
                    ("made by", "@producer"),
                    ("cost", "@cost"),
                ],
                visible=False,
            )
        )
    return drawn


def _columns(plan: Plan, timeline: Timeline, stays: Sequence[Stay], factor: int) -> dict[str, Any]:
    import numpy as np

    def came(stay: Stay) -> str:
        return f"in place of {stay.in_place_of}" if stay.in_place_of is not None else str(stay.origin)

    tensors = plan.graph.tensors
    return {
        "left": np.array([stay.start for stay in stays], dtype=np.int32),
        "right": np.array([stay.end for stay in stays], dtype=np.int32),
        "bottom": np.array([stay.address / factor for stay in stays], dtype=np.float64),
        "top": np.array([(stay.address + stay.space_bytes) / factor for stay in stays], dtype=np.float64),
        "alpha": np.full(len(stays), 0.85, dtype=np.float32),
        "hatch": ["/" if is_spilled(stay) else " " for stay in stays],
        "tensor": [stay.tensor for stay in stays],
        "size": [f"{tensors[s.tensor].size_bytes:,} B {tensors[s.tensor].kind}" for s in stays],
        "address": [f"[{stay.address:,}, {stay.address + stay.space_bytes:,})" for stay in stays],
        "steps": [f"[{stay.start}, {stay.end})" for stay in stays],
        "came": [came(stay) for stay in stays],
        "left_by": [str(stay.ending) for stay in stays],
        "producer": [plan.graph.producer(stay.tensor) or "-" for stay in stays],
        "cost": [_cost(timeline.cost, stay.tensor) for stay in stays],
    }


def _cost(cost: Mapping[str, int], name: str) -> str:
    return f"{format_size(cost[name])} beyond compulsory" if name in cost else "none beyond compulsory"


def _occupancy(plan: Plan, timeline: Timeline, x_range: Any) -> Any:
    import numpy as np
    models = _bokeh("models")
    capacity = plan.accelerator.capacity_bytes
    factor, unit = unit_for(capacity)
    drawn = _figure(
        f"Occupancy, against a capacity of {format_size(capacity)} (dashed)",
        f"occupied ({unit})",
        x_range,
        PANEL_HEIGHT,
        y_range=models.Range1d(0, 1.08 * capacity / factor),
        name="occupancy",
    )
    steps = timeline.steps
    source = models.ColumnDataSource(
        {
            "left": np.arange(len(steps), dtype=np.int32),
            "right": np.arange(1, len(steps) + 1, dtype=np.int32),
            "top": np.array([step.occupied_bytes / factor for step in steps], dtype=np.float64),
            "operator": [step.operator for step in steps],
            "type": [step.type for step in steps],
            "occupied": [f"{step.occupied_bytes:,} B" for step in steps],
        },
    )
    bars = drawn.quad(
        left="left", right="right", bottom=0, top="top", source=source, color=OCCUPANCY, alpha=0.7, line_alpha=0
    )
    drawn.add_tools(
        models.HoverTool(
            renderers=[bars],
            tooltips=[
                ("step", "@left"),
                ("operator", "@operator"),
                ("type", "@type"),
                ("occupied", "@occupied"),
            ],
            mode="vline",
            visible=False,
        )
    )
    line = {"line_color": CAPACITY, "line_dash": "dashed", "line_width": 1.5}
    drawn.add_layout(models.Span(location=capacity / factor, dimension="width", **line))
    return drawn


def _traffic(timeline: Timeline, x_range: Any) -> Any:
    import numpy as np
    models = _bokeh("models")
    steps = timeline.steps
    kinds = list(TRAFFIC)
    most = max((sum(getattr(step, kind) for kind in kinds) for step in steps), default=0)
    factor, unit = unit_for(most)
    drawn = _figure(
        "Traffic per step: compulsory, and what goes beyond it", f"bytes ({unit})", x_range, PANEL_HEIGHT + 40,
        name="traffic",
    )  # fmt: skip
    what: list[list[str]] = [[] for _ in steps]
    for transfer in timeline.transfers:
        if transfer.step < len(steps) and transfer.size_bytes:
            what[transfer.step].append(f"{transfer.kind} {transfer.tensor} ({format_size(transfer.size_bytes)})")
    data: dict[str, Any] = {
        "left": np.arange(len(steps), dtype=np.int32) + 0.08,
        "right": np.arange(len(steps), dtype=np.int32) + 0.92,
        "step": np.arange(len(steps), dtype=np.int32),
        "operator": [step.operator for step in steps],
        "moved": ["; ".join(row[:6]) + ("; ..." if len(row) > 6 else "") for row in what],
        "zero": np.zeros(len(steps)),
    }
    below = np.zeros(len(steps))
    for kind in kinds:
        amounts = np.array([getattr(step, kind) for step in steps], dtype=np.float64)
        below = below + amounts / factor
        data[kind] = below
        data[f"{kind}_text"] = [format_size(int(amount)) for amount in amounts]
    source = models.ColumnDataSource(data)
    bottom = "zero"
    bars = []
    for kind in kinds:
        bars.append(
            drawn.quad(
                left="left",
                right="right",
                bottom=bottom,
                top=kind,
                source=source,
                color=TRAFFIC[kind],
                line_alpha=0,
                legend_label=kind,
            )
        )
        bottom = kind
    drawn.xaxis.axis_label = "step"
    drawn.legend.orientation = "horizontal"
    drawn.legend.location = "top_right"
    drawn.legend.background_fill_alpha = 0.7
    drawn.legend.click_policy = "hide"
    drawn.add_tools(
        models.HoverTool(
            renderers=bars[:1],
            tooltips=[("step", "@step"), ("operator", "@operator")]
            + [(kind, f"@{kind}_text") for kind in kinds]
            + [("moved", "@moved")],
            mode="vline",
            visible=False,
        )
    )
    return drawn


# -- tables -----------------------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[str]], columns: Sequence[str], *, header: bool = True) -> str:
    head = "<tr>" + "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def _costliest(plan: Plan, timeline: Timeline) -> str:
    rows = cost_rows(plan, timeline)
    if not rows:
        return "<p>None: nothing is moved beyond the compulsory traffic.</p>"
    return _table(rows, ("tensor", "kind", "size", "non-compulsory", "share"))


def _schedule(timeline: Timeline) -> str:
    rows = [
        (
            str(i), step.operator, step.type, format_size(step.occupied_bytes),
            format_size(step.noncompulsory) if step.noncompulsory else "",
        )
        for i, step in enumerate(timeline.steps)
    ]  # fmt: skip
    return _table(rows, ("step", "operator", "type", "occupied", "non-compulsory"))


def _legend() -> str:
    rows = [
        f'<span><i style="background:{FILL[origin]}"></i><b>{origin}</b>: {escape(WORDS[origin])}</span>'
        for origin in Origin
    ]
    rows.append('<span><i class="hatched"></i><b>spilled</b>: leaves although it is read again later</span>')
    return "".join(rows)


def _places(plan: Plan, timeline: Timeline) -> dict[str, Any]:
    """Where the search finds things: each tensor's steps and address, each operator's step."""
    tensors: dict[str, list[float]] = {}
    factor, _ = unit_for(plan.accelerator.capacity_bytes)
    for stay in timeline.stays:
        low, high = stay.address / factor, (stay.address + stay.space_bytes) / factor
        row = tensors.setdefault(stay.tensor, [stay.start, stay.end, low, high])
        row[:] = [min(row[0], stay.start), max(row[1], stay.end), min(row[2], low), max(row[3], high)]
    for transfer in timeline.transfers:
        if transfer.kind.startswith("stream"):
            tensors.setdefault(transfer.tensor, [transfer.step, transfer.step + 1, 0, 0])
    return {"tensors": tensors, "operators": {step.operator: i for i, step in enumerate(timeline.steps)}}
