"""``cosma place-front``: crossings against imbalance, for several numbers of copies of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosma.cli import options, place, routing


def place_front(
    trace: routing.TracePath,
    nodes: place.NodesOption = None,
    devices_per_node: place.DevicesPerNodeOption = None,
    levels: place.LevelsOption = None,
    uneven: place.UnevenOption = None,
    costs: place.CostsOption = None,
    capacities: place.CapacitiesOption = None,
    array: routing.ArrayOption = None,
    experts: routing.ExpertsOption = None,
    kind: routing.KindOption = None,
    dense_layers: routing.DenseOption = None,
    routing_shape: routing.ShapeOption = None,
    replicas: Annotated[
        str, typer.Option("--replicas", metavar="N,N,...", help="Replicas per device to compare.")
    ] = "0,1,2",
    limits: Annotated[
        str | None, typer.Option("--limits", metavar="X,X,...", help="Limits on every layer's max over mean load.")
    ] = None,
    bound: place.BoundOption = "quick",
    work: place.WorkOption = None,
    seed: options.Seed = 0,
    output: place.TableOption = None,
    figure: Annotated[Path | None, typer.Option("--figure", metavar="FILE", help="Write a figure.")] = None,
    json: options.Json = False,
) -> None:
    """Show how much balance costs in crossings, and what room for copies of experts buys, with EPLB beside.

    Copies share load evenly (routing split).
    """
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import CSV, HEAT_MAP, claim_outputs, deliver, note, print_json
    from cosma.cli.place_report import progress_line
    from cosma.placement import PlaceOptions, read_affinity
    from cosma.placement.front import LIMITS, front, front_csv
    from cosma.placement.plots import front_figure

    claim_outputs({"--output": (output, CSV), "--figure": (figure, HEAT_MAP)}, json=json)
    topology = place.needed(place.topology_of(nodes, devices_per_node, levels, uneven, costs, capacities))
    affinity = read_affinity(routing.open_given(trace, array, kind, dense_layers, routing_shape), experts)
    missed: list[str] = []
    with Interruption() as interruption, progress_line(quiet=json) as shown:
        wanted = PlaceOptions(
            bound=bound, proposals=work, seed=seed, interrupted=interruption.happened, progress=shown
        )  # fmt: skip
        points = front(
            affinity, topology, place.numbers(replicas, "--replicas", int) or [],
            place.numbers(limits, "--limits", float) or LIMITS, wanted, missed,
        )  # fmt: skip
    for line in missed:
        note(f"note: {line}")
    if interruption.happened():
        note("interrupted; these are the points found so far")
    rows = [point.row() for point in points]
    if output is not None and points:
        deliver(output, front_csv(points), "the front", announce=False)
    if figure is not None and points:
        front_figure(figure, points, f"{trace.stem}, {topology.nodes} x {topology.devices_per_node} devices")
    if json:
        print_json(rows)
        return
    _print(rows)


def _print(rows: list[dict[str, object]]) -> None:
    from cosma.cli.output import make_table, print_table

    columns = ["replicas", "placement", "limit", "mean cost", "lower bound", "imbalance", "worst layer", "copies"]
    table = make_table(None, columns, right=range(2, 8))
    for row in rows:
        bound = "-" if row["lower_bound"] is None else f"{row['lower_bound']:.4f}"
        table.add_row(
            str(row["replicas_per_device"]), str(row["strategy"]), str(row["limit"] or "-"), f"{row['mean_cost']:.4f}",
            bound, f"{row['imbalance']:.3f}", f"{row['worst_imbalance']:.3f}", str(row["copies"]),
        )  # fmt: skip
    print_table(table)
