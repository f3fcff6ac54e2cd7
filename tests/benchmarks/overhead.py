"""What a cell of a sweep costs beyond its own work: ``python -m tests.benchmarks.overhead [MODEL]``, from the root.

Runs cells of one model (by default the zoo's with most operators) by the quickest strategy in this process and prints
CPU milliseconds per cell: all, the compile, the rest, and where the rest goes. The pipe to a process adds under one.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

from cosma.experiments import load_experiment
from cosma.experiments.run_cell import run_cell

MODEL = "zoo:nasnet_mobile_cl"
REPEATS = 5
EXPERIMENT = 'models = ["{model}"]\nstrategies = ["e1"]\ngrids = ["R", "S"]\nkeep_plans = false\nzoo = "{zoo}"\n'


def main(model: str) -> None:
    """Print the table and the profile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.toml"
        path.write_text(EXPERIMENT.format(model=model, zoo=Path("models").resolve()), encoding="utf-8")
        cells = load_experiment(path).cells()
    for cell in cells:
        run_cell(cell)
    profile = cProfile.Profile()
    cpu_s, own_s, count = time.process_time(), 0.0, 0
    for _ in range(REPEATS):
        for cell in cells:
            own_s += run_cell(cell).row.cpu_seconds or 0.0
            count += 1
    cpu_s = time.process_time() - cpu_s
    print(f"{model}: {1e3 * cpu_s / count:.1f} ms a cell, compile {1e3 * own_s / count:.1f}, ", end="")
    print(f"rest {1e3 * (cpu_s - own_s) / count:.1f}")
    profile.enable()
    for cell in cells:
        run_cell(cell)
    profile.disable()
    pstats.Stats(profile).sort_stats("cumulative").print_stats("cosma/(experiments|plan)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else MODEL)
