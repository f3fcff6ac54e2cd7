"""Exact plans for CNNs and transformers on grids R and W, with the existing methods beside them.

Usage: ``python results/exact/make.py [MODEL_FOLDER]`` writes ``cells.csv``, ``back_ends.csv`` and ``README.md``
beside this file; rows that are there already are kept, so that a run can go on where another ended (delete the
tables to start afresh). One process, one thread. Seconds are CPU seconds of that run; all other columns are the same
on every machine.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

from cosma.accelerator import Accelerator
from cosma.compiler import Limits
from cosma.compiler.exact import solve_exact
from cosma.compiler.run import CompileRun
from cosma.frontend import load_onnx
from cosma.graph import Graph
from cosma.heuristics import EXISTING, run_method
from cosma.joint import build_joint
from cosma.problem import build_problem, noncompulsory_bytes, smallest_feasible_capacity
from cosma.replacement import build_replacement
from cosma.solvers import load_profile, solve
from cosma.validator import replay_instructions

HERE = Path(__file__).resolve().parent
CNNS = (
    "light_bvlc_alexnet",
    "light_vgg19",
    "light_squeezenet",
    "light_inception_v1",
    "light_resnet50",
    "light_densenet121",
    "mobilenet_v2_224",
    "efficientnet_b0_cl",
    "inception_v3_cf",
    "xception_cl",
    "unet_256",
    "hgnetv2_l_224",
    "hourglass2_256",
    "hrnet_w32_small_256",
    "retinanet_r50_fpn_512",
    "bit_r50_224",
    "convnext_tiny_224",
)
TRANSFORMERS = (
    "bert_base_s128",
    "distilbert_s128",
    "mobilebert_s128",
    "squeezebert_s128",
    "gpt2_s128",
    "llama_4l_512_s128",
    "llama_4l_512_decode_p255",
    "vit_b16_224",
    "vit_6l_224_fp16",
    "swin_tiny_224_legacy",
    "swinv2_tiny_256",
    "detr_r50_480x640",
    "segformer_b0_512",
    "mobilevit_s_256",
    "cvt13_224",
    "pvt_v2_b0_224",
    "poolformer_s12_224",
    "focalnet_tiny_224",
    "dpt_b16_384",
    "videomae_b_16f",
    "wav2vec2_base_1s",
    "swin2sr_x2_64",
    "clip_vit_b32",
)
FACTORS = (1.0, 1.1, 1.25, 1.5)
GRIDS = {"R": "stream", "W": "scratchpad"}
EFFORT = 10.0
TIME_LIMIT_S = 60.0
#: Cells on which all back ends solve the same programs.
COMPARED = (
    ("convnext_tiny_224", "R", 1.0),
    ("light_resnet50", "W", 1.0),
    ("distilbert_s128", "R", 1.0),
    ("xception_cl", "R", 1.0),
)
BACK_ENDS = ("cp-sat", "highs", "scip", "cbc")
COMPARE_LIMIT_S = 20.0


def capacity_for(graph: Graph, grid: str, factor: float) -> Accelerator:
    """Return the accelerator of a grid's cell."""
    base = Accelerator(scratchpad=1 << 50, operands="resident", in_place=False, weights=GRIDS[grid])
    smallest = smallest_feasible_capacity(build_problem(graph, base))
    return base.replace(scratchpad=int(factor * smallest))


def run_cell(graph: Graph, accelerator: Accelerator) -> dict[str, object]:
    """Solve one cell; the plan is replayed, and its count is what the table says."""
    problem = build_problem(graph, accelerator)
    row: dict[str, object] = {"operators": problem.operator_count, "capacity": accelerator.scratchpad}
    plans = {name: run_method(problem, method) for name, method in EXISTING.items()}
    for name, plan in plans.items():
        row[name] = noncompulsory_bytes(problem, plan.decisions)
    best = min(plans, key=lambda name: (row[name], name))
    began = time.process_time()
    run = CompileRun(problem, Limits(effort=EFFORT, time_limit_s=TIME_LIMIT_S))
    run.offer(plans[best], best)
    solve_exact(run)
    seconds = time.process_time() - began
    assert run.best is not None
    report = replay_instructions(graph, accelerator, run.best.instructions)
    assert not report.violations, report.violations[0]
    assert report.traffic.noncompulsory == run.noncompulsory_bytes
    return row | {
        "ours": report.traffic.noncompulsory,
        "bound": run.certificate().lower_bound,
        "status": run.certificate().status,
        "cpu_seconds": f"{seconds:.2f}",
        "method": run.bound_method,
    }


def run_cells(models: Path) -> list[dict[str, object]]:
    """Solve every cell; rows are written as they come, so that nothing is lost."""
    rows: list[dict[str, object]] = [dict(row) for row in read_csv(HERE / "cells.csv")]
    known = {(row["model"], row["grid"], str(row["factor"])) for row in rows}
    for family, names in (("CNN", CNNS), ("transformer", TRANSFORMERS)):
        for name in names:
            path = models / f"{name}.onnx"
            if not path.is_file():
                print(f"{name}: no such model in {models}", file=sys.stderr)
                continue
            if all((name, grid, str(factor)) in known for grid in GRIDS for factor in FACTORS):
                continue
            graph = load_onnx(path).graph
            for grid in GRIDS:
                for factor in FACTORS:
                    if (name, grid, str(factor)) in known:
                        continue
                    row = run_cell(graph, capacity_for(graph, grid, factor))
                    rows.append({"model": name, "family": family, "grid": grid, "factor": factor} | row)
                    rows.sort(key=place)
                    write_csv(HERE / "cells.csv", rows)
            print(f"{name}: {len(rows)} cells", file=sys.stderr)
    return rows


def place(row: dict[str, object]) -> tuple[int, str, float]:
    """Where a row stands in the table, whenever it was made."""
    return (*CNNS, *TRANSFORMERS).index(str(row["model"])), str(row["grid"]), float(str(row["factor"]))


def compare_back_ends(models: Path) -> list[dict[str, object]]:
    """Solve the same programs with every back end: replacement for the given order, and the joint program."""
    rows: list[dict[str, object]] = [dict(row) for row in read_csv(HERE / "back_ends.csv")]
    known = {(row["model"], row["program"], row["back_end"]) for row in rows}
    for name, grid, factor in COMPARED:
        if not (models / f"{name}.onnx").is_file():
            continue
        graph = load_onnx(models / f"{name}.onnx").graph
        problem = build_problem(graph, capacity_for(graph, grid, factor))
        programs = {
            "replacement": build_replacement(problem, range(problem.operator_count)).model,
            "joint": build_joint(problem).model,
        }
        for program, model in programs.items():
            for back_end in BACK_ENDS:
                if (name, program, back_end) in known:
                    continue
                result = solve(model, load_profile(back_end), time_limit_s=COMPARE_LIMIT_S)
                rows.append(
                    {
                        "model": name,
                        "grid": grid,
                        "factor": factor,
                        "program": program,
                        "variables": model.variable_count,
                        "rows": model.row_count,
                        "back_end": back_end,
                        "status": str(result.status),
                        "objective": result.objective,
                        "bound": result.bound,
                        "wall_seconds": f"{result.seconds:.2f}",
                    }
                )
                write_csv(HERE / "back_ends.csv", rows)
    return rows


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows with the keys of the first as header."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read rows back, as text."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def kib(text: str) -> str:
    """Write bytes as KiB."""
    return f"{int(text) / 1024:,.0f}" if text not in ("", "None") else "-"


def write_readme() -> None:
    """Summarise both tables."""
    cells, compared = read_csv(HERE / "cells.csv"), read_csv(HERE / "back_ends.csv")
    proven = [row for row in cells if row["status"] == "optimal"]
    seconds = sorted(float(row["cpu_seconds"]) for row in cells)
    lines = ["# Exact plans for CNNs and transformers", ""]
    lines += ["Made by `python results/exact/make.py [MODEL_FOLDER]`. Grids R and W: `operands = resident`,", ""]
    lines[-2] += " `in_place = false`,"
    lines[-1] = "capacity = f x the smallest feasible; W keeps weights in the scratchpad. Every plan was replayed."
    lines += [
        "",
        f"- cells: {len(cells)}; proven optimal, addresses included: {len(proven)}",
        f"- CPU seconds per cell: median {seconds[len(seconds) // 2]:.2f}, "
        f"at most 10 in {sum(s <= 10 for s in seconds)}, at most 60 in {sum(s <= 60 for s in seconds)}, "
        f"largest {seconds[-1]:.1f}",
    ]
    for name in ("e1", "e2", "e3"):
        worse = [row for row in cells if int(row[name]) > 0]
        cut = sum(1 - int(row["ours"]) / int(row[name]) for row in worse) / max(1, len(worse))
        lines.append(f"- mean reduction against {name.upper()}, {len(worse)} cells where it is above 0: {cut:.1%}")
    lines += [
        "",
        "COSMA reports 84 % on networks and sizes that are not published as files; this is a claim to compare",
        "with on our grids, not the same experiment.",
        "",
        "Cells where some method has non-compulsory traffic (KiB); all cells are in `cells.csv`:",
        "",
        "| model | operators | grid | f | E1 | E2 | E3 | ours | bound | status | CPU s |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in cells:
        if any(int(row[name]) for name in ("e1", "e2", "e3", "ours")):
            figures = " | ".join(kib(row[name]) for name in ("e1", "e2", "e3", "ours", "bound"))
            lines.append(
                f"| {row['model']} | {row['operators']} | {row['grid']} | {row['factor']} | {figures} | "
                f"{row['status']} | {row['cpu_seconds']} |"
            )
    lines += ["", "## Back ends on the same programs", ""]
    lines += [
        f"`replacement` is for the given order, `joint` is order and residency; limit {COMPARE_LIMIT_S:.0f} s,"
        " one thread, no warm start.",
        "",
        "| model | grid | program | variables | rows | back end | status | objective KiB | bound KiB | wall s |",
        "| --- | --- | --- | ---: | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for row in compared:
        lines.append(
            f"| {row['model']} | {row['grid']} | {row['program']} | {row['variables']} | {row['rows']} | "
            f"{row['back_end']} | {row['status']} | {kib(row['objective'])} | {kib(row['bound'])} | "
            f"{row['wall_seconds']} |"
        )
    lines += agreement_lines(read_csv(HERE / "agreement.csv"))
    (HERE / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def agreement_lines(modes: list[dict[str, str]]) -> list[str]:
    """Sum up ``agreement.csv``, which ``python -m tests.exact.agreement`` makes."""
    if not modes:
        return []
    lines = ["", "## Agreement on random graphs", ""]
    lines += [
        "Up to 7 operators (`symmetric`: 9), every mode, capacities from infeasible to ample. For each seed a search",
        "over machine states (brute force), the joint program on CP-SAT, HiGHS and CBC, the search over states, and",
        "the replayed plan of `exact` name one optimum, or all call it infeasible. `symmetric` graphs have planted",
        "equal branches, and their programs rows that order these. Made by `python -m tests.exact.agreement 0 2500",
        "--rows FILE`, by the same with `0 500 --symmetric`, and by `--summary FILE...`; `agreement.csv` has a row per",
        "mode, with CPU seconds.",
        "",
        "| graphs | seeds | infeasible | optimum 0 | optimum above 0 | too large | disagreements |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    counts = ("seeds", "infeasible", "zero", "positive", "too large", "disagreements")
    for kind in sorted({row["graphs"] for row in modes}):
        rows = [row for row in modes if row["graphs"] == kind]
        lines.append(f"| {kind} | " + " | ".join(f"{sum(int(row[c]) for row in rows):,}" for c in counts) + " |")
    lines += ["", "CPU seconds in all, child processes included:", ""]
    times = [name for name in modes[0] if name.endswith(" s")]
    lines += ["| " + " | ".join(name[:-2] for name in times) + " |", "| " + " | ".join("---:" for _ in times) + " |"]
    return [*lines, "| " + " | ".join(f"{sum(float(row[name]) for row in modes):,.0f}" for name in times) + " |"]


def main() -> None:
    """Run everything."""
    models = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[1] / "models"
    run_cells(models)
    compare_back_ends(models)
    write_readme()


if __name__ == "__main__":
    main()
