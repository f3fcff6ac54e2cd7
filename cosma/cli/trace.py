"""``cosma trace``: a plan on a time axis, estimated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.errors import InputError
from cosma.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.accelerator import Accelerator
    from cosma.plan import Plan
    from cosma.plan.costs import Estimate


def trace(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file.")],
    output: options.Output = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL", help="Take multiply-accumulates from this model.")
    ] = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    accelerator: options.AcceleratorName = None,
    bandwidth: Annotated[
        str | None, typer.Option("--bandwidth", metavar="SIZE", help="Off-chip bytes per second, e.g. 1.6GB.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option("--dma-latency", metavar="S", help="Seconds before each transfer's first byte.")
    ] = None,
    clock: Annotated[float | None, typer.Option("--clock", metavar="HZ", help="Cycles per second.")] = None,
    macs_per_cycle: Annotated[
        float | None, typer.Option("--macs-per-cycle", metavar="N", help="Multiply-accumulates per cycle.")
    ] = None,
    overlap: Annotated[
        bool | None, typer.Option("--overlap/--no-overlap", help="Whether transfers and operators run at once.")
    ] = None,
    times: Annotated[
        Path | None, typer.Option("--times", metavar="FILE.csv", help="Times: operator,seconds (or microseconds).")
    ] = None,
    operators: Annotated[
        Path | None, typer.Option("--operators", metavar="FILE.csv", help="Write a row for each operator.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE.csv", help="Write one row for the whole plan.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Estimate a plan's time and energy, and write a trace for Perfetto (ui.perfetto.dev) or Chrome.

    The plan is replayed first; an invalid one ends with exit code 4. The numbers are estimates by a simple model
    (see the documentation), not measurements. Bandwidth, clock and multiply-accumulates per cycle come from the
    accelerator, the options go before it.
    """
    from cosma.cli.output import CSV, PLAN, claim_outputs, deliver, note, print_json
    from cosma.cli.plans import load_valid_plan
    from cosma.plan.costs import estimate, read_times
    from cosma.report.operators import operators_csv, summary_csv
    from cosma.report.trace import trace_json
    from cosma.units import parse_size

    outputs = {"--output": (output, PLAN), "--operators": (operators, CSV), "--summary": (summary, CSV)}
    claim_outputs(outputs, [plan, model, times], json=json)
    if model is None:
        options.only_with("--model", {"--dim": dim, "--bound": bound})
    loaded = load_valid_plan(plan)
    given = {
        "bandwidth_bytes_per_s": None
        if bandwidth is None
        else float(parse_size(bandwidth.removesuffix("/s"), "--bandwidth")),
        "dma_latency_s": latency,
        "clock_hz": clock,
        "macs_per_cycle": macs_per_cycle,
        "overlap": overlap,
    }
    chosen = estimated_by(loaded, accelerator, given, timed=times is not None)
    macs = None if model is None else macs_of(loaded, model, options.parse_sizes(dim, bound))
    found = estimate(loaded, chosen, macs=macs, times_s=None if times is None else read_times(times))
    if output is not None:
        deliver(output, trace_json(loaded, found), "the trace")
        note("open it at ui.perfetto.dev or chrome://tracing")
    if operators is not None:
        deliver(operators, operators_csv(loaded, found, chosen, macs), "the table")
    if summary is not None:
        deliver(summary, summary_csv(loaded, found, chosen, macs), "the summary")
    if json:
        print_json(
            {
                "estimate": True,
                "total_s": found.total_s,
                "compute_s": found.compute_s,
                "dma_s": found.dma_s,
                "arithmetic_s": found.arithmetic_s,
                "streaming_s": found.streaming_s,
                "waiting_s": found.waiting_s,
                "energy_j": found.energy_j,
                "operators_timed_by_bytes": len(found.guessed),
            }
        )
        return
    _print(loaded, chosen, found, with_model=model is not None)


def _print(plan: Plan, chosen: Accelerator, found: Estimate, *, with_model: bool) -> None:
    from cosma.cli.output import note, print_rows, share

    together = "transfers overlap with operators" if chosen.overlap else "one thing after the other"
    work = "computing" if found.guessed else "multiplying and adding"
    rows = [("time", seconds(found.total_s), together)]
    for name, value, what in (
        ("arithmetic", found.arithmetic_s, f"of the time; {work}"),
        ("streaming", found.streaming_s, "operators are held up by what they stream"),
        ("waiting", found.waiting_s, "nothing to run until loads or stores are done"),
    ):
        rows.append((f"  {name}", seconds(value), f"{share(value, found.total_s)} {what}"))
    busy = f"{share(found.dma_s, found.total_s)} of the time, beside the above where transfers overlap"
    rows.append(("DMA busy", seconds(found.dma_s), busy))
    energy = "-" if found.energy_j is None else f"{1e3 * found.energy_j:.4g} mJ"
    rows.append(("energy", energy, "" if found.energy_j is not None else "the accelerator states none"))
    print_rows(f"{plan.model_name}: an estimate, not a measurement", ("", "", ""), rows, right=(1,))
    if found.guessed:
        hint = "" if with_model else "; --model gives them"
        which = counted(len(found.guessed), "operator")
        note(f"note: estimated from bytes, as no multiply-accumulates are known: {which}{hint}")


def seconds(value: float) -> str:
    """Write a time with a unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"


def estimated_by(
    plan: Plan, name: str | None, given: Mapping[str, object] | None = None, *, timed: bool = False
) -> Accelerator:
    """Take the plan's accelerator with the figures of a preset or file, and of options before them.

    Raises InputError if a figure is missing that an estimate needs; ``timed`` is whether operators have times of their
    own.
    """
    chosen = plan.accelerator
    if name is not None:
        from cosma.accelerator.files import find_accelerator

        figures = find_accelerator(name).accelerator
        chosen = chosen.replace(
            name=figures.name,
            bandwidth_bytes_per_s=figures.bandwidth_bytes_per_s,
            dma_latency_s=figures.dma_latency_s,
            clock_hz=figures.clock_hz,
            macs_per_cycle=figures.macs_per_cycle,
            overlap=figures.overlap,
            energy_pj_per_byte=figures.energy_pj_per_byte,
            energy_pj_per_mac=figures.energy_pj_per_mac,
        )
    chosen = chosen.replace(**{key: value for key, value in (given or {}).items() if value is not None})
    _check_figures(chosen, name, timed)
    return chosen


#: Options that state what an estimate cannot do without.
_FIGURES = {"bandwidth_bytes_per_s": "--bandwidth", "clock_hz": "--clock", "macs_per_cycle": "--macs-per-cycle"}


def _check_figures(chosen: Accelerator, name: str | None, timed: bool) -> None:
    """Say what is missing for an estimate, and why a preset leaves it out."""
    needed = ["bandwidth_bytes_per_s", *([] if timed else ["clock_hz", "macs_per_cycle"])]
    missing = [field for field in needed if getattr(chosen, field) is None]
    if not missing:
        return
    options_ = " and ".join(_FIGURES[field] for field in missing)
    if name is None:
        raise InputError(
            f"an estimate needs {', '.join(missing)}, which a plan file does not hold: give --accelerator with a "
            f"preset or file that states them, or {options_}"
        )
    from cosma.accelerator.files import find_accelerator

    reasons = find_accelerator(name).unpublished
    why = "; ".join(f"{field}: {reasons[field]}" for field in missing if field in reasons)
    said = f" ({why})" if why else ""
    raise InputError(f"accelerator {name} states no {' and no '.join(missing)}{said}; give {options_}")


def macs_of(plan: Plan, model: Path, dims: dict[str, int]) -> dict[str, int]:
    """Multiply-accumulates of the plan's operators, summed over the nodes each covers.

    Raises InputError if the model is another one.
    """
    from cosma.cli.plans import model_of
    from cosma.plan.tiles import tile_shares

    graph = model_of(plan, model, dims).graph
    by_result = {operator.outputs[0]: operator.macs for operator in graph.operators}
    found: dict[str, int] = {}
    shares = tile_shares(plan.graph)
    for operator in plan.graph.operators:
        known = [by_result[name] for name in (operator.covers or operator.outputs) if by_result.get(name) is not None]
        if known:
            whole = sum(macs for macs in known if macs is not None)
            found[operator.name] = round(whole * shares[operator.name])
    names = {operator.name for operator in plan.graph.operators}
    if plan.model_sha256 is None and not names & {operator.name for operator in graph.operators}:
        raise InputError(f"{model} is not the model that the plan was made from: it has none of its operators")
    return found
