"""Packs large instances and writes how near they come to their lower bounds as a table.

    python results/packing/large.py FILE.csv... [--generated N]

Each file is packed by ``cosma pack --minimise`` in a process of its own; the lower bound is the most bytes alive at
one step. CPU seconds and peak memory are those of that process: reading, packing, the check and writing. With
``--generated N`` two instances of N random buffers are packed as well: ``geometric`` (lives of 50 steps on average,
sizes spread over five decades) and ``uniform`` (500 buffers alive at a time, lives and sizes uniform). Writes
``large.csv`` and ``large.md`` beside this script; rows of other instances stay.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cosma.files import write_atomic

HERE = Path(__file__).resolve().parent


def generate(kind: str, count: int, path: Path) -> Path:
    """Write a random instance."""
    generator = np.random.default_rng(0)
    lower = np.sort(generator.integers(0, count, count))
    if kind == "geometric":
        life = generator.geometric(1 / 50, count)
        size = np.exp(generator.uniform(0, 12, count)).astype(np.int64) * 64 + 64
    else:
        life = generator.integers(1, 1001, count)
        size = generator.integers(1, 1 << 16, count)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "lower", "upper", "size"))
        writer.writerows(zip(range(count), lower.tolist(), (lower + life).tolist(), size.tolist(), strict=True))
    return path


def measure(path: Path, folder: Path) -> dict[str, object]:
    """Pack one file in a process of its own."""
    output = folder / "packed.csv"
    before = time.monotonic()
    arguments = [sys.executable, "-m", "cosma", "pack", str(path), "--minimise", "-o", str(output)]
    process = os.posix_spawn(sys.executable, arguments, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{path}: cosma pack failed")
    rows = np.loadtxt(output, delimiter=",", skiprows=1, usecols=(1, 2, 3, 4), dtype=np.int64)
    times, places = np.unique(rows[:, :2], return_inverse=True)
    places = places.reshape(-1, 2)
    change = np.zeros(times.size, np.int64)
    np.add.at(change, places[:, 0], rows[:, 2])
    np.add.at(change, places[:, 1], -rows[:, 2])
    bound = int(np.cumsum(change).max())
    height = int((rows[:, 2] + rows[:, 3]).max())
    return {
        "instance": path.stem,
        "buffers": len(rows),
        "lower_bound": bound,
        "height": height,
        "gap_percent": round(100 * (height / bound - 1), 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "wall_s": round(time.monotonic() - before, 1),
        "peak_mb": usage.ru_maxrss // 1024,
    }


def _write(known: dict[str, dict[str, object]]) -> None:
    """Write both files anew."""
    rows = sorted(known.values(), key=lambda row: (int(str(row["buffers"])), str(row["instance"])))
    columns = list(rows[0])
    table = [",".join(columns), *(",".join(str(row[column]) for column in columns) for row in rows)]
    write_atomic(HERE / "large.csv", "\n".join(table) + "\n")
    lines = [
        "# Large packing instances",
        "",
        "One process each: reading, packing as low as possible, the check and writing, on one core. Seconds are those",
        "of a machine shared with others, on which ten million additions of Python took 1.2 to 1.7 processor seconds.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows),
    ]
    write_atomic(HERE / "large.md", "\n".join(lines) + "\n")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument(
        "--generated", type=int, metavar="N", action="append", default=[], help="pack random instances of N buffers"
    )
    options = parser.parse_args()
    known: dict[str, dict[str, object]] = {}
    if (HERE / "large.csv").exists():
        with (HERE / "large.csv").open(newline="") as stream:
            known = {row["instance"]: dict(row) for row in csv.DictReader(stream)}
    if not options.files and not options.generated:
        sys.exit("name instances, or give --generated N")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = list(options.files)
        kinds = ("geometric", "uniform")
        paths += [generate(kind, n, folder / f"{kind}_{n}.csv") for n in options.generated for kind in kinds]
        for path in paths:
            known[path.stem] = measure(path, folder)
            print(known[path.stem], file=sys.stderr, flush=True)
            _write(known)


if __name__ == "__main__":
    main()
