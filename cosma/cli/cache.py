"""``cosma cache``: which experts a device holds, when it fetches others, and what the best possible would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options, routing

if TYPE_CHECKING:
    from cosma.caching.requests import Requests
    from cosma.caching.results import CacheReport
    from cosma.caching.service import CacheOptions
    from cosma.placement.traces import Trace

TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="Routing trace, in any form that place reads.")]
Slots = Annotated[
    int | None, typer.Option("--slots", metavar="N", help="Experts a device holds: of a layer; of all with --shared.")
]
Share = Annotated[
    float | None, typer.Option("--share", metavar="SHARE", help="The same as a share of all experts, such as 0.5.")
]
Shared = Annotated[bool, typer.Option("--shared", help="One pool of slots for all layers, not one a layer.")]
OneByOne = Annotated[
    bool, typer.Option("--one-by-one", help="Experts of a step run in turn; one slot is set aside to pass through.")
]
Batch = Annotated[int, typer.Option("--batch-tokens", "--batch", metavar="N", help="Tokens that run together.")]
Prefetch = Annotated[int, typer.Option("--prefetch", metavar="DEPTH", help="Layers to look ahead; 0: none.")]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", metavar="NAME", help="optimum, belady, affinity, frequency, lfu or lru; repeatable. Default: all."
    ),
]
ExpertSize = Annotated[str | None, typer.Option("--expert-size", metavar="SIZE", help="Bytes of one expert.")]
Bandwidth = Annotated[
    str | None, typer.Option("--bandwidth", metavar="SIZE", help="Bytes a second of each device's link, such as 25GB.")
]
LayerTime = Annotated[float, typer.Option("--layer-time", metavar="S", help="Seconds of arithmetic of one step.")]
HostTime = Annotated[
    float | None,
    typer.Option("--host-time", metavar="S", help="Seconds to compute one token's visit to an expert on the host."),
]
Experts = Annotated[
    int | None, typer.Option("--experts", metavar="N", help="Experts per layer, if the trace may miss some.")
]
Evaluate = Annotated[
    list[str] | None,
    typer.Option("--evaluate", metavar="ARRAY", help="Array to run; repeatable. Default: all named eval_..."),
]
PlacementFile = Annotated[
    Path | None, typer.Option("--placement", metavar="FILE", help="Devices of the experts, from cosma place.")
]


def cache(
    trace: TracePath,
    slots: Slots = None,
    share: Share = None,
    shared: Shared = False,
    one_by_one: OneByOne = False,
    batch: Batch = 1,
    prefetch: Prefetch = 0,
    policy: Policies = None,
    expert_size: ExpertSize = None,
    bandwidth: Bandwidth = None,
    layer_time: LayerTime = 0.0,
    host_time: HostTime = None,
    experts: Experts = None,
    array: routing.ArrayOption = None,
    evaluate: Evaluate = None,
    kind: routing.KindOption = None,
    dense_layers: routing.DenseOption = None,
    routing_shape: routing.ShapeOption = None,
    placement: PlacementFile = None,
    json: options.Json = False,
) -> None:
    """Compare policies for experts that do not all fit on a device with the proven optimum."""
    from dataclasses import asdict

    from cosma.caching import CacheOptions
    from cosma.caching.service import POLICIES

    _check(slots, batch, prefetch, layer_time, host_time, experts)
    source = routing.open_given(trace, array, kind, dense_layers, routing_shape)
    learnt, runs = _read(source, evaluate, experts, batch)
    first = next(iter(runs.values()))
    size = _bytes(expert_size, "--expert-size")
    wanted = CacheOptions(
        slots=_slots(slots, share, shared, first),
        shared=shared,
        together=not one_by_one,
        policies=tuple(policy or POLICIES),
        prefetch=prefetch,
        expert_bytes=size or 0,
        fetch_s=_fetch_s(size, bandwidth),
        step_s=layer_time,
        host_s=host_time,
    )
    device = None if placement is None else _devices(placement, first)
    reports, interrupted = _run(runs, wanted, learnt, device, quiet=json)
    if json:
        from cosma.cli.output import print_json

        stopped = {"stopped_by": "interrupt"} if interrupted else {}
        found = {name: asdict(report) for name, report in reports.items()}
        print_json({"options": asdict(wanted), "reports": found, **stopped})
    else:
        _print(reports, sized=size is not None, timed=bandwidth is not None)


def _run(
    runs: dict[str, Requests], options: CacheOptions, learnt: Requests, device: Any, *, quiet: bool
) -> tuple[dict[str, CacheReport], bool]:
    """Run the policies on every part; an interrupt leaves those that have run, and is told of."""
    from functools import partial

    from cosma.caching import plan_cache
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import note
    from cosma.cli.place_report import progress_line
    from cosma.patience import patiently

    reports: dict[str, CacheReport] = {}
    with Interruption() as interruption, progress_line(quiet=quiet) as shown:
        stop = interruption.happened
        run = partial(plan_cache, learnt_from=learnt, device=device, progress=shown, interrupted=stop)
        for name, requests in runs.items():
            report = patiently(partial(run, requests, options), lambda: None, stop)
            if report is not None:
                reports[name] = report
        if not reports:
            raise KeyboardInterrupt
    if interruption.happened():
        note("interrupted; these are the policies that have run so far")
    return reports, interruption.happened()


def _check(
    slots: int | None, batch: int, prefetch: int, layer_time: float, host_time: float | None, experts: int | None
) -> None:
    """Refuse numbers that make no sense under the names they were given by."""
    from cosma import door

    counts: dict[str, tuple[int | None, int]] = {
        "--slots": (slots, 1), "--batch-tokens": (batch, 1), "--prefetch": (prefetch, 0), "--experts": (experts, 1),
    }  # fmt: skip
    for option, (count, least) in counts.items():
        if count is not None:
            door.integer(count, option, least=least)
    for option, seconds in (("--layer-time", layer_time), ("--host-time", host_time)):
        if seconds is not None:
            door.number(seconds, option)


def _read(
    source: Trace, evaluate: list[str] | None, experts: int | None, batch: int
) -> tuple[Requests, dict[str, Requests]]:
    """Read what to learn from and what to run; a trace without parts to run is both."""
    from cosma.caching import read_requests
    from cosma.cli.output import note
    from cosma.errors import InputError
    from cosma.placement.traces import experts_of, open_trace, survey

    runs = {
        name: open_trace(source.path, name, kind=source.kind, dense=source.dense, shape=source.shape)
        for name in evaluate or _parts(source)
    }
    traces = [source, *runs.values()]
    count = max(experts_of(trace, experts) for trace in traces)
    layers = survey(source).layers
    for trace in traces:
        found = survey(trace)
        for line in found.notes:
            note(f"note: {trace.where}: {line}")
        if found.layers != layers:
            raise InputError(
                f"{trace.where}: {found.layers} layers use experts, in {source.where} {layers}; "
                "give parts of one model's trace"
            )
    learnt = read_requests(source.chunks(), count, batch)
    if not runs:
        note("the trace has no part of its own to run: policies run on what they learnt from")
        return learnt, {source.array or source.path.name: learnt}
    return learnt, {name: read_requests(trace.chunks(), count, batch) for name, trace in runs.items()}


def _parts(source: Trace) -> list[str]:
    """Return the arrays of an archive that are there to be run."""
    from cosma.placement.trace_arrays import array_names

    if source.array is None:
        return []
    names = sorted(name for name in array_names(source.path) if name.startswith("eval_") and name != source.array)
    return [name for name in names if not name.endswith("_tok")]


def _slots(slots: int | None, share: float | None, shared: bool, requests: Requests) -> int:
    from cosma.errors import InputError

    if (slots is None) == (share is None):
        raise InputError("give the room of a device once: --slots N or --share S")
    if slots is not None:
        return slots
    assert share is not None
    if not 0 < share <= 1:
        raise InputError(f"--share {share}: a share of the experts, above 0 and at most 1")
    return max(1, int(share * (requests.pages if shared else requests.experts)))


def _bytes(text: str | None, option: str) -> int | None:
    from cosma.units import parse_size

    return None if text is None else parse_size(text, option)


def _fetch_s(size: int | None, bandwidth: str | None) -> float:
    from cosma.errors import InputError

    if bandwidth is None:
        return 1.0
    rate = _bytes(bandwidth, "--bandwidth")
    if size is None or not rate:
        raise InputError("--bandwidth needs --expert-size, and must be more than 0 bytes a second")
    return size / rate


def _devices(path: Path, requests: Requests) -> Any:
    """Return the device of each expert: its home, where a placement gives it copies."""
    from cosma.cli.output import note
    from cosma.placement.exchange import read_any

    placement = read_any(path, None, requests.experts)
    copied = sum(len(copies) > 1 for row in placement.copies() for copies in row)
    if copied:
        note(f"note: placement {path}: {copied} experts have copies; the home of each serves it, copies take no slots")
    return placement.devices


def _print(reports: dict[str, CacheReport], *, sized: bool, timed: bool) -> None:
    from cosma.cli.output import make_table, print_table, print_text, share
    from cosma.units import format_size

    columns = ["run", "policy", "hits", "fetched", "ahead", "on host", "above optimum"]
    columns += ["moved"] if sized else []
    columns += ["waiting s", "total s"] if timed else []
    table = make_table(None, columns, right=range(2, len(columns)))
    for name, report in reports.items():
        for result in report.results:
            row = [
                name,
                result.policy,
                share(result.hits, result.requests),
                str(result.fetches),
                str(result.prefetches),
                str(result.hosted),
                "-" if result.above_optimum is None else f"{100 * result.above_optimum:.1f} %",
            ]
            row += [format_size(result.moved_bytes)] if sized else []
            row += [f"{result.stalled_s:.3f}", f"{result.total_s:.3f}"] if timed else []
            table.add_row(*row)
    print_table(table)
    for name, report in reports.items():
        end = "proven: a schedule reaches it" if report.proven else "not reached by any schedule found"
        alone = "" if report.least_mix_s is None else "without the host "
        print_text(
            f"{name}: {alone}every schedule fetches at least {report.lower_bound_fetches} experts ({end}), "
            f"{report.compulsory_fetches} of them for the first time"
        )
        if report.least_mix_s is not None:
            end = "proven: the optimum takes no more" if report.mix_proven else "not reached within the work limit"
            print_text(
                f"{name}: every schedule takes at least {report.least_mix_s:.3f} s of links and hosts, summed over "
                f"requests ({end})"
            )
