"""``cosma pack``: addresses for buffers with fixed lifetimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.packing import Buffer, PackingResult


def pack(
    buffers: Annotated[Path, typer.Argument(metavar="BUFFERS.csv", help="id,lower,upper,size[,offset], MiniMalloc's.")],
    capacity: Annotated[
        str | None, typer.Option("--capacity", metavar="SIZE", help="Bytes available, such as 1MiB.")
    ] = None,
    alignment: options.Alignment = None,
    minimise: Annotated[bool, typer.Option("--minimise", help="Look for the smallest capacity.")] = False,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="auto, heuristics, search or cp-sat.")
    ] = "auto",
    work: Annotated[
        int | None, typer.Option("--work", metavar="N", help="Work limit in units of 5 to 10 us; default 3,000,000.")
    ] = None,
    time_limit: options.TimeLimit = None,
    seed: options.Seed = 0,
    output: options.Output = None,
    figure: options.Figures = None,
    json: options.Json = False,
) -> None:
    """Pack buffers into a scratchpad, or prove that they do not fit.

    Without --output the addresses are printed as CSV. Exit code 3 if infeasible, 1 if undecided at the limit. Ctrl-C
    keeps the lowest packing that --minimise has met; without one, the exit code is 130.
    """
    from cosma.cli.output import CSV, FIGURE, claim_outputs, deliver, deliver_figures, note, print_data, print_json
    from cosma.errors import CosmaError, InfeasibleError, InputError
    from cosma.packing import ENGINES, WORK_LIMIT, PackingStatus
    from cosma.packing import pack as pack_buffers
    from cosma.packing.csvfile import format_buffers
    from cosma.units import parse_size

    if engine not in ENGINES:
        raise InputError(f"--engine {engine!r} is unknown; choose one of {', '.join(ENGINES)}")
    if capacity is None and not minimise:
        raise InputError("give --capacity SIZE (such as 1MiB), or --minimise to find the smallest")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"--time-limit {time_limit}: give a positive number of seconds")
    if work is not None and work < 0:
        raise InputError(f"--work {work} is negative; give a number of units of work")
    claim_outputs({"--output": (output, CSV), "--figure": (figure, FIGURE)}, [buffers], json=json)
    limit = None if capacity is None else parse_size(capacity, "--capacity")
    step = 1 if alignment is None else parse_size(alignment, "--alignment")
    loaded, time_limit = _read(buffers, limit, time_limit)
    units = WORK_LIMIT if work is None else work
    if minimise:
        result = _minimise(loaded, step, engine, units, time_limit, seed)
        if limit is not None and result.lower_bound > limit:
            raise InfeasibleError(f"{buffers}: the smallest capacity is at least {result.lower_bound}, not {limit}")
        if limit is not None and result.height is not None and result.height > limit:
            raise CosmaError(
                f"{buffers}: undecided in {limit} bytes: reached {result.height}, proven at least "
                f"{result.lower_bound}; raise --work or --time-limit"
            )
    else:
        result = pack_buffers(
            loaded, limit or 0, alignment=step, engine=engine, work_limit=units, time_limit=time_limit, seed=seed
        )
    if result.packed and output is not None:
        deliver(output, format_buffers(loaded, result.offsets), "the packing")
    if result.packed and figure:
        deliver_figures(figure, lambda kind: _picture(kind, buffers.name, loaded, result, limit))
    if json:
        print_json(_report(result))
    elif result.packed and output is None:
        print_data(format_buffers(loaded, result.offsets))
    if result.packed:
        if result.reason:
            note(result.reason)
        proof = "the lowest possible" if result.optimal else f"lower bound {result.lower_bound}"
        note(f"packed {counted(len(loaded), 'buffer')} in {result.height} bytes ({proof}), by {result.engine}")
    elif result.status is PackingStatus.INFEASIBLE:
        kind = "irreducible set" if result.irreducible else "set"
        raise InfeasibleError(
            f"{buffers}: infeasible in {limit} bytes: {result.reason}; {kind} that cannot fit together: "
            f"{', '.join(result.conflict)}; try --minimise for the smallest capacity"
        )
    else:
        raise CosmaError(
            f"{buffers}: undecided in {limit} bytes, {result.reason}; raise --work or --time-limit, or give "
            f"more than {result.lower_bound} bytes"
        )


def _read(path: Path, capacity: int | None, time_limit: float | None) -> tuple[list[Buffer], float | None]:
    """Buffers of a file, and what is left of a time limit for packing alone.

    What follows the packing takes less than reading.
    """
    from cosma.clock import Clock
    from cosma.packing.csvfile import read_buffers

    clock = Clock()
    found = read_buffers(path, capacity=capacity)
    return found, None if time_limit is None else max(0.05, time_limit - 2 * clock.elapsed_s())


def _minimise(
    buffers: Sequence[Buffer], alignment: int, engine: str, work_limit: int, time_limit: float | None, seed: int
) -> PackingResult:
    """Pack as low as the limits allow; on Ctrl-C, the lowest packing met so far, which says so."""
    from dataclasses import replace

    from cosma.cli.interrupts import Interruption
    from cosma.packing import minimise

    met: list[PackingResult] = []
    try:
        with Interruption(grace_s=0.0):
            return minimise(
                buffers, alignment=alignment, engine=engine, work_limit=work_limit,  # type: ignore[arg-type]  # checked
                time_limit=time_limit, seed=seed, progress=met.append,
            )  # fmt: skip
    except KeyboardInterrupt:
        if not met:
            raise
        return replace(met[-1], reason="interrupted: this is the lowest packing so far")


def _picture(
    kind: str, name: str, buffers: Sequence[Buffer], result: PackingResult, capacity: int | None
) -> str | bytes:
    from cosma.packing.picture import picture
    from cosma.units import format_size

    top = result.height or 0
    of = f" of {format_size(capacity)}" if capacity else ""
    # A capacity far above what is taken would leave the picture empty.
    shown = capacity if capacity is not None and capacity < 2 * top else top
    return picture(
        kind, buffers, result.offsets, shown, title=f"{name}: {format_size(top)}{of}, by {result.engine}"
    )


def _report(result: PackingResult) -> dict[str, object]:
    return {
        "status": str(result.status),
        "capacity": result.capacity,
        "height": result.height,
        "lower_bound": result.lower_bound,
        "optimal": result.optimal,
        "engine": result.engine,
        "reason": result.reason,
        "work": result.work,
        "conflict": list(result.conflict),
        "irreducible": result.irreducible,
        "offsets": result.offsets,
    }
