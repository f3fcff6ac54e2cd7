"""Packs MiniMalloc's eleven hard instances and writes what it took as a table.

    python results/packing/benchmark.py FOLDER [--minimalloc BINARY]

FOLDER holds ``A.1048576.csv`` to ``K.1048576.csv`` (benchmarks/ of github.com/google/minimalloc). Every packing is
judged by `cosma.packing.verify`. Times are CPU seconds of this process, without reading files and without
compiling the kernels (one small problem is packed first). MiniMalloc is measured when its binary is given;
otherwise its times are those in ``minimalloc.csv``, measured earlier on a two-core machine (F stopped at 7.4 s
without an answer). Writes ``packing.csv`` and ``packing.md`` beside this script.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cosma.files import write_atomic
from cosma.packing import Buffer, live_peak, pack, verify
from cosma.packing.csvfile import read_buffers

HERE = Path(__file__).resolve().parent
CAPACITY = 1048576
LIMIT_S = 60.0


def minimalloc_cpu_s(binary: str, path: Path) -> float:
    """CPU seconds of one run of the MiniMalloc binary."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [binary, f"--capacity={CAPACITY}", f"--input={path}", f"--output={folder}/out.csv", "--timeout=60s"],
            check=False,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(path: Path) -> dict[str, object]:
    """Pack one instance and judge the packing."""
    buffers = read_buffers(path, capacity=CAPACITY)
    before = time.process_time()
    result = pack(buffers, CAPACITY)
    cpu_s = time.process_time() - before
    broken = verify(buffers, result.offsets, CAPACITY) if result.packed else []
    if broken:
        sys.exit(f"{path}: {broken[0].message}")
    return {
        "instance": path.name.split(".")[0],
        "buffers": len(buffers),
        "live_peak": live_peak(buffers),
        "status": str(result.status),
        "height": result.height,
        "engine": result.engine,
        "nodes": result.work.get("nodes", 0),
        "cpu_s": round(cpu_s, 3),
    }


def warm_up() -> None:
    """Compile every kernel, or load it from the cache: a problem the heuristics cannot settle alone."""
    pack([Buffer("a", 0, 4, 3, offset=2), Buffer("b", 0, 4, 4)], 8)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minimalloc", metavar="BINARY", help="measure this MiniMalloc binary as well")
    options = parser.parse_args()
    paths = sorted(options.folder.glob("?.1048576.csv"))
    if not paths:
        sys.exit(f"{options.folder}: no files named like A.1048576.csv")
    warm_up()
    with (HERE / "minimalloc.csv").open(newline="") as stream:
        theirs = {row["instance"]: float(row["cpu_s"]) for row in csv.DictReader(stream)}
    rows = []
    for path in paths:
        row = measure(path)
        name = str(row["instance"])
        row["minimalloc_cpu_s"] = (
            round(minimalloc_cpu_s(options.minimalloc, path), 3) if options.minimalloc else theirs.get(name)
        )
        print(row, file=sys.stderr)
        rows.append(row)
    columns = list(rows[0])
    table = [",".join(columns), *(",".join(str(row[column]) for column in columns) for row in rows)]
    write_atomic(HERE / "packing.csv", "\n".join(table) + "\n")
    ours = sum(float(str(row["cpu_s"])) for row in rows)
    total = sum(float(str(row["minimalloc_cpu_s"] or 0)) for row in rows)
    solved = sum(row["status"] == "packed" for row in rows)
    lines = [
        "# Packing MiniMalloc's hard instances",
        "",
        f"Capacity {CAPACITY}; every packing replayed by the independent check; CPU seconds, kernels compiled.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows),
        "",
        f"Solved {solved} of {len(rows)} in {ours:.2f} CPU s together, the slowest in "
        f"{max(float(str(row['cpu_s'])) for row in rows):.2f} s; MiniMalloc {total:.1f} CPU s "
        + ("(measured in this run)." if options.minimalloc else "(measured earlier, F without an answer)."),
    ]
    write_atomic(HERE / "packing.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    if solved < len(rows) or any(float(str(row["cpu_s"])) > LIMIT_S for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
