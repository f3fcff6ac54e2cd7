"""``cosma compile``: a model in, a validated plan out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.errors import InputError

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.compiler import CompileResult, Progress
    from cosma.plan import Plan


#: Endings of files that hold a program for another solver.
PROGRAM = (".mps", ".lp", ".pb", ".pbtxt")
#: Assumptions about sizes that are printed; a long list hides the result.
MOST_NOTES = 5


def compile_(
    model: options.Model,
    scratchpad: options.Scratchpad = None,
    accelerator: options.AcceleratorName = None,
    alignment: options.Alignment = None,
    operands: options.OperandsMode = None,
    weights: options.WeightsMode = None,
    reserved: options.Reserved = None,
    in_place: options.InPlace = None,
    fusion: options.FusionMode = None,
    dtype: options.Dtype = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    strategy: Annotated[
        str, typer.Option("--strategy", help="See `cosma presets`; or ORDER+REPLACEMENT+ADDRESSES.")
    ] = "auto",
    effort: Annotated[
        float, typer.Option("--effort", metavar="S", help="Work to spend, in nominal seconds; repeatable.")
    ] = 10.0,
    time_limit: options.TimeLimit = None,
    gap: Annotated[float, typer.Option("--gap", help="Stop at this proven gap; 0.01 is one per cent.")] = 0.0,
    seed: options.Seed = 0,
    solver: Annotated[
        str | None, typer.Option("--solver", metavar="NAME|FILE.toml", help="Back end of exact and ilp.")
    ] = None,
    start: Annotated[
        list[Path] | None,
        typer.Option(
            "--start",
            metavar="PLAN.json",
            help="Go on from a plan of the same network, never worse than it where it is valid here; repeat for more.",
        ),
    ] = None,
    params: Annotated[
        Path | None, typer.Option("--params", metavar="FILE.toml", help="Change tuning parameters; see the docs.")
    ] = None,
    tiling: Annotated[
        str,
        typer.Option(
            "--tiling", metavar="none|auto|RULE|FILE.toml", help="Cut operators into tiles; RULE: rows=8, stripes=4."
        ),
    ] = "none",
    export_model: Annotated[
        Path | None,
        typer.Option("--export-model", metavar="FILE", help="Write the program (.mps, .lp, .pb) and solve nothing."),
    ] = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Plan a model onto an accelerator and say what it costs.

    The plan has been replayed; its traffic is what the replay counted. Ctrl-C ends the search and keeps the
    best plan found so far.
    """
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import PLAN, claim_outputs, deliver
    from cosma.compiler import Limits, run_compile

    claim_outputs({"--output": (output, PLAN), "--export-model": (export_model, PROGRAM)}, json=json)
    chosen = options.make_accelerator(
        accelerator,
        scratchpad=scratchpad,
        alignment=alignment,
        operands=operands,
        weights=weights,
        reserved=reserved,
        in_place=in_place,
        fusion=fusion,
    )
    if export_model is not None:
        if start:
            raise InputError("--export-model writes the program and solves nothing: it takes no --start")
        _export(model, chosen, export_model, dtype=dtype, dims=options.parse_sizes(dim, bound))
        return
    limits = Limits(effort=effort, time_limit_s=time_limit, gap=gap)
    with Interruption() as interruption, _ProgressLine(quiet=json) as line:
        result = run_compile(
            model,
            chosen,
            strategy=strategy,
            limits=limits,
            seed=seed,
            dtype=dtype,
            dims=options.parse_sizes(dim, bound),
            solver=solver,
            starts=start or (),
            tiling=tiling,
            sink=line,
            interrupted=interruption.happened,
            on_interrupt="best",
            parameters=params,
        )
    if output is not None:
        from cosma.plan.file import plan_to_json

        deliver(output, plan_to_json(result.plan), "the plan", announce=False)
    _print_result(result, json=json)


def _export(model: Path, accelerator: Accelerator, path: Path, *, dtype: str | None, dims: dict[str, int]) -> None:
    """Write the joint program with addresses: linear for .mps and .lp, with intervals for CP-SAT's .pb."""
    from cosma.cli.output import note
    from cosma.compiler.compile import read_model
    from cosma.compiler.fusion import fusion_choices
    from cosma.joint import build_joint, check_joint_size
    from cosma.problem import build_problem
    from cosma.rewrite import count_as
    from cosma.solvers import export_model

    graph = read_model(model, dims).graph
    graph = count_as(graph, dtype).graph
    problem = build_problem(fusion_choices(graph, accelerator)[0].graph, accelerator)
    check_joint_size(problem)
    program = build_joint(problem, addresses="intervals" if path.suffix in (".pb", ".pbtxt") else "linear").model
    export_model(program, path)
    note(
        f"wrote {path}: {program.variable_count} variables, {program.row_count} rows; objective in units of "
        f"{program.objective_granule} bytes, less {program.offset} bytes"
    )


class _ProgressLine:
    """One line on a terminal's stderr that is overwritten as the compile goes on; nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._width = 0

    def __enter__(self) -> _ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")

    def __call__(self, progress: Progress) -> None:
        if not self._shown:
            return
        from cosma.cli.output import share
        from cosma.units import format_size

        achieved, bound = progress.noncompulsory_bytes, progress.bound_bytes
        text = (
            f"{progress.seconds:6.1f} s  {progress.phase}: non-compulsory {format_size(achieved)}, "
            f"bound {format_size(bound)}, gap {share(achieved - bound, achieved) if achieved else '0.0 %'}"
        )
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


def _print_result(result: CompileResult, *, json: bool) -> None:
    from cosma.cli.output import note, print_json, print_table
    from cosma.cli.tables import plan_summary, plan_tables

    summary = plan_summary(result.plan)
    summary |= {
        "found_by": result.found_by,
        "stopped_by": result.stopped_by,
        "reproducible": result.reproducible,
        "seconds": round(result.seconds, 3),
    }
    if result.starts:
        summary["starts"] = [
            {"plan": start.source, "used": "order" if start.why_not else "plan", "why": start.why_not}
            for start in result.starts
        ]
    if result.assumptions:
        summary["assumptions"] = list(result.assumptions)
    for start in result.starts:
        if start.why_not:
            note(f"{start.name} ({start.source}) is not valid here, so only its order is used: {start.why_not}")
    if json:
        print_json(summary)
        return
    for assumption in result.assumptions[:MOST_NOTES]:
        note(assumption)
    if len(result.assumptions) > MOST_NOTES:
        note(f"{len(result.assumptions) - MOST_NOTES} more assumptions about sizes: `cosma inspect` lists them")
    for table in plan_tables(result.plan):
        print_table(table)
    note(_closing_line(result, result.plan))


def _closing_line(result: CompileResult, plan: Plan) -> str:
    how = {
        "proof": "proven optimal",
        "gap": "the gap asked for is reached",
        "work": "the effort is spent; more may help: --effort",
        "time": "the time limit is reached; this plan is not reproducible",
        "interrupt": "interrupted; this is the best plan so far, and not reproducible",
    }[result.stopped_by]
    return f"{how} ({result.seconds:.1f} s, found by {result.found_by})"
