"""Which values of the tuning parameters beat the old ones: tried on one half of the zoo, reported on the other.

``python results/tuning/make.py`` goes in three steps, and what ``runs.csv`` has is not run again.

1. On the networks of one half: the defaults with four seeds, every other value with one. A value is a candidate where
   it moves less, or proves more, than the defaults by more than twice the noise of the seeds.
2. Candidates have three more seeds there.
3. The old values, and candidates that are still better, have four seeds on the other half.

``README.md`` is the table. Effort is counted in work: every row but its seconds can be made again anywhere.
"""

from __future__ import annotations

import csv
import hashlib
import math
import statistics
import sys
import warnings
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

import msgspec

from cosma import Accelerator, compile
from cosma.frontend import load_onnx
from cosma.parameters.compiler import CompileParameters

HERE = Path(__file__).resolve().parent
ZOO = HERE.parents[1] / "models" / "zoo"
#: Nominal seconds of a compile.
EFFORT = 1.0
#: Seeds with which every value is tried, and those of the defaults and of candidates.
SEEDS, MORE_SEEDS = (0,), (0, 1, 2, 3)
#: How many times the noise a difference must be.
CERTAIN = 2.0

#: What holds in every run: between two turns search anneals alone.
ALWAYS = {"search": {"refined_per_round": 0, "subproblems_per_round": 0}}

#: Cells of the families of networks that stay open: network, grid and scratchpad in bytes.
CELLS = {
    "amoebanet": (("amoebanet_a_cifar", "R", 973248), ("amoebanet_a_imagenet", "S", 262144)),
    "darts": (("darts_v1_imagenet", "S", 262144), ("darts_v2_cifar", "S", 262144)),
    "enas": (("enas_micro_cifar", "S", 262144),),
    "hrnet": (("hrnet_w32_small_256", "S", 262144),),
    "nasnet": (("nasnet_a_imagenet", "S", 262144), ("nasnet_a_cifar", "R", 1372800)),
    "pnasnet": (("pnasnet5_cifar", "S", 262144), ("pnasnet5_imagenet", "S", 262144)),
    "randwire_small_ba": (("randwire_small_ba_2", "S", 524288), ("randwire_small_ba_3", "R", 3913728)),
    "randwire_small_er": (("randwire_small_er_1", "S", 262144), ("randwire_small_er_3", "R", 3913728)),
    "randwire_small_ws": (("randwire_small_ws_1", "S", 262144), ("randwire_small_ws_3", "S", 524288)),
}
#: Every parameter with its value before the experiment and the values tried.
TRIED: dict[str, tuple[Any, ...]] = {
    "auto.first_round_work": (0.5, 0.25, 1.0),
    "auto.proof_factor": (1.5, 0.75, 3.0),
    "bounds.leading_share": (3.0, 1.0, 9.0),
    "bounds.first_width": (128, 32, 512),
    "search.first_round_steps_per_operator": (1_000, 500, 2_000),
    "auto.unproven_factor": (1.0, 0.5),
    "auto.idle_proof_factor": (0.5, 0.25, 1.0),
    "auto.settle_share": (0.12, 0.05),
    "bounds.piece_sizes": ((200, 120), (120,)),
    "bounds.first_peak_work": (2.5, 1.0),
    "search.most_slices": (160, 40),
}


class Run(NamedTuple):
    """One compile: a cell under one change of the parameters (none: the values before the experiment)."""

    change: str
    network: str
    grid: str
    scratchpad: int
    seed: int


class Found(NamedTuple):
    """Its non-compulsory traffic and lower bound in bytes, and what it took."""

    traffic: int
    bound: int
    cpu_seconds: float


class Score(NamedTuple):
    """Means over cells, in units of the traffic that the old values leave there: traffic, bound; processor time."""

    traffic: float
    bound: float
    cpu_seconds: float


Known = dict[Run, Found]


def half_of(family: str) -> int:
    """The half of the zoo that a family is in: 1 is fitted on, 0 is reported."""
    return hashlib.sha256(family.encode()).digest()[0] & 1


def cells_of(half: int) -> list[tuple[str, str, int]]:
    """The cells of one half."""
    return [cell for family, cells in CELLS.items() if half_of(family) == half for cell in cells]


def changes() -> list[str]:
    """Every change that is tried."""
    return [f"{name}={value}" for name, values in TRIED.items() for value in values[1:]]


def parameters_of(change: str) -> CompileParameters:
    """The values before the experiment, with one change."""
    record: dict[str, dict[str, Any]] = {section: dict(fields) for section, fields in ALWAYS.items()}
    for name, values in TRIED.items():
        section, field = name.split(".")
        named = [value for value in values if change == f"{name}={value}"]
        record.setdefault(section, {})[field] = named[0] if named else values[0]
    return msgspec.convert(record, CompileParameters)


def plan(run: Run) -> Found:
    """Plan a cell."""
    on_grid: dict[str, dict[str, Any]] = {
        "R": {"operands": "resident", "in_place": False},
        "W": {"operands": "resident", "in_place": False, "weights": "scratchpad"},
        "S": {},
    }
    model = load_onnx(ZOO / f"{run.network}.onnx")
    begun = _cpu_seconds()
    planned = compile(
        model,
        Accelerator(scratchpad=run.scratchpad, **on_grid[run.grid]),
        dtype="int8" if run.grid == "S" else None,
        effort=EFFORT,
        seed=run.seed,
        parameters=parameters_of(run.change),
    )
    bound = planned.certificate.lower_bound
    return Found(planned.traffic.noncompulsory, bound, round(_cpu_seconds() - begun, 2))


def _cpu_seconds() -> float:
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def measure(known: Known, half: int, change: str, seeds: tuple[int, ...]) -> None:
    """Plan what is missing of one change, and keep it."""
    for seed in seeds:
        for cell in cells_of(half):
            run = Run(change, *cell, seed)
            if run not in known:
                known[run] = plan(run)
                write(known)
                print(*run, *known[run], file=sys.stderr)


def score(known: Known, half: int, change: str, seed: int) -> Score:
    """What one change comes to with one seed."""
    traffic, bound, cpu_seconds = [], [], []
    for cell in cells_of(half):
        usual = statistics.mean(known[Run("", *cell, other)].traffic for other in MORE_SEEDS)
        found = known[Run(change, *cell, seed)]
        traffic.append(found.traffic / usual)
        bound.append(found.bound / usual)
        cpu_seconds.append(found.cpu_seconds)
    return Score(statistics.mean(traffic), statistics.mean(bound), statistics.mean(cpu_seconds))


def mean_score(known: Known, half: int, change: str, seeds: tuple[int, ...]) -> Score:
    """The mean over seeds."""
    found = [score(known, half, change, seed) for seed in seeds]
    return Score(*(statistics.mean(column) for column in zip(*found, strict=True)))


def gain(known: Known, half: int, change: str, seeds: tuple[int, ...]) -> Score:
    """What a change gives with the same seeds: traffic less, bound more, seconds less."""
    old, new = mean_score(known, half, "", seeds), mean_score(known, half, change, seeds)
    return Score(old.traffic - new.traffic, new.bound - old.bound, old.cpu_seconds - new.cpu_seconds)


def noise(known: Known, half: int, seeds: int) -> Score:
    """Standard deviation of the difference of two means over ``seeds`` seeds, from those of the old values."""
    usual = [score(known, half, "", seed) for seed in MORE_SEEDS]
    return Score(*(math.sqrt(2 / seeds) * statistics.stdev(column) for column in zip(*usual, strict=True)))


def is_better(known: Known, half: int, change: str, seeds: tuple[int, ...]) -> bool:
    """Whether a change moves less or proves more, and neither moves more nor proves less, by more than the noise."""
    gained, least = gain(known, half, change, seeds), noise(known, half, len(seeds))
    gains = gained.traffic / max(least.traffic, 1e-6), gained.bound / max(least.bound, 1e-6)
    return max(gains) > CERTAIN and min(gains) > -CERTAIN


def read() -> Known:
    """What was run before."""
    path = HERE / "runs.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        Run(r["change"], r["network"], r["grid"], int(r["scratchpad"]), int(r["seed"])
        ): Found(int(r["traffic"]), int(r["bound"]), float(r["cpu_seconds"]))
        for r in rows
    }  # fmt: skip


def write(known: Known) -> None:
    """Keep what was run."""
    with (HERE / "runs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*Run._fields, *Found._fields])
        writer.writerows([*run, *found] for run, found in known.items())


def main() -> None:
    """Run what is missing, then write the table."""
    warnings.simplefilter("ignore")
    known = read()
    measure(known, 1, "", MORE_SEEDS)
    for change in changes():
        measure(known, 1, change, SEEDS)
    candidates = [change for change in changes() if is_better(known, 1, change, SEEDS)]
    for change in candidates:
        measure(known, 1, change, MORE_SEEDS)
    adopted = [change for change in candidates if is_better(known, 1, change, MORE_SEEDS)]
    for change in ("", *adopted):
        measure(known, 0, change, MORE_SEEDS)
    (HERE / "README.md").write_text(report(known, candidates, adopted), encoding="utf-8")


def report(known: Known, candidates: list[str], adopted: list[str]) -> str:
    """The page."""
    old, least = mean_score(known, 1, "", MORE_SEEDS), noise(known, 1, len(SEEDS))
    lines = [
        "# Tuning parameters tried anew",
        "",
        f"Made by `python results/tuning/make.py`. Whole tensors, strategy `auto`, effort {EFFORT:g}, search by "
        "annealing alone between two turns; "
        f"{len(cells_of(1))} open cells of one half of the zoo ("
        + ", ".join(family for family in CELLS if half_of(family))
        + f"), {len(cells_of(0))} of the other ("
        + ", ".join(family for family in CELLS if not half_of(family))
        + "). Families go by the first byte of the SHA-256 of their name: odd is fitted on.",
        "",
        "Traffic and bound are means over cells, in units of the traffic that the old values leave there. A value is a "
        f"candidate where one of the two is better by more than {CERTAIN:g} standard deviations of the seeds, and "
        "neither worse by as much; differences are from the old values with the same seeds.",
        "",
        f"Old values, {len(MORE_SEEDS)} seeds: bound {old.bound:.4f}, {old.cpu_seconds:.2f} CPU seconds a cell. "
        f"Standard deviation of a difference: traffic {least.traffic:.4f}, bound {least.bound:.4f}.",
        "",
        "## On the half that is fitted on",
        "",
        "| parameter | old | tried | traffic | bound | CPU s | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name, values in TRIED.items():
        for value in values[1:]:
            change = f"{name}={value}"
            seeds = MORE_SEEDS if change in candidates else SEEDS
            gained = gain(known, 1, change, seeds)
            word = "better" if change in adopted else "candidate" if change in candidates else ""
            lines.append(
                f"| `{name}` | {values[0]} | {value} | {-gained.traffic + 0.0:+.2%} | {gained.bound:+.2%} | "
                f"{-gained.cpu_seconds:+.2f} | {word} |"
            )
    least = noise(known, 0, len(MORE_SEEDS))
    lines += [
        "",
        "## On the other half",
        "",
        f"Old values, {len(MORE_SEEDS)} seeds: non-compulsory bytes (mean, standard deviation) and lower bound (mean).",
        "",
        "| network | traffic | deviation | bound |",
        "| --- | ---: | ---: | ---: |",
    ]
    for cell in cells_of(0):
        runs = [known[Run("", *cell, seed)] for seed in MORE_SEEDS]
        traffic = [run.traffic for run in runs]
        lines.append(
            f"| {cell[0]} | {statistics.mean(traffic):,.0f} | {statistics.stdev(traffic):,.0f} | "
            f"{statistics.mean(run.bound for run in runs):,.0f} |"
        )
    lines.append("")
    for change in adopted:
        gained = gain(known, 0, change, MORE_SEEDS)
        lines.append(
            f"`{change}`: traffic {-gained.traffic:+.2%} (noise {least.traffic:.2%}), bound {gained.bound:+.2%} (noise "
            f"{least.bound:.2%}), {-gained.cpu_seconds:+.2f} CPU seconds."
        )
    if not adopted:
        lines.append("No other value was better on the half that is fitted on: all old values stay.")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
