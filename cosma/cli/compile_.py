"""``cosma compile``: a model in, a validated plan out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.errors import InputError

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.compiler import CompileResult
    from cosma.plan import Plan


#: Endings of files that hold a program for another solver.
PROGRAM = (".mps", ".lp", ".pb", ".pbtxt")
#: Assumptions about sizes that are printed; a long list hides the result.
MOST_NOTES = 5


Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="auto, exact, divide, ilp, existing, e1, e2, e3 (`cosma presets` explains them), or "
        "ORDER+REPLACEMENT+ADDRESSES.",
        autocompletion=options.strategy_names,
    ),
]
Effort = Annotated[
    float,
    typer.Option(
        "--effort", metavar="N", min=0.0,
        help="Work to spend, counted in steps, so that the same effort gives the same plan. The default takes about "
        "20 s of processor time, with tiles 10 to 40; an effort of 1 takes 5, with tiles 10 to 20. A proof ends it "
        "sooner.",
    ),
]
Gap = Annotated[
    float, typer.Option("--gap", metavar="SHARE", help="Stop at this proven gap; 0.01 is one per cent.")
]
TradeOff = Annotated[
    float,
    typer.Option(
        "--trade-off", metavar="SHARE",
        help="Take a plan that moves up to this share more for fewer transfers; 0.05 is five per cent.",
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        "--solver", metavar="NAME|FILE.toml", help="Back end of exact and ilp.", autocompletion=options.solver_names
    ),
]
Starts = Annotated[
    list[Path] | None,
    typer.Option(
        "--start",
        metavar="PLAN.json",
        help="Go on from a plan of the same network, never worse than it where it is valid here; repeat for more.",
    ),
]
Parameters = Annotated[
    Path | None, typer.Option("--params", metavar="FILE.toml", help="Change tuning parameters; see the docs.")
]
OffChip = Annotated[bool, typer.Option("--off-chip", help="Also say where each tensor lies off-chip.")]
Tiling = Annotated[
    str,
    typer.Option(
        "--tiling",
        metavar="none|auto|RULE|FILE.toml",
        help="Cut operators into tiles by a rule (rows=8, stripes=4), by a file, or as suits the capacity (auto).",
        autocompletion=options.tiling_names,
    ),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="OUTPUT=INPUT",
        help="An output that is the next value of an input, in the same place off-chip; repeat for more.",
    ),
]
ExportModel = Annotated[
    Path | None,
    typer.Option("--export-model", metavar="FILE", help="Write the program (.mps, .lp, .pb) and solve nothing."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also say which method found the plan and which the bound.")
]


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
    zero_copy: options.ZeroCopy = None,
    pieces: options.Pieces = None,
    dtype: options.Dtype = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    strategy: Strategy = "auto",
    effort: Effort = 10.0,
    time_limit: options.TimeLimit = None,
    gap: Gap = 0.0,
    seed: options.Seed = 0,
    trade_off: TradeOff = 0.0,
    solver: Solver = None,
    start: Starts = None,
    params: Parameters = None,
    constraints: options.ConstraintsFile = None,
    off_chip: OffChip = False,
    tiling: Tiling = "none",
    state: States = None,
    export_model: ExportModel = None,
    output: options.Output = None,
    json: options.Json = False,
    verbose: Verbose = False,
) -> None:
    """Plan a model onto an accelerator and say what it costs.

    The plan has been replayed; its traffic is what the replay counted. Ctrl-C ends the search and keeps the
    best plan found so far.
    """
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import PLAN, claim_outputs, deliver, note
    from cosma.cli.progress import ProgressLine
    from cosma.compiler import Limits, run_compile
    from cosma.compiler.request import read_model

    claim_outputs({"--output": (output, PLAN), "--export-model": (export_model, PROGRAM)}, [model], json=json)
    chosen = options.make_accelerator(
        accelerator, scratchpad=scratchpad, alignment=alignment, operands=operands, weights=weights, reserved=reserved,
        in_place=in_place, fusion=fusion, zero_copy=zero_copy, pieces=pieces,
    )  # fmt: skip
    sizes = options.parse_sizes(dim, bound)
    if export_model is not None:
        planned = {
            "--start": start, "--tiling": tiling != "none", "--zero-copy": zero_copy, "--state": state,
            "--output": output, "--off-chip": off_chip, "--solver": solver, "--params": params,
            "--strategy": strategy != "auto", "--time-limit": time_limit, "--gap": gap, "--trade-off": trade_off,
        }  # fmt: skip
        if without := [option for option, given in planned.items() if given]:
            raise InputError(
                f"--export-model writes the program of whole operators that copy, and solves nothing: it takes no "
                f"{', '.join(without)}"
            )
        _export(model, chosen, export_model, constraints, dtype=dtype, dims=sizes)
        return
    limits = Limits(effort=effort, time_limit_s=time_limit, gap=gap, trade_off=trade_off)
    with Interruption() as interruption, ProgressLine(quiet=json) as line:
        began_s = time.monotonic()
        source = read_model(model, sizes)
        line.expected_s = _expected_s(effort, len(source.graph.operators), tiling)
        result = run_compile(
            source, chosen, limits=limits, strategy=strategy, seed=seed, dtype=dtype, solver=solver,
            starts=start or (), tiling=tiling, states=options.parse_states(state), parameters=params,
            constraints=constraints, off_chip=off_chip, sink=line, interrupted=interruption.happened,
            on_interrupt="best", began_s=began_s,
        )  # fmt: skip
    if output is not None:
        from cosma.plan.file import plan_to_json

        deliver(output, plan_to_json(result.plan), "the plan")
    _print_result(result, json=json, verbose=verbose)
    if not json:
        for line_ in _what_next(result, output=output, tiling=tiling, cuttable=model.suffix != ".json"):
            note(line_)


def _expected_s(effort: float, operators: int, tiling: str) -> float:
    """How long a compile is likely to take, in processor time, where no proof ends it sooner.

    Whole operators took 5 s at an effort of 1, 9 at 4, 17 to 19 at 10. With tiles, which are also laid out and
    replayed, networks of 49 to 500 operators took 11 to 19 s at 1, 12 to 25 at 4, 9 to 43 at 10; ResNet-50 and U-Net
    44 and 50 at 30. This is within a factor of about two of each.
    """
    if tiling == "none":
        return 3.0 + 1.6 * effort
    return 6.0 + 1.3 * effort + min(operators, 670) / 45


def _export(
    model: Path, accelerator: Accelerator, path: Path, constraints: Path | None, *, dtype: str | None,
    dims: dict[str, int],
) -> None:  # fmt: skip
    """Write the joint program with addresses: linear for .mps and .lp, with intervals for CP-SAT's .pb."""
    from cosma.accelerator.constraint_files import read_constraints
    from cosma.cli.output import note
    from cosma.compiler.fusion import fusion_choices
    from cosma.compiler.request import read_model
    from cosma.joint import build_joint, check_supported
    from cosma.problem import build_problem
    from cosma.rewrite import count_as
    from cosma.rewrite.constraints import expand
    from cosma.solvers import export_model

    if accelerator.operands == "stationary":
        raise InputError(
            "--export-model writes a program with one mode for each operator, and operands = stationary leaves a "
            "choice; export it for operands = streamable or resident"
        )
    graph = read_model(model, dims).graph
    graph = count_as(graph, dtype).graph
    if constraints is not None:
        accelerator = accelerator.replace(constraints=expand(read_constraints(constraints), graph, accelerator))
    problem = build_problem(fusion_choices(graph, accelerator)[0].graph, accelerator)
    check_supported(problem)
    program = build_joint(problem, addresses="intervals" if path.suffix in (".pb", ".pbtxt") else "linear").model
    export_model(program, path)
    note(
        f"wrote {path}: {program.variable_count} variables, {program.row_count} rows; objective in units of "
        f"{program.objective_granule} bytes, less {program.offset} bytes"
    )


def _print_result(result: CompileResult, *, json: bool, verbose: bool) -> None:
    from cosma.cli.output import note, print_json, print_table
    from cosma.cli.tables import plan_summary, plan_tables

    summary = plan_summary(result.plan)
    summary |= {
        "found_by": result.found_by,
        "stopped_by": result.stopped_by,
        "reproducible": result.reproducible,
        "seconds": round(result.seconds, 3),
        "seconds_by_phase": {phase: round(seconds, 3) for phase, seconds in result.seconds_by_phase.items()},
        "existing": {
            name: {"total": traffic.total, "noncompulsory": traffic.noncompulsory}
            for name, traffic in result.existing.items()
        },
    }
    if result.starts:
        summary["starts"] = [
            {"plan": start.source, "used": "order" if start.why_not else "plan", "why": start.why_not}
            for start in result.starts
        ]
    if result.left_out:
        summary["left_out"] = dict(result.left_out)
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
    for table in plan_tables(result.plan, existing=existing_rows(result), verbose=verbose):
        print_table(table)
    if verbose:
        for engine, why in result.left_out.items():
            note(f"{engine} left out: {why}")
        spent = sorted(result.seconds_by_phase.items(), key=lambda entry: -entry[1])
        note(f"seconds: {', '.join(f'{phase} {seconds:.1f}' for phase, seconds in spent if seconds >= 0.05)}")
    if "trade_off" in result.plan.solver:
        note(traded_line(result.plan))
    note(closing_line(result, verbose=verbose))


def traded_line(plan: Plan) -> str:
    """Say what a trade-off took and gave."""
    from cosma.plan.overheads import transfer_sizes

    least, its_transfers = plan.solver["least_traffic"], plan.solver["transfers_of_least"]
    more, transfers = plan.traffic.total - least, sum(1 for _ in transfer_sizes(plan))
    if transfers >= its_transfers:
        share = 100 * float(plan.solver["trade_off"])
        return f"trade-off: no plan found that moves at most {share:g} % more takes fewer transfers"
    return (
        f"trade-off: {100 * more / least if least else 0:.1f} % more traffic than the least found, for {transfers:,} "
        f"transfers instead of {its_transfers:,}"
    )


def existing_rows(result: CompileResult) -> list[tuple[str, str, str]]:
    """How much the plan moves beside existing methods, for the table of a plan; empty where nothing was compared."""
    from cosma.heuristics import EXISTING

    plan = result.plan
    if plan.solver.get("strategy") in EXISTING:
        return []
    if not result.existing:
        if plan.graph.is_tiled:
            return [("existing methods", "no plan", "uncut, the network does not fit")]
        return []
    best = min(result.existing, key=lambda name: result.existing[name].total)
    labels = {"  order as given, LRU": "e1"} | ({} if best == "e1" else {"  best existing method": best})
    return [
        _existing_row(label, name, result.existing[name].total, plan.traffic.total, best=name == best)
        for label, name in labels.items()
        if name in result.existing
    ]


def _existing_row(label: str, name: str, total: int, mine: int, *, best: bool) -> tuple[str, str, str]:
    from cosma.compiler.strategies import STRATEGIES
    from cosma.units import format_size

    if mine < total:
        gain = f"this plan moves {100 * (1 - mine / total):.1f} % less"
    else:
        gain = "as much as this plan" if mine == total else "less than this plan"
    which = "" if not best else "; no existing method moves less" if name == "e1" else f" ({STRATEGIES[name].summary})"
    return (label, format_size(total), gain + which)


def closing_line(result: CompileResult, *, verbose: bool = False) -> str:
    """Say why a compile stopped."""
    from cosma.report.facts import among_which

    how = {
        "proof": f"proven optimal among {among_which(result.plan)}"
        if result.plan.traffic.noncompulsory
        else "proven optimal: nothing is moved beyond the compulsory traffic",
        "gap": "stopped at the gap asked for",
        "work": "stopped because the effort is spent",
        "time": "stopped at the time limit; this plan is not reproducible",
        "interrupt": "interrupted; this is the best plan so far, and not reproducible",
    }[result.stopped_by]
    if result.stopped_by == "work" and not _searches(result.plan):
        how = "planned by this method alone, without a search"
    found = f", found by {result.found_by}" if verbose else ""
    return f"{how} ({result.seconds:.1f} s{found})"


def _searches(plan: Plan) -> bool:
    """Whether more effort would have let the strategy do more."""
    from cosma.compiler.strategies import WITH_STARTS

    strategy = plan.solver.get("strategy")
    return strategy in WITH_STARTS and strategy != "existing"


def _what_next(result: CompileResult, *, output: Path | None, tiling: str, cuttable: bool) -> list[str]:
    """What would help, and what to look at; only advice that applies."""
    from cosma.files import is_standard_output
    from cosma.report.facts import among_which

    plan = result.plan
    lines: list[str] = []
    helps: list[str] = []
    if plan.traffic.noncompulsory:
        if not _searches(plan):
            helps.append("--strategy auto, which searches")
        elif plan.certificate.status != "optimal" or (tiling == "auto" and among_which(plan) != "plans of any tiling"):
            helps.append(f"--effort {max(1.0, 4 * float(plan.solver.get('effort', 2.5))):g}")
        if tiling == "none" and cuttable:
            helps.append("--tiling auto, which cuts operators into tiles")
        if tiling == "auto" and plan.accelerator.pieces and not plan.graph.is_tiled:
            helps.append("a larger --pieces: no tiles were found whose operands lie in so few address ranges")
        helps.append("a larger --scratchpad: `cosma curve` shows what each size saves")
        lines.append(f"may move less: {'; '.join(helps)}")
    if output is not None and not is_standard_output(output):
        import shlex

        name = shlex.quote(str(output))
        why = f"; `cosma explain {name}` says why tensors left" if plan.traffic.noncompulsory else ""
        lines.append(f"look at it: cosma report {name} -o report.html{why}")
    return lines
