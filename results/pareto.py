"""Search capacity and alignment for a front of traffic against SRAM bytes: `python results/pareto.py [MODEL]`.

Optuna's NSGA-II proposes accelerators, each is planned on, and what no other beats in both non-compulsory traffic
and scratchpad bytes is written to `results/pareto/MODEL.csv` and drawn in `MODEL.svg`. The same seed gives the
same files.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from cosma.experiments import Choice, SizeRange, Study
from cosma.experiments.optuna_optimiser import OptunaOptimiser
from cosma.experiments.study import Evaluation
from cosma.files import write_atomic

HERE = Path(__file__).resolve().parent
SPACE = {"scratchpad": SizeRange("128KiB", "4MiB", log=True), "alignment": Choice((16, 64, 256, 1024))}


def main() -> None:
    """Run the study the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="darts_v2_imagenet", help="a network of the zoo")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--effort", type=float, default=0.5, help="nominal seconds a plan")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    study = Study(
        HERE.parent / "models" / "zoo" / f"{given.model}.onnx",
        SPACE,
        objectives=("noncompulsory", "scratchpad"),
        optimiser=OptunaOptimiser(SPACE, seed=given.seed),
        effort=given.effort,
        seed=given.seed,
        dtype="int8",
    )
    for evaluation in study.run(given.trials):
        print(evaluation.trial.number, evaluation.trial.params, evaluation.values)
    folder = HERE / "pareto"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{given.model}.csv", table(study.front()))
    write_atomic(folder / f"{given.model}.svg", drawing(study, given.model))


def table(front: list[Evaluation]) -> str:
    """Write a front as CSV, by rising scratchpad."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("scratchpad", "alignment", "noncompulsory", "lower_bound", "status"))
    for evaluation in reversed(front):
        plan = evaluation.plan
        assert plan is not None
        accelerator, certificate = plan.accelerator, plan.certificate
        writer.writerow(
            (accelerator.scratchpad, accelerator.alignment, plan.traffic.noncompulsory, certificate.lower_bound,
             certificate.status)
        )  # fmt: skip
    return text.getvalue()


def drawing(study: Study, title: str) -> bytes:
    """Draw every evaluation and the front."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "cosma", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        axes = figure.subplots()
        for evaluations, style in ((study.evaluations, "."), (study.front(), "o-")):
            points = [e.values for e in evaluations if e.values is not None]
            axes.plot([p[1] / 2**20 for p in points], [p[0] / 2**20 for p in points], style, markersize=4)
        axes.set_xlabel("scratchpad, MiB")
        axes.set_ylabel("non-compulsory traffic, MiB")
        axes.set_title(f"{title}, int8: every plan, and the front")
        axes.grid(alpha=0.3)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


if __name__ == "__main__":
    main()
