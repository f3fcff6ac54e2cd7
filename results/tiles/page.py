"""The page and the figures of the tables of tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Rows = Mapping[tuple[str, ...], Mapping[str, str]]
Known = Mapping[str, Sequence[Mapping[str, str]]]
MB = 1e6

INTRODUCTION = """\
# Tiled plans

Made by `python results/tiles/make.py` (effort {effort:g}); every number is in `cells.csv`. Non-compulsory traffic in MB
(10^6 bytes), counted by replaying each plan against its model. Networks and foreign figures come from the folder
`tiles` that lies beside the project; its README says what each counts and leaves out.

- *ours*: grid T, `--dtype int8 --fusion epilogue --operands stationary --weights scratchpad --tiling auto`: tiles
  stream only in ways a machine can carry out. *resident*: the same with `--operands resident`: operands, weights and
  result of each tile lie whole in the scratchpad while it runs. Concats copy nothing where that moves less. Partial
  sums count a byte an element, as `--dtype int8` counts all floating-point tensors. A star: proven optimal over all
  tilings.
- *tilings*: no plan of any tiling moves less, whatever is cut, fused or kept. *tiles*: no plan of these tiles does.
- *whole*: our plan of whole operators with epilogues fused, in the mode that favours it: operands stream, and weights
  pass by. *E*: the best of E1, E2, E3 (order as given with LRU; depth first and a peak-minimising order with Belady),
  in that mode, nothing fused.
- *Vela*: U65, maps at tensor level and weights it reads again, not its block re-reads. *stripes*: a prototype.
- A question mark: not measured.
- *DMA*: transfers, and the median of their bytes. *ranges*: most address ranges of an operand. *CPU s*: of the compile,
  all its processes.
"""

PUBLISHED = """\
## Published figures

The work that was published, weights past the scratchpad (`--weights stream`), nothing computed twice; `published.py`
names the sources. *maps*: bytes of feature maps moved beyond each input and output once: nothing, for Alwani et al. at
362 KB in float (3.6 MB are input and output); MCUNetV2 needs 172 kB without the input, and computes overlaps again.
"""


def page(rows: Rows, known: Known, effort: float) -> str:
    """Write the tables in Markdown."""
    lines = [INTRODUCTION.format(effort=effort)]
    lines += _reference(rows, known["reference"], "reference")
    lines += _reference(rows, known["reference_open"], "reference_open")
    lines += _published(rows)
    lines += _open(rows)
    return "\n".join(lines) + "\n"


def _reference(rows: Rows, known: Sequence[Mapping[str, str]], grid: str) -> list[str]:
    vela = grid == "reference"
    columns = ["network", "KiB", "ours", "resident", "stripes", *(["Vela"] if vela else []), "whole", "E", "tiles",
               "tilings", "operators", "of tiles", "DMA", "median", "ranges", "weights again", "CPU s"]  # fmt: skip
    if not any(key[0] == grid for key in rows):
        return []
    title = "Four networks with Vela's figures" if vela else "Six other networks"
    lines = [f"## {title} (`{grid}.csv`)", "", *_head(columns)]
    found: list[tuple[int, Mapping[str, str]]] = []
    for one in known:
        model, kib = one["model"], one["sram_kib"]
        row = rows.get((grid, model, kib, "tiles"))
        cells = [model, kib]
        if row is None:
            continue
        if not row["noncompulsory"]:
            cells += ["no plan", *["-"] * (len(columns) - 3)]
        else:
            ours = int(row["noncompulsory"])
            found.append((ours, one))
            whole = rows.get((grid, model, kib, "whole"), {}).get("noncompulsory")
            cells += [
                f"{ours / MB:.3f}{'*' if ours == int(row['bound_tilings'] or -1) else ''}",
                _mb(rows.get((grid, model, kib, "tiles, resident"), {}).get("noncompulsory")),
                _mb(one["stripes_prototype_noncompulsory"]),
                *([f"{_vela(one) / MB:.3f}"] if vela else []),
                _mb(whole or one["whole_tensor_proven_noncompulsory"]), _mb(_least(rows, grid, model, kib)),
                _mb(row["bound_tiling"]), _mb(row["bound_tilings"]),
                row["operators"], row["tiles"], row["transfers"],
                row["median_transfer"], row["most_ranges"], _mb(row["weights_again"]), row["cpu_s"],
            ]  # fmt: skip
        lines.append(_line(cells))
    lines += ["", *_sums(rows, found, known, grid, vela=vela), *_not_monotone(rows, grid), ""]
    return lines


def _sums(
    rows: Rows, found: Sequence[tuple[int, Mapping[str, str]]], known: Sequence[object], grid: str, *, vela: bool
) -> list[str]:
    if not found:
        return []
    prototype = [(ours, int(one["stripes_prototype_noncompulsory"] or 0), one) for ours, one in found]
    mine, theirs = sum(a for a, _, _ in prototype), sum(b for _, b, _ in prototype)
    above = [f"{one['model']} {one['sram_kib']}" for ours, other, one in prototype if ours > other]
    lines = [
        f"{len(found)} of {len(known)} cells: {mine / MB:.1f} MB, the prototype {theirs / MB:.1f} MB: "
        f"{mine / theirs if theirs else 0:.2f} of it. Above it: {', '.join(above) or 'none'}.",
    ]
    if vela:
        above = [f"{one['model']} {one['sram_kib']}" for ours, one in found if ours > _vela(one)]
        lines.append(f"Above Vela: {', '.join(above) or 'none'}.")
    for word, other in (
        ("whole tensors with epilogues fused", lambda one: rows.get((grid, one["model"], one["sram_kib"], "whole"), {})
         .get("noncompulsory")),
        ("the best of E1 to E3", lambda one: _least(rows, grid, one["model"], one["sram_kib"])),
    ):  # fmt: skip
        lines += _reduction(found, other, word)
    return lines


def _reduction(
    found: Sequence[tuple[int, Mapping[str, str]]], other: Callable[[Mapping[str, str]], str | None], word: str
) -> list[str]:
    pairs = [(ours, int(value)) for ours, one in found if (value := other(one)) and int(value)]
    if not pairs:
        return []
    total = 1 - sum(a for a, _ in pairs) / sum(b for _, b in pairs)
    return [
        f"Against {word}: {100 * total:.1f} % less in all, {100 * mean(1 - a / b for a, b in pairs):.1f} % on the mean "
        f"of {len(pairs)} cells."
    ]


def _not_monotone(rows: Rows, grid: str) -> list[str]:
    """Pairs in which a larger scratchpad moves more; each cell is planned by itself."""
    sizes: dict[str, list[tuple[float, int]]] = {}
    for (table, model, kib, method), row in rows.items():
        if table == grid and method == "tiles" and row["noncompulsory"]:
            sizes.setdefault(model, []).append((float(kib), int(row["noncompulsory"])))
    bad = [
        f"{model} {a:g} -> {b:g}"
        for model, points in sizes.items()
        for (a, more), (b, less) in zip(sorted(points), sorted(points)[1:], strict=False)
        if less > more
    ]
    return [f"Not monotone in the size, each size planned by itself: {', '.join(bad) or 'none'}."] if sizes else []


def _published(rows: Rows) -> list[str]:
    found = [(key, row) for key, row in rows.items() if key[0] == "published"]
    if not found:
        return []
    columns = ["network", "scratchpad", "non-compulsory", "maps", "weights again", "tiles", "CPU s"]
    lines = [PUBLISHED, *_head(columns)]
    for (_, model, kib, _), row in found:
        if not row["noncompulsory"]:
            lines.append(_line([model, f"{kib} KiB", f"no plan: needs {row['needed']} B", *["-"] * 4]))
            continue
        maps = int(row["noncompulsory"]) - int(row["weights_again"])
        lines.append(_line([model, f"{kib} KiB", _mb(row["noncompulsory"]), f"{maps / MB:.3f}",
                            _mb(row["weights_again"]), row["tiles"], row["cpu_s"]]))  # fmt: skip
    return [*lines, ""]


def _open(rows: Rows) -> list[str]:
    found = [row for key, row in rows.items() if key[0] == "open" and key[3] == "tiles"]
    fitting = [row for row in found if row["noncompulsory"]]
    if not fitting:
        return []
    achieved = [int(row["noncompulsory"]) for row in fitting]
    unfit = len(found) - len(fitting)
    lines = ["## Grid T over models of public exporters", "", f"{len(found)} cells, {unfit} without a plan."]
    for scope, words in (("bound_tilings", "all tilings"), ("bound_tiling", "the chosen tiling")):
        pairs = [(ours, int(row[scope])) for ours, row in zip(achieved, fitting, strict=True) if row[scope]]
        proven = sum(a == b for a, b in pairs)
        gap = mean((a - b) / a if a else 0.0 for a, b in pairs) if pairs else 0.0
        lines.append(f"Over {words}: {proven} of {len(pairs)} proven optimal, mean gap {100 * gap:.1f} %.")
    seconds = [float(row["cpu_s"]) for row in fitting]
    lines.append(f"CPU seconds: median {median(seconds):.1f}, most {max(seconds):.1f}.")
    return [*lines, *_not_monotone(rows, "open"), ""]


def figures(rows: Rows, known: Sequence[Mapping[str, str]], folder: Path) -> None:
    """Draw traffic against size, a panel a network, where the reference table has rows."""
    from cosma.figures import figure_bytes, new_figure

    models = list(dict.fromkeys(one["model"] for one in known))
    if not any(("reference", one["model"], one["sram_kib"], "tiles") in rows for one in known):
        return
    figure = new_figure(10.0, 6.4)
    panels = figure.subplots(2, 2).flat
    for axes, model in zip(panels, models, strict=False):
        own = [one for one in known if one["model"] == model]

        def draw(label: str, value: Callable[[Mapping[str, str]], str | int | None], colour: str, mark: str,
                 own: Sequence[Mapping[str, str]] = own, axes: object = axes) -> None:  # fmt: skip
            points = [(int(one["sram_kib"]), int(found) / MB) for one in own if (found := value(one)) not in (None, "")]
            if points:
                axes.plot(*zip(*points, strict=True), mark, color=colour, label=label, markersize=4)

        def ours(column: str, model: str = model) -> Callable[[Mapping[str, str]], str | None]:
            return lambda row: rows.get(("reference", model, row["sram_kib"], "tiles"), {}).get(column)

        draw("best of E1 to E3", lambda row: _least(rows, "reference", row["model"], row["sram_kib"]), "#999999", "v:")
        draw("whole tensors, proven", lambda row: row["whole_tensor_proven_noncompulsory"], "#CC79A7", "s:")
        draw("Vela U65", _vela, "#D55E00", "^--")
        draw("stripes, prototype", lambda row: row["stripes_prototype_noncompulsory"], "#E69F00", "x--")
        draw("ours", ours("noncompulsory"), "#0072B2", "o-")
        draw("bound, all tilings", ours("bound_tilings"), "#009E73", "-")
        axes.set_xscale("log", base=2)
        axes.set_xticks([128, 256, 512, 1024], ["128", "256", "512", "1024"])
        axes.set_yscale("symlog", linthresh=0.5)
        axes.set_ylim(bottom=0)
        axes.set_title(model, fontsize=10, loc="left")
        axes.grid(alpha=0.3)
        axes.set_xlabel("scratchpad (KiB)")
        axes.set_ylabel("non-compulsory MB")
    figure.axes[0].legend(fontsize=7)
    folder.mkdir(exist_ok=True)
    for kind in ("svg", "png"):
        (folder / f"reference.{kind}").write_bytes(figure_bytes(figure, kind))


def _least(rows: Rows, grid: str, model: str, kib: str) -> str | None:
    values = [rows.get((grid, model, kib, method), {}).get("noncompulsory") for method in ("e1", "e2", "e3")]
    return min((value for value in values if value), key=int, default=None)


def _vela(one: Mapping[str, str]) -> int:
    return int(one["vela_u65_tensor_level_noncompulsory"]) + int(one["vela_u65_weight_rereads"])


def _mb(value: str | None) -> str:
    return f"{int(value) / MB:.3f}" if value else "?"


def _head(columns: Sequence[str]) -> list[str]:
    return [_line(columns), "| --- |" + " ---: |" * (len(columns) - 1)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
