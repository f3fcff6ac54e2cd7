"""What ``cosma place`` reports: a placement recounted on traces, beside what others would do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cosma.terminal import StatusLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement
    from cosma.placement.traces import Trace


def report(
    placement: Placement,
    affinity: Affinity,
    traces: dict[str, Trace],
    replicas_per_device: int | None,
    routing: str | None,
    batch_tokens: int,
) -> dict[str, Any]:
    """Check the placement and recount its cost, beside the baselines', on every part of the trace."""
    from dataclasses import asdict

    from cosma.placement import check_placement, score
    from cosma.placement.check import copies_beyond_room
    from cosma.placement.traces import is_counts

    room = replicas_per_device
    if room is None:
        claimed = placement.solver.get("replicas_per_device")
        room = claimed if type(claimed) is int else copies_beyond_room(placement)
    check_placement(placement, room)
    rule = routing or _routing_of(placement)
    rows = {"placement": placement, **_baselines(affinity, placement, room)}
    scores: dict[str, Any] = {}
    for name, trace in traces.items():
        if is_counts(trace):
            scores[name] = {label: _from_counts(affinity, one) for label, one in rows.items()}
        else:
            scores[name] = {
                label: asdict(score(one, trace.chunks(), rule, batch_tokens)) for label, one in rows.items()
            }
    return {
        "valid": True,
        "layers": placement.layers,
        "experts": placement.experts,
        "devices": placement.topology.devices,
        "routing": rule,
        "metrics": dict(placement.metrics),
        "certificate": dict(placement.certificate),
        "solver": dict(placement.solver),
        "scores": scores,
    }


def _routing_of(placement: Placement) -> str:
    """Return the routing a placement was made for, as its file says, else ``nearest``."""
    from cosma.placement.recount import ROUTINGS

    said = placement.metrics.get("routing")
    return said if said in ROUTINGS else "nearest"


def _baselines(affinity: Affinity, placement: Placement, room: int) -> dict[str, Placement]:
    """Return experts in order, and EPLB with as much room for copies."""
    from cosma.errors import InputError
    from cosma.placement import Placement
    from cosma.placement.baselines import eplb, eplb_replicated, vanilla
    from cosma.placement.eplb import eplb_placement

    topology = placement.topology
    found = {"vanilla": Placement(topology, vanilla(affinity, topology))}
    if not room:
        return found | {"eplb": Placement(topology, eplb(affinity, topology))}
    try:
        by_load = eplb_placement(affinity, topology, room)
    except InputError:
        # Unequal devices, which EPLB does not know: its rules without their arithmetic.
        by_load = Placement.of_copies(topology, eplb_replicated(affinity, topology, room))
    return found | {f"eplb, {room} replicas": by_load}


def in_force(placement: Placement) -> Any:
    """Return homes, or copies ``[layers, experts, devices]`` where experts have several."""
    if placement.replicas is None:
        return placement.devices
    from cosma.placement.replication import as_held

    return as_held(placement.replicas, placement.topology.devices)


@contextmanager
def progress_line(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Show what a search does, on one line of a terminal."""
    line = StatusLine(wanted=not quiet)
    try:
        yield lambda what, share: line.write(f"{what}: {100 * share:3.0f} %")
    finally:
        line.write()


def estimates(placement: Placement, affinity: Any, hidden: int, dtype: str) -> dict[str, Any]:
    """Return estimates of communication, of experts in order and of the placement."""
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


def draw(kind: str, placement: Placement, affinity: Any) -> bytes:
    """Draw the heat maps of load and affinity."""
    from cosma.placement.baselines import vanilla
    from cosma.placement.plots import heat_map
    from cosma.placement.replication import as_held

    topology = placement.topology
    copies = None if placement.replicas is None else as_held(placement.replicas, topology.devices)
    return heat_map(kind, affinity, topology, vanilla(affinity, topology), placement.devices, copies=copies)


def _from_counts(affinity: Affinity, placement: Placement) -> dict[str, Any]:
    """Return metrics on counts, which have no tokens; crossings only where the counts know them."""
    from cosma.placement.copies import split_summary
    from cosma.placement.metrics import summary
    from cosma.placement.replication import as_held

    topology = placement.topology
    if placement.replicas is not None:
        return split_summary(affinity, topology, as_held(placement.replicas, topology.devices))
    found = summary(affinity, topology, placement.devices)
    if not affinity.has_affinity:
        found |= {"mean_cost": None, "crossing_shares": None}
    return found


def _crossings(shares: list[list[float] | None]) -> dict[str, list[str]]:
    """Return a column for each level that transitions cross: nodes and devices, or levels from the outermost."""
    levels = max((len(row) for row in shares if row is not None), default=0)
    names = ["between nodes", "within nodes"] if levels == 2 else [f"level {number}" for number in range(levels)]
    return {
        name: ["-" if row is None else f"{100 * row[level]:.1f} %" for row in shares]
        for level, name in enumerate(names)
        if levels != 2 or any(row is not None and row[level] > 0 for row in shares)
    }


def show(report: dict[str, Any], as_json: bool, scored: bool = False) -> None:
    """Print a report; the certificate of a placement that was only scored is what its file claims."""
    from cosma.cli.output import make_table, print_json, print_table, print_text

    if as_json:
        print_json(report)
        return
    rows = [(trace, label, row) for trace, found in report["scores"].items() for label, row in found.items()]
    crossings = _crossings([row["crossing_shares"] for _, _, row in rows])
    columns = ["trace", "placement", "mean cost", *crossings, "imbalance", "worst layer"]
    table = make_table(None, columns, right=range(2, len(columns)))
    for number, (trace, label, row) in enumerate(rows):
        cost = "-" if row["mean_cost"] is None else f"{row['mean_cost']:.4f}"
        shares = [cells[number] for cells in crossings.values()]
        table.add_row(trace, label, cost, *shares, f"{row['imbalance']:.3f}", f"{row['worst_imbalance']:.3f}")
    print_table(table)
    if report["routing"] != "nearest" or "copies" in report["metrics"]:
        print_text(f"routing among copies: {report['routing']}")
    certificate = report["certificate"]
    if certificate and scored:
        figures = {key: report["metrics"][key] for key in ("mean_cost", "transitions") if key in report["metrics"]}
        claims = ", ".join(f"{key} {str(value)[:40]}" for key, value in (figures | certificate).items())
        print_text(f"the file claims, not verified here: {claims}")
    elif certificate:
        what = "imbalance" if certificate.get("of") == "imbalance" else "lower bound"
        text = f"lower bound {certificate['lower_bound']:.4f}"
        text = f"{text} on the mean imbalance" if what == "imbalance" else text
        print_text(
            f"{certificate['status']}: {text} ({certificate['method']}), gap {100 * certificate['gap']:.1f} %"
        )
    if "moved" in report["metrics"]:
        print_text(f"moved: {report['metrics']['moved']} experts")
    for name, estimate in report.get("estimates", {}).items():
        volume = " + ".join(f"{size / 1e6:.2f} MB" for size in estimate["bytes_per_layer"])
        print_text(f"estimate, {name}: {volume} per layer, {estimate['seconds_per_layer'] * 1e6:.0f} us per layer")
