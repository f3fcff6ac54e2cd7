"""A picture of a packing: time to the right, address upwards, one colour per buffer.

SVG is written by hand and needs nothing; PNG and PDF need matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from cosma.figures import figure_bytes, new_figure
from cosma.packing.buffers import parts_of
from cosma.text import figure_text, plain
from cosma.units import format_size, tick_step, unit_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.packing.buffers import Buffer, Forbidden

WIDTH, HEIGHT, MARGIN = 1200.0, 700.0, 60.0
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f", "#8cd17d")

_Box = tuple[int, float, float, float, float, str, str]
#: Room that a letter and a line of names take, in pixels of the SVG; most that a picture has of them.
_LETTER, _LINE, _NAMES = 6.0, 12.0, 2000
#: Height in pixels of the SVG from which on a rectangle has an edge: of lower ones little else would be seen.
_EDGED = 3.0


def picture(
    kind: str,
    buffers: Sequence[Buffer],
    offsets: Mapping[str, int],
    capacity: int,
    *,
    forbidden: Sequence[Forbidden] = (),
    title: str = "",
) -> str | bytes:
    """Draw a packing as ``svg``, ``png`` or ``pdf``.

    Raises InputError if the kind is another one. Raises SolverUnavailableError for PNG and PDF, when matplotlib is not
    installed.
    """
    boxes = _boxes(buffers, offsets, forbidden)
    begin = min((box[1] for box in boxes), default=0)
    end = max((box[1] + box[3] for box in boxes), default=1)
    if kind == "svg":
        return _svg(boxes, begin, end, capacity, title)
    return _drawn(kind, boxes, begin, end, capacity, title)


def _boxes(
    buffers: Sequence[Buffer], offsets: Mapping[str, int], forbidden: Sequence[Forbidden]
) -> list[_Box]:
    """List rectangles as (colour, time, address, duration, bytes, label, name); colour -1 is a forbidden range."""
    boxes: list[_Box] = []
    for k, buffer in enumerate(buffers):
        for part in parts_of(buffer):
            boxes.append((
                k,
                part.lower,
                offsets[buffer.id] + part.low,
                part.upper - part.lower,
                part.high - part.low,
                f"{buffer.id}: steps [{part.lower}, {part.upper}), bytes [{offsets[buffer.id] + part.low}, "
                f"{offsets[buffer.id] + part.high})",
                buffer.id,
            ))  # fmt: skip
    begin = min((buffer.lower for buffer in buffers), default=0)
    end = max((buffer.upper for buffer in buffers), default=1)
    for area in forbidden:
        lower = begin if area.lower is None else area.lower
        upper = end if area.upper is None else area.upper
        boxes.append((-1, lower, area.low, upper - lower, area.high - area.low, "forbidden", "forbidden"))
    return boxes


def _svg(boxes: list[_Box], begin: float, end: float, capacity: int, title: str) -> str:
    across = (WIDTH - 2 * MARGIN) / max(1, end - begin)
    upward = (HEIGHT - 2 * MARGIN) / max(1, capacity)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH:g}" height="{HEIGHT:g}" fill="white"/>',
        f'<text x="{MARGIN:g}" y="{MARGIN / 2:g}">{escape(plain(title))}</text>',
    ]
    edge = ' stroke="black" stroke-width="0.3"'
    for colour, time, address, duration, size, label, _ in boxes:
        fill = "#bbbbbb" if colour < 0 else COLOURS[colour % len(COLOURS)]
        lines.append(
            f'<rect x="{MARGIN + (time - begin) * across:.2f}" '
            f'y="{HEIGHT - MARGIN - (address + size) * upward:.2f}" width="{duration * across:.2f}" '
            f'height="{size * upward:.2f}" fill="{fill}"{edge if size * upward >= _EDGED else ""}>'
            f"<title>{escape(plain(label))}</title></rect>"
        )
    for time, address, name in _named(boxes, across, upward):
        lines.append(
            f'<text x="{MARGIN + (time - begin) * across:.2f}" y="{HEIGHT - MARGIN - address * upward:.2f}" '
            f'font-size="10" text-anchor="middle" dominant-baseline="central" pointer-events="none">'
            f"{escape(plain(name))}</text>"
        )
    right, floor = WIDTH - MARGIN, HEIGHT - MARGIN
    lines += [
        f'<path d="M{MARGIN:g} {MARGIN:g}H{right:g}M{MARGIN:g} {floor:g}H{right:g}" stroke="black" fill="none"/>',
        f'<text x="{MARGIN:g}" y="{floor + 20:g}">step {begin:g}</text>',
        f'<text x="{right:g}" y="{floor + 20:g}" text-anchor="end">{end:g}</text>',
        f'<text x="{MARGIN:g}" y="{MARGIN - 6:g}">{format_size(capacity)} ({capacity} bytes)</text>',
    ]
    factor, unit = unit_for(capacity)
    step = tick_step(capacity / factor, 8)
    for k in range(int(capacity / factor / step) + 1):
        y = floor - k * step * factor * upward
        lines.append(f'<path d="M{MARGIN - 5:g} {y:.2f}H{MARGIN:g}" stroke="black"/>')
        lines.append(f'<text x="{MARGIN - 8:g}" y="{y + 4:.2f}" text-anchor="end" font-size="11">{k * step:g}</text>')
    lines += [f'<text x="8" y="{HEIGHT / 2:g}" font-size="11">{unit}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


def _named(boxes: list[_Box], across: float, upward: float) -> list[tuple[float, float, str]]:
    """Middle and name of each rectangle that has room for its name, the largest first."""
    found = [
        (duration * size, time + duration / 2, address + size / 2, name)
        for _, time, address, duration, size, _, name in boxes
        if duration * across >= _LETTER * len(name) + 4 and size * upward >= _LINE
    ]
    return [(time, address, name) for _, time, address, name in sorted(found, key=lambda row: -row[0])[:_NAMES]]


def _drawn(kind: str, boxes: list[_Box], begin: float, end: float, capacity: int, title: str) -> bytes:
    figure = new_figure(12, 7)
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    axes = figure.subplots()
    across, upward = (WIDTH - 2 * MARGIN) / max(1, end - begin), (HEIGHT - 2 * MARGIN) / max(1, capacity)
    for colour, time, address, duration, size, _, _ in boxes:
        fill = "#bbbbbb" if colour < 0 else COLOURS[colour % len(COLOURS)]
        edge = 0.3 if size * upward >= _EDGED else 0.0
        axes.add_patch(Rectangle((time, address), duration, size, facecolor=fill, edgecolor="black", linewidth=edge))
    axes.set_xlim(begin, end)
    axes.set_ylim(0, max(1, capacity) * 1.02)
    axes.axhline(capacity, color="black", linewidth=1)
    for time, address, name in _named(boxes, across, upward):
        axes.text(time, address, figure_text(name), ha="center", va="center", fontsize=7, clip_on=True)
    factor, unit = unit_for(capacity)
    axes.yaxis.set_major_locator(MultipleLocator(tick_step(capacity / factor, 8) * factor))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / factor:g}")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("step")
    axes.set_ylabel(f"address ({unit})")
    axes.set_title(figure_text(title), wrap=True)
    return figure_bytes(figure, kind, 120)
