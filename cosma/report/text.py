"""A plan for a terminal: its numbers, and a memory map drawn with letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.plan.timeline import Timeline, timeline_of
from cosma.report.facts import assumptions, certificate_sentence, cost_rows, summary_rows, warnings_of
from cosma.report.style import LETTER, is_spilled
from cosma.text import plain
from cosma.units import format_size
from cosma.validator import examine

if TYPE_CHECKING:
    from cosma.plan import Plan

#: Rows of the map, and levels of a bar.
MAP_ROWS, BARS = 16, " .:-=+*#%@"


def render_text(plan: Plan, width: int = 100) -> str:
    """Write a plan as plain text, at most ``width`` columns where names allow it."""
    plan, report = examine(plan)
    timeline = timeline_of(plan)
    title = plain(plan.model_name)
    lines = [title, "=" * min(width, len(title)), ""]
    warnings = warnings_of(report)
    lines += [*map(plain, warnings), ""] if warnings else []
    rows = summary_rows(plan)
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for label, value, remark in rows:
        lines.append(plain(f"{label:<{wide[0]}}  {value:>{wide[1]}}  {remark}").rstrip())
    lines += ["", plain(certificate_sentence(plan, report)), "", *_memory_map(plan, timeline, width), ""]
    costly = cost_rows(plan, timeline, 10)
    if costly:
        lines.append("Tensors that cost most beyond the compulsory traffic")
        for name, kind, size, cost, share in costly:
            lines.append(f"  {cost:>12} {share:>7}  {plain(name)} ({kind} of {size})")
        lines.append("")
    lines.append("What was assumed")
    lines += [f"  {plain(row)}" for row in assumptions(plan)]
    return "\n".join(lines) + "\n"


def _memory_map(plan: Plan, timeline: Timeline, width: int) -> list[str]:
    """Draw addresses upwards and steps to the right; each cell shows who holds most of it."""
    steps, capacity = len(timeline.steps), plan.accelerator.capacity_bytes
    if not steps:
        return ["(no steps)"]
    label = 12
    columns = min(max(10, width - label - 1), steps)
    rows = min(MAP_ROWS, max(1, capacity // plan.accelerator.alignment))
    weight: list[list[dict[str, float]]] = [[{} for _ in range(columns)] for _ in range(rows)]
    for stay in timeline.stays:
        letter = "/" if is_spilled(stay) else LETTER[stay.origin]
        for column in range(stay.start * columns // steps, -(-stay.end * columns // steps)):
            time = _overlap(stay.start, stay.end, column * steps / columns, (column + 1) * steps / columns)
            low, high = stay.address, stay.address + stay.space_bytes
            for row in range(max(0, low * rows // capacity), min(rows, -(-high * rows // capacity))):
                space = _overlap(low, high, row * capacity / rows, (row + 1) * capacity / rows)
                cell = weight[row][column]
                cell[letter] = cell.get(letter, 0.0) + time * space
    cell_area = (steps / columns) * (capacity / rows)
    lines = ["Memory map: # produced  = in place  + loaded  R loaded again  / spilled later  . partly used"]
    for row in range(rows - 1, -1, -1):
        drawn = "".join(_letter(cell, cell_area) for cell in weight[row])
        lines.append(f"{format_size((row + 1) * capacity // rows):>{label - 1}} |{drawn}")
    lines.append(" " * (label - 1) + " +" + "-" * columns + f"  steps [0, {steps})")
    most = max(step.noncompulsory for step in timeline.steps)
    bars = ""
    for column in range(columns):
        first, last = column * steps // columns, max(column * steps // columns + 1, (column + 1) * steps // columns)
        height = max(step.noncompulsory for step in timeline.steps[first:last])
        bars += BARS[-(-height * (len(BARS) - 1) // max(1, most))]
    rest = f"at most {format_size(most)} a step" if most else "none"
    lines.append(f"{'traffic':>{label - 1}} |{bars}  non-compulsory, {rest}")
    return lines


def _overlap(start: float, end: float, low: float, high: float) -> float:
    return max(0.0, min(end, high) - max(start, low))


def _letter(cell: dict[str, float], area: float) -> str:
    if not cell:
        return " "
    letter, most = max(cell.items(), key=lambda item: (item[1], item[0]))
    return letter if sum(cell.values()) >= 0.5 * area or most >= 0.25 * area else "."
