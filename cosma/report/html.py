"""A plan as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import re
import zlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from cosma.errors import SolverUnavailableError
from cosma.plan.tiles import fused_groups
from cosma.plan.timeline import Origin, Timeline, timeline_of
from cosma.report.charts import bokeh, plan_figures
from cosma.report.facts import (
    assumptions,
    certificate_sentence,
    cost_rows,
    costliest,
    status_of,
    summary_rows,
    warnings_of,
)
from cosma.report.page_data import page_data
from cosma.report.style import FILL, TRAFFIC, WORDS
from cosma.text import counted, html_text
from cosma.units import format_size
from cosma.validator import examine
from cosma.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.plan import Plan
    from cosma.plan.costs import Estimate
    from cosma.report.facts import ExistingPlan


def render_html(
    plan: Plan,
    *,
    compare: Plan | None = None,
    existing: Sequence[ExistingPlan] = (),
    estimate: Estimate | None = None,
    compare_estimate: Estimate | None = None,
) -> str:
    """Draw a plan as a page; the same plan gives the same bytes with the same version of bokeh.

    Parameters
    ----------
    plan
        What is drawn.
    compare
        Another plan of the same network, drawn beside it.
    existing
        What the existing methods make of the same graph, for a table.
    estimate, compare_estimate
        Of the time of the two, for a time axis.

    Raises
    ------
    SolverUnavailableError
        If bokeh is not installed.
    PlanInvalidError
        If the plan speaks of tensors or operators that it does not have. Any other invalid plan is drawn as it is,
        under a warning.
    InputError
        If the two plans have no operator in common.
    """
    try:
        json_item = bokeh("embed").json_item
        resource_class = bokeh("resources").Resources
    except ImportError as error:
        raise SolverUnavailableError("bokeh is not installed; install the extra `cosma[report]`") from error
    plan, report = examine(plan)
    timeline = timeline_of(plan)
    compare = None if compare is None else examine(compare)[0]
    after = None if compare is None else timeline_of(compare)
    figures = plan_figures(plan, timeline, beside=after)
    views = [{"item": json_item(figures, "figures"), "data": page_data(plan, timeline, estimate)}]
    if compare is not None and after is not None:
        figures = plan_figures(compare, after, "_b", timeline)
        views.append({"item": json_item(figures, "figures_b"), "data": page_data(compare, after, compare_estimate)})
    scripts = resource_class(mode="inline", components=["bokeh"]).js_raw
    fields = {
        "TITLE": html_text(plan.model_name),
        "BOKEH": "\n".join(f"<script>{_inside_script(script)}</script>" for script in scripts),
        "STYLE": _resource("page.css"),
        "SCRIPT": _inside_script(_resource("graph.js") + _resource("page.js")),
        "VIEWS": _packed(views),
        "FILLS": _json({str(origin): colour for origin, colour in FILL.items()}),
        "TRAFFICS": _json(TRAFFIC),
        "SUMMARY": _table(summary_rows(plan), ("", "", ""), header=False),
        "CERTIFICATE": "<br>".join(map(html_text, warnings_of(report) or [certificate_sentence(plan, report)])),
        "STATUS": status_of(plan, report),
        "STREAMED": _streamed(plan),
        "ASSUMED": "".join(f"<li>{html_text(row)}</li>" for row in assumptions(plan)),
        "EXISTING": _existing(plan, existing),
        "COMPARED": "" if compare is None else _compared(plan, compare),
        "FIRST": "" if compare is None else "<h3>This plan</h3>",
        "SECOND": "" if compare is None else _SECOND,
        "COSTLIEST": _costliest(plan, timeline),
        "SCHEDULE": _schedule(plan),
        "GROUPS": _groups(plan),
        "LEGEND": _legend(streams=plan.traffic.streamed > 0 or (compare is not None and compare.traffic.streamed > 0)),
        "STEPS": counted(len(timeline.steps), "step"),
        "STAYS": counted(len(timeline.stays), "stay"),
        "VERSION": __version__,
    }
    page = _resource("page.html")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: fields[match.group(1)], page)


_SECOND = (
    '<div class="second"><h3>The other plan</h3><div id="figures_b" class="figures"></div>'
    '<div id="graph_b" class="graph"></div></div>'
)


def _resource(name: str) -> str:
    return resources.files("cosma.report").joinpath(name).read_text(encoding="utf-8")


def _inside_script(text: str) -> str:
    """Keep text from ending the script element it stands in."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _json(value: Any) -> str:
    """JSON that may stand in a script element, whatever names are in it."""
    import json

    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _packed(value: Any) -> str:
    """JSON as compressed text: what is drawn of some thousand tiles would be larger than all else of the page."""
    return base64.b64encode(zlib.compress(_json(value).encode(), 9)).decode()


def _streamed(plan: Plan) -> str:
    traffic = plan.traffic
    if not traffic.streamed:
        return "Nothing is streamed: every byte that is moved lies in the scratchpad."
    # Rounded down: only all of it is 100 %.
    share = 1000 * traffic.streamed // traffic.total / 10
    return (
        f"{share:g} % of the traffic ({format_size(traffic.streamed)}) is streamed: operators "
        "read or write it off-chip as they run, and it never lies in the scratchpad."
    )


# -- tables -----------------------------------------------------------------------------------------------


def _table(
    rows: Sequence[Sequence[str | tuple[str, int]]], columns: Sequence[str], *, header: bool = True, name: str = ""
) -> str:
    """Write a table; a cell may be a pair of what is shown and the number behind it, which a CSV holds."""
    head = "<tr>" + "".join(f"<th>{html_text(column)}</th>" for column in columns) + "</tr>" if header else ""
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    named = f' id="{name}" data-csv="{name}"' if name else ""
    return f"<table{named}>{head}{body}</table>"


def _cell(cell: str | tuple[str, int]) -> str:
    if isinstance(cell, str):
        return f"<td>{html_text(cell)}</td>"
    return f'<td class="number" data-value="{cell[1]}">{html_text(cell[0])}</td>'


def _size(size_bytes: int) -> tuple[str, int]:
    return (format_size(size_bytes) if size_bytes else "", size_bytes)


def _costliest(plan: Plan, timeline: Timeline) -> str:
    rows: list[list[str | tuple[str, int]]] = [
        [name, kind, (size, tensor.size_bytes), (cost, value), share]
        for (name, kind, size, cost, share), (tensor, value) in zip(
            cost_rows(plan, timeline), costliest(plan, timeline), strict=True
        )
    ]
    if not rows:
        return "<p>None: nothing is moved beyond the compulsory traffic.</p>"
    return _table(rows, ("tensor", "kind", "size", "non-compulsory", "share"), name="tensors")


def _schedule(plan: Plan) -> str:
    """The head of the table of steps, whose rows the page's script makes from what it holds already."""
    of = ("tile of",) if plan.graph.is_tiled else ()
    columns = ("step", "operator", "type", *of, "occupied", "read off-chip", "written off-chip", "non-compulsory")
    return _table([], columns, name="operators")


def _groups(plan: Plan) -> str:
    groups = fused_groups(plan.graph, plan.schedule)
    if not groups or not plan.graph.is_tiled:
        return ""
    rows = [
        [f"[{g.start}, {g.end})", str(len(g.operators)), str(g.tiles), " ".join(g.operators)] for g in groups
    ]
    table = _table(rows, ("steps", "operators", "tiles", "which"), name="groups")
    return f"<h2>Fused groups</h2><p>Operators whose tiles take turns.</p><div class='scroll'>{table}</div>"


def _existing(plan: Plan, existing: Sequence[ExistingPlan]) -> str:
    if not existing:
        return ""
    own = plan.traffic
    tiled = plan.graph.is_tiled
    rows: list[list[str | tuple[str, int]]] = [
        ["this plan", _size_or_none(own.noncompulsory), _size_or_none(own.total), _size_or_none(plan.peak_bytes), ""]
    ]
    for other in existing:
        saved = "finds no plan"
        if other.total_bytes is not None:
            less = 100 * (other.total_bytes - own.total) / max(1, other.total_bytes)
            saved = f"{abs(less):.1f} % {'less' if less > 0 else 'more'}" if less else "as much"
        what = "uncut, " if other.uncut else "with these tiles, " if tiled else ""
        sizes = (other.noncompulsory_bytes, other.total_bytes, other.peak_bytes)
        rows.append([f"{other.name}: {what}{other.summary}", *map(_size_or_none, sizes), saved])
    columns = ("method", "non-compulsory", "traffic", "peak use", "this plan moves")
    words = ""
    if tiled:
        words = "Existing methods cut nothing"
        all_uncut = all(other.uncut for other in existing)
        words += "." if all_uncut else ": with these tiles they show what order and replacement alone do."
        if plan.graph.joins:
            words += " What is joined without a copy here is so in all of them; those that a compile shows copy."
    return (
        "<h2>Beside existing methods</h2><p>For the same operators, as fused as they are here, and the same "
        f"accelerator. {words}</p><div class='wide'>{_table(rows, columns, name='existing')}</div>"
    )


def _size_or_none(size_bytes: int | None) -> str | tuple[str, int]:
    return "-" if size_bytes is None else (format_size(size_bytes), size_bytes)


def _compared(plan: Plan, other: Plan) -> str:
    from cosma.report.diff import BESIDE, COUNTS, diff_plans, setting_rows

    found = diff_plans(plan, other, BESIDE)
    rows: list[list[str | tuple[str, int]]] = [[*row, ""] for row in setting_rows(found)]
    for name, a, b in found.numbers:
        write = str if name in COUNTS else format_size
        change = "" if a == b else f"{'+' if b > a else '-'}{write(abs(b - a))}"
        rows.append([name, (write(a), a), (write(b), b), change])
    parts = [
        "<h2>Two plans</h2>",
        f"<div class='wide'>{_table(rows, ('', 'this plan', 'other plan', 'change'), name='plans')}</div>",
        *(f"<p>{html_text(remark)}</p>" for remark in found.remarks),
    ]
    if found.tensors:
        changed: list[list[str | tuple[str, int]]] = [
            [t.tensor, _size(t.before), _size(t.after), t.how_before, t.how_after] for t in found.tensors[:100]
        ]
        columns = ("tensor", "this plan", "other plan", "here", "there")
        parts.append(f"<h3>Tensors whose non-compulsory traffic differs: {len(found.tensors):,}</h3>")
        parts.append(f"<div class='scroll'>{_table(changed, columns, name='differences')}</div>")
    return "".join(parts)


def _legend(*, streams: bool) -> str:
    rows = [
        f'<span class="how"><i style="background:{FILL[origin]}"></i><b>{origin}</b>: {WORDS[origin]}</span>'
        for origin in Origin
    ]
    owner = "<b>colour by operator</b>: what an operator makes, or reads first, shares its colour"
    rows.append(f'<span class="operator">{owner}</span>')
    spilled = '<i class="hatched"></i><b>spilled</b>: leaves although it is read again later'
    rows.append(f'<span class="map-only">{spilled}</span>')
    line = f'<i style="background:{FILL[Origin.RELOADED]}"></i><b>line in this colour</b>'
    rows.append(f'<span class="graph-only">{line}: the tensor costs more than the compulsory; dashed: streamed</span>')
    passed = f'<i style="background:{TRAFFIC["streamed"]}"></i><b>streamed</b>: passes the scratchpad by, '
    if streams:
        rows.append(f'<span class="map-only">{passed}pale where no plan does without</span>')
    return "".join(rows)
