"""``cosma place``: put the experts of a Mixture-of-Experts model on devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options, routing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.placement import PlaceOptions
    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement
    from cosma.placement.survey import Survey
    from cosma.placement.topology import Topology
    from cosma.placement.traces import Trace

NodesOption = Annotated[int | None, typer.Option("--nodes", metavar="N", help="Nodes.")]
DevicesPerNodeOption = Annotated[
    int | None, typer.Option("--devices-per-node", metavar="N", help="Devices in each node.")
]
LevelsOption = Annotated[
    str | None,
    typer.Option("--levels", metavar="N,N,...", help="Tree of more levels, outermost first, e.g. 2,4,8."),
]
UnevenOption = Annotated[
    str | None,
    typer.Option("--uneven", metavar="N,N,...", help="Devices of each node, where nodes differ."),
]
CostsOption = Annotated[
    str | None,
    typer.Option("--costs", metavar="C,C,...", help="Cost of crossing each level, outermost first. Default 2,1."),
]
CapacitiesOption = Annotated[
    str | None,
    typer.Option("--capacities", metavar="N,N,...", help="Experts per layer each device holds."),
]
StrategyOption = Annotated[
    str, typer.Option("--strategy", metavar="NAME", help="auto, search, exact, exflow, vanilla or eplb.")
]
BalanceOption = Annotated[
    float | None, typer.Option("--balance", metavar="RATIO", help="Limit of max over mean load, e.g. 1.1.")
]
BalanceScopeOption = Annotated[
    str, typer.Option("--balance-scope", metavar="each|mean", help="Limit each layer, or the mean.")
]
ReplicasPerDeviceOption = Annotated[
    int,
    typer.Option("--replicas-per-device", metavar="N", help="Places for copies on each device and layer."),
]
RoutingOption = Annotated[
    str | None,
    typer.Option(
        "--routing", metavar="NAME", help="How servers choose among copies: nearest (default), split or least-loaded."
    ),
]
BatchTokensOption = Annotated[
    int, typer.Option("--batch-tokens", "--batch", metavar="N", help="Tokens of a batch, for least-loaded.")
]
CurrentOption = Annotated[
    Path | None, typer.Option("--current", metavar="FILE", help="Placement in force, any format.")
]
MaxMovesOption = Annotated[
    int | None, typer.Option("--max-moves", metavar="N", help="Experts that may move from --current.")
]
MaxMovedOption = Annotated[
    str | None,
    typer.Option("--max-moved", metavar="SIZE", help="The same in bytes; needs --expert-size."),
]
ExpertSizeOption = Annotated[str | None, typer.Option("--expert-size", metavar="SIZE", help="Bytes of one expert.")]
ScoreOption = Annotated[
    Path | None, typer.Option("--score", metavar="FILE", help="Only score this placement, any format.")
]
HoldoutOption = Annotated[
    float | None, typer.Option("--holdout", metavar="SHARE", help="Share of the trace to report on only.")
]
EvaluateOption = Annotated[
    list[str] | None,
    typer.Option("--evaluate", metavar="ARRAY", help="Also report on this array; repeatable."),
]
HiddenOption = Annotated[
    int | None, typer.Option("--hidden", metavar="N", help="Hidden size: also estimate communication.")
]
DtypeOption = Annotated[str, typer.Option("--dtype", metavar="TYPE", help="Type of activations for the estimate.")]
BoundOption = Annotated[
    str, typer.Option("--lower-bound", metavar="NAME", help="How to compute it: none, quick or thorough.")
]
WorkOption = Annotated[
    int | None,
    typer.Option("--work", metavar="N", help="Work limit in swap proposals; default by size of the model."),
]
FormOption = Annotated[str, typer.Option("--format", metavar="NAME", help="cosma, exflow, eplb, sglang or vllm.")]
DenseRowsOption = Annotated[
    bool,
    typer.Option("--dense-rows", help="Written maps also have rows for the model's layers without experts."),
]


def place(
    trace: routing.TracePath,
    nodes: NodesOption = None,
    devices_per_node: DevicesPerNodeOption = None,
    levels: LevelsOption = None,
    uneven: UnevenOption = None,
    costs: CostsOption = None,
    capacities: CapacitiesOption = None,
    array: routing.ArrayOption = None,
    experts: routing.ExpertsOption = None,
    kind: routing.KindOption = None,
    dense_layers: routing.DenseOption = None,
    routing_shape: routing.ShapeOption = None,
    strategy: StrategyOption = "auto",
    balance: BalanceOption = None,
    balance_scope: BalanceScopeOption = "each",
    replicas_per_device: ReplicasPerDeviceOption = 0,
    routing_rule: RoutingOption = None,
    batch_tokens: BatchTokensOption = 1024,
    current: CurrentOption = None,
    max_moves: MaxMovesOption = None,
    max_moved: MaxMovedOption = None,
    expert_size: ExpertSizeOption = None,
    score: ScoreOption = None,
    holdout: HoldoutOption = None,
    evaluate: EvaluateOption = None,
    hidden: HiddenOption = None,
    dtype: DtypeOption = "float16",
    bound: BoundOption = "quick",
    work: WorkOption = None,
    time_limit: options.TimeLimit = None,
    seed: options.Seed = 0,
    output: options.Output = None,
    form: FormOption = "cosma",
    dense_rows: DenseRowsOption = False,
    figure: options.Figures = None,
    json: options.Json = False,
) -> None:
    """Place experts so that tokens cross few links, with a bound; or score anyone's placement."""
    from cosma.cli import place_report
    from cosma.cli.output import CSV, FIGURE, PLAN, claim_outputs, deliver, deliver_figures, note
    from cosma.placement import PlaceOptions, read_affinity
    from cosma.placement.exchange import read_any

    claim_outputs({"--output": (output, (*PLAN, *CSV)), "--figure": (figure, FIGURE)}, [trace], json=json)
    whole = routing.open_given(trace, array, kind, dense_layers, routing_shape)
    found = _survey(whole, experts)
    # What is only reported on is opened before the search, so that a wrong name costs nothing.
    others = {name: routing.open_given(trace, name, kind, dense_layers, routing_shape) for name in evaluate or []}
    _check_dtype(hidden, dtype)
    fitted, held_out = whole.split(holdout) if holdout is not None else (whole, None)
    topology = topology_of(nodes, devices_per_node, levels, uneven, costs, capacities)
    affinity = read_affinity(fitted, experts)
    dense = sorted({*routing.parse_layers(dense_layers), *found.dense})
    rows = dense if dense_rows else []
    _check_parts(others, affinity)
    _check_form(form, rows, affinity, topology if score is None else None, replicas_per_device)
    said: list[str] = []

    def read(path: Path) -> Placement:
        return read_any(path, topology, affinity.experts, layers=affinity.layers, dense=dense, notes=said)

    if score is not None:
        placement = _given(score, topology, read(score))
    else:
        topology = needed(topology)
        wanted = PlaceOptions(
            strategy=strategy, seed=seed, proposals=work, balance=balance, balance_scope=balance_scope,
            replicas_per_device=replicas_per_device, routing=routing_rule or "nearest",
            current=None if current is None else place_report.in_force(read(current)),
            max_moves=_budget(max_moves, max_moved, expert_size), bound=bound, seconds=time_limit,
        )  # fmt: skip
        placement = _search(affinity, topology, wanted, fitted, batch_tokens, quiet=json)
    for line in said:
        note(f"note: {line}")
    parts = {"fitted on": fitted, **({"held out": held_out} if held_out else {}), **others}
    room = replicas_per_device if score is None else None
    report = place_report.report(placement, affinity, parts, room, routing_rule, batch_tokens)
    report |= {"notes": [*found.notes, *said]} | _estimates(placement, affinity, hidden, dtype)
    deliver_figures(figure, lambda kind: place_report.draw(kind, placement, affinity))
    if output is not None:
        deliver(output, _text(placement, form, affinity.load, rows), "the placement")
    place_report.show(report, json, scored=score is not None)


def _survey(trace: Trace, experts: int | None) -> Survey:
    """Look a trace over, and say what was noticed."""
    from cosma.cli.output import note
    from cosma.placement.traces import survey

    found = survey(trace, experts)
    for line in found.notes:
        note(f"note: {line}")
    if found.kind.startswith("load"):
        note("note: these are counts of load, not a trace: load alone is balanced, crossings are unknown")
    return found


def _estimates(placement: Placement, affinity: Affinity, hidden: int | None, dtype: str) -> dict[str, Any]:
    """What the communication of a placement costs, where that is asked for and known."""
    from cosma.cli import place_report
    from cosma.cli.output import note

    if hidden is None:
        return {}
    if affinity.has_affinity:
        return {"estimates": place_report.estimates(placement, affinity, hidden, dtype)}
    note("note: counts of load say nothing of crossings, so communication is not estimated")
    return {}


def _search(
    affinity: Affinity, topology: Topology, wanted: PlaceOptions, trace: Trace, batch_tokens: int, *, quiet: bool
) -> Placement:
    """Place the experts; an interrupt ends the search with the best placement so far."""
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import note
    from cosma.cli.place_report import progress_line
    from cosma.placement.on_tokens import place_on_tokens
    from cosma.placement.service import place as place_experts
    from cosma.placement.traces import is_counts

    with Interruption() as interruption, progress_line(quiet=quiet) as shown:
        hooks = replace(wanted, interrupted=interruption.happened, progress=shown)
        if is_counts(trace):
            placement = place_experts(affinity, topology, hooks)
        else:
            placement = place_on_tokens(affinity, topology, hooks, trace.chunks, batch_tokens)
    if is_counts(trace) and wanted.balance is not None and "estimated" in placement.metrics:
        note("note: the limit is kept by an estimate from counts; whether tokens keep it, only tokens could say")
    if interruption.happened():
        reached = placement.solver.get("balance") or 1.0
        over = f", and its imbalance on the tokens, {reached:.3f}, is above the limit"
        broken = wanted.balance is not None and reached > wanted.balance
        note(f"interrupted; this is the best placement so far, and not reproducible{over if broken else ''}")
    return placement


def _check_dtype(hidden: int | None, dtype: str) -> None:
    from cosma.errors import InputError
    from cosma.placement.simulate import DTYPE_BYTES

    if hidden is not None and dtype not in DTYPE_BYTES:
        raise InputError(f"--dtype {dtype}: expected one of {', '.join(DTYPE_BYTES)}")


def _check_parts(parts: dict[str, Trace], affinity: Affinity) -> None:
    """Refuse traces to report on that are of another model than the one to place."""
    from cosma.errors import InputError
    from cosma.placement.traces import experts_of, is_counts, survey

    for part in (part for part in parts.values() if not is_counts(part)):
        layers, experts = survey(part).layers, experts_of(part)
        if layers != affinity.layers or experts > affinity.experts:
            raise InputError(
                f"{part.where}: {layers} layers and {experts} experts, to be placed are {affinity.layers} layers of "
                f"{affinity.experts}; give parts of one model's trace, and --experts if the first misses some"
            )


def _check_form(
    form: str, dense: Sequence[int], affinity: Affinity, topology: Topology | None, replicas_per_device: int
) -> None:
    """Refuse a form that cannot hold what is to be written, by writing experts in order."""
    from cosma.errors import InputError
    from cosma.placement import Placement
    from cosma.placement.baselines import vanilla
    from cosma.placement.exchange import export

    if form == "exflow" and replicas_per_device:
        raise InputError("--format exflow has one device per expert; use eplb, sglang or vllm for replicas")
    if topology is not None and (form != "cosma" or dense):
        export(Placement(topology, vanilla(affinity, topology)), form, dense=dense)


def _text(placement: Placement, form: str, load: Any, dense: Sequence[int]) -> str:
    """Return the file to write, and say what a format needed beyond the placement."""
    from cosma.cli.output import note
    from cosma.placement.exchange import export
    from cosma.placement.filling import filled

    if form not in {"cosma", "exflow"}:
        whole = filled(placement, load)
        if whole is not placement:
            before, after = (sum(len(held) for row in p.copies() for held in row) for p in (placement, whole))
            note(f"note: {after - before} free places were filled with copies of experts of other devices")
        placement = whole
    return export(placement, form, load=load, dense=dense)


def numbers(text: str | None, option: str, kind: type[Any]) -> list[Any] | None:
    """Read numbers separated by commas; None where the option was not given."""
    from cosma.errors import InputError

    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r}: write numbers separated by commas") from error


def topology_of(
    nodes: int | None,
    devices_per_node: int | None,
    levels: str | None,
    uneven: str | None,
    costs: str | None,
    capacities: str | None,
) -> Topology | None:
    """Build the devices from whichever options describe them; None where none does."""
    from cosma.errors import InputError
    from cosma.placement import Topology
    from cosma.placement.topology import DEFAULT_COSTS

    grid = nodes is not None or devices_per_node is not None
    if sum((grid, levels is not None, uneven is not None)) > 1:
        raise InputError("give the devices once: --nodes and --devices-per-node, or --levels, or --uneven")
    held = numbers(capacities, "--capacities", int)
    prices = numbers(costs, "--costs", float)
    if uneven is not None:
        return Topology.uneven(numbers(uneven, "--uneven", int) or [], prices or DEFAULT_COSTS, held)
    if levels is not None:
        branching = numbers(levels, "--levels", int) or []
        return Topology.tree(branching, prices or [float(n) for n in range(len(branching), 0, -1)], held)
    if grid:
        if nodes is None or devices_per_node is None:
            raise InputError("--nodes and --devices-per-node belong together")
        return Topology.grid(nodes, devices_per_node, prices or DEFAULT_COSTS, held)
    return None


def needed(topology: Topology | None) -> Topology:
    """Refuse to go on without devices."""
    from cosma.errors import InputError

    if topology is None:
        raise InputError("no devices: give --nodes N --devices-per-node D (or --levels, or --uneven)")
    return topology


def _budget(max_moves: int | None, max_moved: str | None, expert_size: str | None) -> int | None:
    from cosma.errors import InputError
    from cosma.units import parse_size

    if (max_moved is None) != (expert_size is None):
        raise InputError("--max-moved needs --expert-size, and the other way round")
    if max_moved is None or expert_size is None:
        return max_moves
    if max_moves is not None:
        raise InputError("give the budget once: --max-moves or --max-moved")
    size = parse_size(expert_size, "--expert-size")
    if size == 0:
        raise InputError("--expert-size: must be more than 0 bytes")
    return parse_size(max_moved, "--max-moved") // size


def _given(path: Path, topology: Topology | None, placement: Placement) -> Placement:
    """Return the placement to score, which must be for the devices given, if any are."""
    from cosma.errors import InputError

    if topology is not None and placement.topology.paths != topology.paths:
        raise InputError(
            f"--score {path}: the placement is for {placement.topology.devices} devices; drop the topology options"
        )
    return placement
