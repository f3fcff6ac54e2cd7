"""What ``cosma place`` reports: a placement recounted on traces, beside what others would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement
    from cosma.placement.traces import Trace


def report(
    placement: Placement, affinity: Any, traces: dict[str, Trace], replicas_per_device: int | None
) -> dict[str, Any]:
    """Check the placement and recount its cost, beside the baselines', on every part of the trace."""
    from dataclasses import asdict

    from cosma.placement import Placement, check_placement, score
    from cosma.placement.baselines import eplb, vanilla
    from cosma.placement.check import copies_beyond_room
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
            rows = {label: _from_counts(affinity, p) for label, p in {"placement": placement, **others}.items()}
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


def draw(path: Path, placement: Placement, affinity: Any) -> None:
    """Write the heat maps of load and affinity."""
    from cosma.placement.baselines import vanilla
    from cosma.placement.plots import heat_map

    heat_map(path, affinity, placement.topology, vanilla(affinity, placement.topology), placement.devices)


def _from_counts(affinity: Affinity, placement: Placement) -> dict[str, Any]:
    """Return metrics on counts, which have no tokens; crossings only where the counts know them."""
    from cosma.placement.metrics import summary

    found = summary(affinity, placement.topology, placement.devices)
    if not affinity.has_affinity:
        found |= {"mean_cost": None, "crossing_shares": None}
    return found


def show(report: dict[str, Any], as_json: bool, scored: bool = False) -> None:
    """Print a report; the certificate of a placement that was only scored is what its file claims."""
    from cosma.cli.output import make_table, print_json, print_table, print_text

    if as_json:
        print_json(report)
        return
    table = make_table(
        None, ["trace", "placement", "mean cost", "crossing by level", "imbalance", "worst layer"], right=range(2, 6)
    )
    for trace, rows in report["scores"].items():
        for label, row in rows.items():
            shares = row["crossing_shares"]
            crossing = "-" if shares is None else " ".join(f"{100 * share:.1f}%" for share in shares)
            cost = "-" if row["mean_cost"] is None else f"{row['mean_cost']:.4f}"
            table.add_row(trace, label, cost, crossing, f"{row['imbalance']:.3f}", f"{row['worst_imbalance']:.3f}")
    print_table(table)
    certificate = report["certificate"]
    if certificate and scored:
        claims = ", ".join(f"{key} {str(value)[:40]}" for key, value in certificate.items())
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
