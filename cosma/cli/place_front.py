"""``cosma place-front``: crossings against imbalance, for several numbers of copies of experts."""

from __future__ import annotations

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
    replicas_per_device: Annotated[
        str, typer.Option("--replicas-per-device", metavar="N,N,...", help="Places for copies to compare.")
    ] = "0,1,2",
    balance: Annotated[
        str | None, typer.Option("--balance", metavar="RATIO,...", help="Limits on each layer's max over mean load.")
    ] = None,
    bound: place.BoundOption = "quick",
    work: place.WorkOption = None,
    seed: options.Seed = 0,
    output: options.Table = None,
    figure: options.Figures = None,
    json: options.Json = False,
) -> None:
    """Show how much balance costs in crossings, and what room for copies of experts buys, with EPLB beside.

    Copies share load evenly (routing split).
    """
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import CSV, FIGURE, claim_outputs, deliver, deliver_figures, note, print_json
    from cosma.cli.place_report import progress_line
    from cosma.placement import PlaceOptions, read_affinity
    from cosma.placement.front import LIMITS, front, front_csv
    from cosma.placement.plots import front_figure

    claim_outputs({"--output": (output, CSV), "--figure": (figure, FIGURE)}, [trace], json=json)
    topology = place.needed(place.topology_of(nodes, devices_per_node, levels, uneven, costs, capacities))
    affinity = read_affinity(routing.open_given(trace, array, kind, dense_layers, routing_shape), experts)
    missed: list[str] = []
    with Interruption() as interruption, progress_line(quiet=json) as shown:
        wanted = PlaceOptions(
            bound=bound, proposals=work, seed=seed, interrupted=interruption.happened, progress=shown
        )  # fmt: skip
        points = front(
            affinity, topology, place.numbers(replicas_per_device, "--replicas-per-device", int) or [],
            place.numbers(balance, "--balance", float) or LIMITS, wanted, missed,
        )  # fmt: skip
    for line in missed:
        note(f"note: {line}")
    if interruption.happened():
        note("interrupted; these are the points found so far")
    rows = [point.row() for point in points]
    if output is not None and points:
        deliver(output, front_csv(points), "the front")
    if points:
        title = f"{trace.stem}, {topology.nodes} x {topology.devices_per_node} devices"
        deliver_figures(figure, lambda kind: front_figure(kind, points, title))
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
