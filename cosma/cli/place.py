"""``cosma place``: put the experts of a Mixture-of-Experts model on devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options

if TYPE_CHECKING:
    from cosma.placement.document import Placement
    from cosma.placement.topology import Topology
    from cosma.placement.traces import Trace


TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="Routing trace: .npy, .npz, .jsonl, or counts.")]
NodesOption = Annotated[int | None, typer.Option("--nodes", help="Nodes.")]
DevicesPerNodeOption = Annotated[int | None, typer.Option("--devices-per-node", help="Devices in each node.")]
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
ArrayOption = Annotated[str | None, typer.Option("--array", help="Array of an archive; default profile.")]
ExpertsOption = Annotated[int | None, typer.Option("--experts", help="Experts per layer, if the trace may miss some.")]
StrategyOption = Annotated[str, typer.Option("--strategy", help="auto, search, exact, exflow, vanilla or eplb.")]
BalanceOption = Annotated[float | None, typer.Option("--balance", help="Limit of max over mean load, e.g. 1.1.")]
BalanceScopeOption = Annotated[str, typer.Option("--balance-scope", help="Limit each layer, or the mean.")]
ReplicasPerDeviceOption = Annotated[
    int,
    typer.Option("--replicas-per-device", help="Places for copies on each device and layer."),
]
CurrentOption = Annotated[Path | None, typer.Option("--current", help="Placement in force, any format.")]
MaxMovesOption = Annotated[int | None, typer.Option("--max-moves", help="Experts that may move from --current.")]
MaxMovedOption = Annotated[
    str | None,
    typer.Option("--max-moved", metavar="SIZE", help="The same in bytes; needs --expert-size."),
]
ExpertSizeOption = Annotated[str | None, typer.Option("--expert-size", metavar="SIZE", help="Bytes of one expert.")]
ScoreOption = Annotated[Path | None, typer.Option("--score", help="Only score this placement, any format.")]
HoldoutOption = Annotated[float | None, typer.Option("--holdout", help="Share of the trace to report on only.")]
EvaluateOption = Annotated[
    list[str] | None,
    typer.Option("--evaluate", metavar="ARRAY", help="Also report on this array; repeatable."),
]
HiddenOption = Annotated[int | None, typer.Option("--hidden", help="Hidden size: also estimate communication.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="Type of activations for the estimate.")]
BoundOption = Annotated[str, typer.Option("--bound", help="Lower bound: none, quick or thorough.")]
WorkOption = Annotated[
    int | None,
    typer.Option("--work", help="Work limit in swap proposals; default by size of the model."),
]
FormOption = Annotated[str, typer.Option("--format", help="cosma, exflow, eplb, sglang or vllm.")]
HeatMapOption = Annotated[Path | None, typer.Option("--heat-map", help="Write a figure before and after.")]


def place(
    trace: TracePath,
    nodes: NodesOption = None,
    devices_per_node: DevicesPerNodeOption = None,
    levels: LevelsOption = None,
    uneven: UnevenOption = None,
    costs: CostsOption = None,
    capacities: CapacitiesOption = None,
    array: ArrayOption = None,
    experts: ExpertsOption = None,
    strategy: StrategyOption = "auto",
    balance: BalanceOption = None,
    balance_scope: BalanceScopeOption = "each",
    replicas_per_device: ReplicasPerDeviceOption = 0,
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
    heat_map: HeatMapOption = None,
    json: options.Json = False,
) -> None:
    """Place experts so that tokens cross few links, with a bound; or score anyone's placement."""
    from cosma.cli.output import CSV, HEAT_MAP, PLAN, claim_outputs, deliver
    from cosma.placement import PlaceOptions, open_trace, read_affinity
    from cosma.placement.exchange import export, read_any
    from cosma.placement.service import place as place_experts

    claim_outputs({"--output": (output, (*PLAN, *CSV)), "--heat-map": (heat_map, HEAT_MAP)}, json=json)
    whole = open_trace(trace, array)
    fitted, held_out = whole.split(holdout) if holdout is not None else (whole, None)
    topology = _topology(nodes, devices_per_node, levels, uneven, costs, capacities)
    affinity = read_affinity(fitted, experts)
    if score is not None:
        placement = _given(score, topology, affinity.experts)
    else:
        topology = _needed(topology)
        in_force = None if current is None else read_any(current, topology, affinity.experts).devices
        wanted = PlaceOptions(
            strategy=strategy, seed=seed, proposals=work, balance=balance, balance_scope=balance_scope,
            replicas_per_device=replicas_per_device, current=in_force,
            max_moves=_budget(max_moves, max_moved, expert_size), bound=bound, seconds=time_limit,
        )  # fmt: skip
        placement = place_experts(affinity, topology, wanted)
    parts = {"fitted on": fitted, **({"held out": held_out} if held_out else {})}
    parts |= {name: open_trace(trace, name) for name in evaluate or []}
    report = _report(placement, affinity, parts, replicas_per_device if score is None else None)
    if hidden is not None:
        report["estimates"] = _estimates(placement, affinity, hidden, dtype)
    if heat_map is not None:
        _draw(heat_map, placement, affinity)
    if output is not None:
        deliver(output, export(placement, form), "the placement", announce=False)
    _show(report, json)


def _numbers(text: str | None, option: str, kind: type[Any]) -> list[Any] | None:
    from cosma.errors import InputError

    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r}: write numbers separated by commas") from error


def _topology(
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
    held = _numbers(capacities, "--capacities", int)
    prices = _numbers(costs, "--costs", float)
    if uneven is not None:
        return Topology.uneven(_numbers(uneven, "--uneven", int) or [], prices or DEFAULT_COSTS, held)
    if levels is not None:
        branching = _numbers(levels, "--levels", int) or []
        return Topology.tree(branching, prices or [float(n) for n in range(len(branching), 0, -1)], held)
    if grid:
        if nodes is None or devices_per_node is None:
            raise InputError("--nodes and --devices-per-node belong together")
        return Topology.grid(nodes, devices_per_node, prices or DEFAULT_COSTS, held)
    return None


def _needed(topology: Topology | None) -> Topology:
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


def _given(path: Path, topology: Topology | None, experts: int) -> Placement:
    """Read the placement to score, which must be for the devices given, if any are."""
    from cosma.errors import InputError
    from cosma.placement.exchange import read_any

    placement = read_any(path, topology, experts)
    if topology is not None and placement.topology.paths != topology.paths:
        raise InputError(
            f"--score {path}: the placement is for {placement.topology.devices} devices; drop the topology options"
        )
    return placement


def _report(
    placement: Placement, affinity: Any, traces: dict[str, Trace], replicas_per_device: int | None
) -> dict[str, Any]:
    """Check the placement and recount its cost, beside the baselines', on every part of the trace."""
    from dataclasses import asdict

    from cosma.placement import Placement, check_placement, score
    from cosma.placement.baselines import eplb, vanilla
    from cosma.placement.check import copies_beyond_room
    from cosma.placement.metrics import summary
    from cosma.placement.traces import is_counts

    room = copies_beyond_room(placement) if replicas_per_device is None else replicas_per_device
    check_placement(placement, room)
    others = {
        "vanilla": Placement(placement.topology, vanilla(affinity, placement.topology)),
        "eplb": Placement(placement.topology, eplb(affinity, placement.topology)),
    }
    scores: dict[str, Any] = {}
    for name, trace in traces.items():
        if is_counts(trace):
            rows = {
                label: summary(affinity, p.topology, p.devices)
                for label, p in {"placement": placement, **others}.items()
            }
        else:
            rows = {label: asdict(score(p, trace.chunks())) for label, p in {"placement": placement, **others}.items()}
        scores[name] = rows
    return {
        "valid": True,
        "layers": placement.layers,
        "experts": placement.experts,
        "devices": placement.topology.devices,
        "metrics": dict(placement.metrics),
        "certificate": dict(placement.certificate),
        "solver": dict(placement.solver),
        "scores": scores,
    }


def _estimates(placement: Placement, affinity: Any, hidden: int, dtype: str) -> dict[str, Any]:
    from cosma.placement.baselines import vanilla
    from cosma.placement.simulate import Links, direct, two_sided

    topology = placement.topology
    latency, bandwidth = (20e-6, 5e-6), (12.5e9, 150e9)
    links = Links(
        hidden=hidden,
        dtype=dtype,
        latency_s=(latency[0],) * (topology.levels - 1) + (latency[1],),
        bandwidth_bytes_per_s=(bandwidth[0],) * (topology.levels - 1) + (bandwidth[1],),
    )
    in_order = vanilla(affinity, topology)
    return {
        "vanilla, two all-to-alls": two_sided(affinity, topology, in_order, links).to_json(),
        "vanilla, one all-to-all": direct(affinity, topology, in_order, links).to_json(),
        "placement, one all-to-all": direct(affinity, topology, placement.devices, links).to_json(),
    }


def _draw(path: Path, placement: Placement, affinity: Any) -> None:
    from cosma.placement.baselines import vanilla
    from cosma.placement.plots import heat_map

    heat_map(path, affinity, placement.topology, vanilla(affinity, placement.topology), placement.devices)


def _show(report: dict[str, Any], as_json: bool) -> None:
    from cosma.cli.output import print_json

    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from cosma.cli.output import make_table, print_table, print_text

    table = make_table(
        None, ["trace", "placement", "mean cost", "crossing by level", "imbalance", "worst layer"], right=range(2, 6)
    )
    for trace, rows in report["scores"].items():
        for label, row in rows.items():
            crossing = " ".join(f"{100 * share:.1f}%" for share in row["crossing_shares"])
            table.add_row(
                trace,
                label,
                f"{row['mean_cost']:.4f}",
                crossing,
                f"{row['imbalance']:.3f}",
                f"{row['worst_imbalance']:.3f}",
            )
    print_table(table)
    certificate = report["certificate"]
    if certificate:
        print_text(
            f"{certificate['status']}: lower bound {certificate['lower_bound']:.4f} ({certificate['method']}), "
            f"gap {100 * certificate['gap']:.1f} %"
        )
    if "moved" in report["metrics"]:
        print_text(f"moved: {report['metrics']['moved']} experts")
    for name, estimate in report.get("estimates", {}).items():
        volume = " + ".join(f"{size / 1e6:.2f} MB" for size in estimate["bytes_per_layer"])
        print_text(f"estimate, {name}: {volume} per layer, {estimate['seconds_per_layer'] * 1e6:.0f} us per layer")
