"""``cosma run``: execute a plan on real bytes and compare the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options

if TYPE_CHECKING:
    from cosma.execute import RunReport
    from cosma.execute.compare import Comparison
    from cosma.execute.whole import SecondReading
    from cosma.plan import Plan


def run(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan for the model.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model the plan was made for.")],
    inputs: Annotated[
        Path | None, typer.Option("--inputs", metavar="X.npz", help="Input arrays by name; the rest is random.")
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            "--kernels", metavar="NAME", help="onnxruntime or reference; by default the better one installed."
        ),
    ] = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    seed: options.Seed = 0,
    whole: Annotated[
        bool, typer.Option("--whole/--no-whole", help="Whether the untouched model is run as a whole and compared.")
    ] = True,
    json: options.Json = False,
) -> None:
    """Execute a plan with real kernels on a scratchpad of real bytes.

    Every operator reads and writes at the plan's addresses; free bytes are poisoned. The results are compared bit
    for bit with running the same operators without a plan, and the traffic is counted from the bytes copied. The
    untouched model is run as a whole too, and its outputs are compared within rounding.
    The plan is replayed against the model first. Exit code 0 if all is equal, 4 if not or if the replay fails.
    """
    from cosma.cli.output import note, print_json
    from cosma.cli.plans import load_valid_plan, reservations
    from cosma.errors import InputError, PlanInvalidError
    from cosma.execute import run_plan
    from cosma.execute.kernels import KernelError
    sizes = options.parse_sizes(dim, bound)
    loaded = load_valid_plan(plan, model, sizes)
    if kernels not in (None, "onnxruntime", "reference"):
        raise InputError(f"--kernels must be onnxruntime or reference, not {kernels!r}")
    try:
        report = run_plan(
            loaded,
            model,
            inputs=None if inputs is None else read_arrays(inputs),
            dims=sizes,
            kernels=kernels,  # type: ignore[arg-type]  # checked above
            seed=seed,
            whole=whole,
        )
    except KernelError as error:
        if kernels != "onnxruntime":
            raise
        raise InputError(f"{error}; `--kernels reference` may, or leave --kernels out") from error
    if json:
        print_json(run_record(report))
    else:
        _print(report, loaded)
    for remark in reservations(loaded):
        note(f"note: {remark}")
    for check in report.outputs:
        if check.distinct <= 1 and check.size_bytes > 8:
            note(f"note: output {check.name!r} is one value throughout, so its equality proves little")
        if check.non_finite > 0:
            note(f"note: {100 * check.non_finite:.1f} % of output {check.name!r} is not finite")
    if not report.equal:
        where = report.difference
        first = "" if where is None else (
            f"; the first difference is at instruction {where.instruction}: operator {where.operator!r} yields another "
            f"{where.tensor!r}"
        )
        raise PlanInvalidError(f"{plan}: executed, and the numbers differ{first}; `cosma check` may say why")
    if not report.traffic_as_planned:
        raise PlanInvalidError(
            f"{plan}: executed, and {report.traffic.total} bytes were copied where the plan says {loaded.traffic.total}"
        )
    wrong = next((output for output in report.untiled if not output.is_equal), None)
    if wrong is not None:
        raise PlanInvalidError(
            f"{plan}: executed as planned, but tiles yield another {wrong.name!r} than the operators uncut "
            f"({_how_far(wrong)}): some tile does not read all that it needs; `cosma check` with the model says which"
        )
    if report.whole.verdict == "different":
        raise PlanInvalidError(f"{plan}: executed as planned, but {_contradiction(report.whole)}")


def read_arrays(path: Path) -> dict[str, Any]:
    """Read an ``.npz`` file; raises InputError if it is none, or holds pickled objects."""
    import zipfile

    import numpy as np

    from cosma.errors import InputError
    from cosma.files import open_regular

    open_regular(path, "--inputs").close()
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise InputError(f"--inputs {path}: holds one array without a name; save it with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"--inputs {path}: not a readable .npz file: {error}") from error


def run_record(report: RunReport) -> dict[str, Any]:
    """A run's findings as a record; sizes in bytes."""
    from dataclasses import asdict

    record = asdict(report)
    record["traffic"] |= {"total": report.traffic.total, "noncompulsory": report.traffic.noncompulsory}
    return record


def _contradiction(whole: SecondReading) -> str:
    """How the model as a whole contradicts the plan's results, in one line."""
    wrong = next(output for output in whole.outputs if not output.is_equal)
    what = _how_far(wrong)
    first = "" if whole.first_difference is None else f"; the first tensor that differs is {whole.first_difference!r}"
    return (
        f"the whole model run by {whole.reader} yields another {wrong.name!r} ({what}){first}: the plan was made from "
        "a wrong reading of the model, or the kernels disagree"
    )


def _how_far(output: Comparison) -> str:
    return output.remark or (
        f"{output.beyond} of {output.elements} elements differ, by up to {output.largest:.3g} where "
        f"{output.allowed:.3g} is rounding"
    )


def _print(report: RunReport, plan: Plan) -> None:
    from collections import Counter

    from cosma.cli.output import print_rows
    from cosma.units import format_size

    traffic = report.traffic
    rows = [
        ("operators executed", str(report.operators), f"{report.nodes} ONNX nodes"),
        ("weights made up", str(report.invented_weights), "the file does not hold them"),
        ("scratchpad", format_size(plan.accelerator.scratchpad), f"used up to {format_size(report.highest_bytes)}"),
        ("traffic counted", format_size(traffic.total), f"{traffic.total} B; the plan says {plan.traffic.total}"),
        (
            "  loaded / stored / streamed",
            "",
            " / ".join(format_size(x) for x in (traffic.loaded, traffic.stored, traffic.streamed)),
        ),
    ]
    if report.scale > 1:
        rows.append(
            ("element width", f"x {report.scale}", f"counted as {plan.dtype}, executed at full width, addresses scaled")
        )
    if report.taken_over:
        types = Counter(node.type for node in report.taken_over)
        which = ", ".join(f"{kind} x {count}" if count > 1 else kind for kind, count in types.most_common(5))
        others = f" and {len(types) - 5} more" if len(types) > 5 else ""
        rows.append(("reference kernels", str(len(report.taken_over)), f"nodes that it cannot run: {which}{others}"))
    if report.broken_views:
        rows.append(("not views after all", str(len(report.broken_views)), ", ".join(report.broken_views[:5])))
    against = "the same tiles run without a plan" if report.untiled else "the run without a plan"
    rows.append(("verdict", "equal" if report.equal else "DIFFERENT", f"bit for bit, against {against}"))
    if report.untiled:
        largest = max(output.largest for output in report.untiled)
        fine = all(output.is_equal for output in report.untiled)
        tensors, elements = len(report.untiled), sum(output.elements for output in report.untiled)
        remark = f"within rounding, against the operators uncut: {tensors} tensors of {elements:,} elements"
        remark += f"; largest difference {largest:.3g}"
        if report.moved:
            remark += f"; {len(report.moved)} of them on the operands of the uncut run, as rounding moved those"
        rows.append(("tiles", "equal" if fine else "DIFFERENT", remark))
    whole = report.whole
    remark = whole.reason
    if whole.verdict != "not compared":
        largest = max((output.largest for output in whole.outputs), default=0.0)
        remark = f"by {whole.reader}, within rounding; largest difference {largest:.3g}"
        remark += f" ({whole.reason})" if whole.reason else ""
    rows.append(("model as a whole", "DIFFERENT" if whole.verdict == "different" else whole.verdict, remark))
    print_rows(f"{plan.model_name} executed with {report.kernels}", ("", "", ""), rows, right=(1,))
    outputs = [(o.name, str(o.size_bytes), str(o.different_bytes), str(o.distinct)) for o in report.outputs]
    print_rows("Graph outputs", ("name", "bytes", "different", "distinct values"), outputs, right=(1, 2, 3))
