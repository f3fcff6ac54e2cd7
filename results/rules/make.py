"""Tilings given by a rule: what they move, and how long a compile takes. ``python results/rules/make.py``.

Plans networks on grid T (int8, fused epilogues, stationary operands, weights in the scratchpad) at the default effort
and writes ``cells.csv`` and ``README.md``. Rows that the file has are kept, so that the command goes on where it was
interrupted; ``--only TEXT`` makes the rows anew whose name holds the text.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from cosma import Accelerator, replay  # noqa: E402
from cosma.compiler.compile import run_compile  # noqa: E402
from cosma.compiler.limits import Limits  # noqa: E402
from cosma.frontend import load_onnx  # noqa: E402

if TYPE_CHECKING:
    from cosma.compiler.limits import Progress

#: Networks with the figures of a prototype and open models, which lie beside the project, and those of the project.
BESIDE, ZOO = HERE.parents[1] / ".." / "shared", HERE.parents[1] / "models" / "zoo"
SHARED, OPEN = BESIDE / "tiles", BESIDE / "models" / "open"
FIELDS = ("network", "sram_kib", "tiling", "tiles", "noncompulsory", "prototype", "first_plan_cpu_s", "cpu_s")
SIZES = (128, 192, 256, 384, 512, 1024)
#: Rows of a tile, by network: the best of 1, 2, 4 and 7 at most sizes.
REFERENCE = {"resnet50_224": "rows=1", "mobilenet_v2_224": "rows=2"}
#: Networks of 300, 1,000 and 3,000 tiles.
TIMED = (
    ("zoo_squeezenet", 128, "rows=2"), ("mobilenet_v2_224", 128, "rows=4"), ("zoo_resnet50", 512, "rows=2"),
    ("unet_256", 512, "rows=4"), ("distilbert_s128", 512, "rows=8"), ("darts_v2_imagenet", 256, "rows=8"),
    ("zoo_resnet50", 512, "rows=1"), ("unet_256", 256, "rows=1"), ("efficientnet_b0_cl", 512, "rows=2"),
    ("vit_6l_224_fp16", 1024, "rows=4"), ("retinanet_r50_fpn_512", 2048, "rows=32"),
)  # fmt: skip

Row = dict[str, str]


def cpu_s() -> float:
    """Processor time of this process and of those that it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def plan(network: str, kib: int, tiling: str, known: dict[tuple[str, int], str]) -> Row:
    """Plan one network by one rule, replay the plan against its file."""
    path = SHARED / "models" / f"{network}.onnx"
    if (network, kib) not in known:
        path = next(folder / path.name for folder in (ZOO, OPEN) if (folder / path.name).exists())
    accelerator = Accelerator(
        scratchpad=kib * 1024, operands="stationary", weights="scratchpad", fusion="epilogue"
    )
    began, first = cpu_s(), [0.0]

    def heard(progress: Progress) -> None:
        if not first[0] and progress.noncompulsory_bytes < 1 << 60:
            first[0] = cpu_s() - began

    made = run_compile(path, accelerator, dtype="int8", tiling=tiling, sink=heard).plan
    spent = cpu_s() - began
    report = replay(made, load_onnx(path).finest_graph.with_dtype("int8"), model=path)
    assert report.valid, report.violations
    row = {
        "network": network, "sram_kib": kib, "tiling": tiling,
        "tiles": sum(operator.tile is not None for operator in made.graph.operators),
        "noncompulsory": report.traffic.noncompulsory, "prototype": known.get((network, kib), ""),
        "first_plan_cpu_s": f"{first[0] or spent:.1f}", "cpu_s": f"{spent:.1f}",
    }  # fmt: skip
    return {name: str(value) for name, value in row.items()}


def warm_up() -> None:
    """Load what compiles load, kernels above all, so that the first row does not count it."""
    run_compile(
        ZOO / "zoo_squeezenet.onnx", Accelerator(scratchpad="128KiB", operands="stationary", fusion="epilogue"),
        dtype="int8", tiling="rows=4", limits=Limits(effort=0.3),
    )  # fmt: skip


def main() -> None:
    """Make the rows that are missing or asked for, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="make rows 'NETWORK KIB TILING' anew that hold this text, and no others")
    only = parser.parse_args().only
    with (SHARED / "reference.csv").open(newline="", encoding="utf-8") as stream:
        known = {
            (row["model"], int(row["sram_kib"])): row["stripes_prototype_noncompulsory"]
            for row in csv.DictReader(stream)
        }
    cells = [*((name, kib, rule) for name, rule in REFERENCE.items() for kib in SIZES), *TIMED]
    rows = _read()
    missing = [cell for cell in cells if (only in " ".join(map(str, cell)) if only else _key(cell) not in rows)]
    warnings.simplefilter("ignore")
    if missing:
        warm_up()
    for cell in missing:
        rows[_key(cell)] = plan(*cell, known)
        print(rows[_key(cell)], flush=True)
        _write([rows[_key(one)] for one in cells if _key(one) in rows], [_key(c) for c in cells if _key(c) not in rows])


def _key(cell: tuple[str, int, str]) -> str:
    return " ".join(map(str, cell))


def _read() -> dict[str, Row]:
    path = HERE / "cells.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {" ".join((row["network"], row["sram_kib"], row["tiling"])): row for row in csv.DictReader(stream)}


def _write(rows: list[Row], missing: list[str]) -> None:
    with (HERE / "cells.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        "# Tilings given by a rule",
        "",
        "Made by `python results/rules/make.py` on grid T at the default effort. Bytes are those beyond the",
        "compulsory; the prototype's are from its table, blank where it has none. Seconds are processor time, of up",
        "to two processors, once kernels are loaded; other work on the same machine makes them longer. Ten million",
        "additions of Python took 1.5 processor seconds or more meanwhile. Rows that the file has are kept. Every plan",
        "is valid against its file.",
        "",
        "| network | KiB | tiling | tiles | moved beyond | prototype | first plan, CPU s | compile, CPU s |",
        "|" + " --- |" * 8,
    ]
    for row in rows:
        figures = [f"{int(row[name]):,}" if row[name] else "" for name in ("tiles", "noncompulsory", "prototype")]
        cells = [row["network"], row["sram_kib"], f"`{row['tiling']}`", *figures, row["first_plan_cpu_s"], row["cpu_s"]]
        lines.append("| " + " | ".join(cells) + " |")
    if missing:
        lines += ["", f"Not made yet: {', '.join(missing)}."]
    (HERE / "README.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
