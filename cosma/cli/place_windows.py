"""``cosma place-windows``: placements over time, re-placed on a schedule, against what moving experts costs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cosma.cli import options, place, routing


def place_windows(
    trace: routing.TracePath,
    windows: Annotated[
        int, typer.Option("--windows", metavar="N", help="Windows of equal length; the first is learnt from.")
    ],
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
    balance: place.BalanceOption = None,
    replicas_per_device: place.ReplicasPerDeviceOption = 0,
    routing_rule: place.RoutingOption = None,
    max_moves: Annotated[
        int | None, typer.Option("--max-moves", metavar="N", help="Copies that may move before each window.")
    ] = None,
    expert_size: place.ExpertSizeOption = None,
    activation_size: Annotated[
        str | None, typer.Option("--activation-size", metavar="SIZE", help="Bytes a token sends when it crosses.")
    ] = None,
    work: place.WorkOption = None,
    seed: options.Seed = 0,
    output: options.Table = None,
    json: options.Json = False,
) -> None:
    """Compare placing once, re-placing with few moves, and placing anew for every window of a trace.

    Before each window a strategy knows only what came before. --max-moves limits what re-placing moves; with
    --expert-size and --activation-size instead, every move is weighed against the crossings it saves.
    """
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import CSV, claim_outputs, deliver, note, print_json
    from cosma.cli.place_report import progress_line
    from cosma.errors import InputError
    from cosma.placement import PlaceOptions
    from cosma.placement.windows import MovePrice, compare, totals
    from cosma.text import csv_lines
    from cosma.units import parse_size

    claim_outputs({"--output": (output, CSV)}, [trace], json=json)
    if routing_rule == "nearest":
        raise InputError("--routing nearest: windows compare copies that share load; choose split or least-loaded")
    topology = place.needed(place.topology_of(nodes, devices_per_node, levels, uneven, costs, capacities))
    price = MovePrice(
        expert_bytes=0 if expert_size is None else parse_size(expert_size, "--expert-size"),
        activation_bytes=0 if activation_size is None else parse_size(activation_size, "--activation-size"),
        max_moves=max_moves,
    )
    whole = routing.open_given(trace, array, kind, dense_layers, routing_shape)
    with Interruption() as interruption, progress_line(quiet=json) as shown:
        wanted = PlaceOptions(
            balance=balance, replicas_per_device=replicas_per_device, routing=routing_rule or "split", proposals=work,
            seed=seed, interrupted=interruption.happened, progress=shown,
        )  # fmt: skip
        scores = compare(whole, topology, windows, price, wanted, experts)
    if interruption.happened():
        note("interrupted; these are the windows judged so far")
    rows = [one.row() for one in scores]
    if output is not None:
        deliver(output, csv_lines([rows[0], *(row.values() for row in rows)]), "the windows")
    if json:
        print_json({"windows": rows, "totals": totals(scores)})
    else:
        _print(totals(scores), bool(price.activation_bytes))


def _print(rows: list[dict[str, Any]], sized: bool) -> None:
    from cosma.cli.output import make_table, print_table
    from cosma.units import format_size

    columns = ["strategy", "windows", "mean cost", "imbalance", "worst layer", "limit missed"]
    columns += ["moved", "crossing", "moves", "together"]
    table = make_table(None, columns, right=range(1, 10))
    for row in rows:
        sizes = [format_size(int(row[key])) if sized else "-" for key in ("crossing_bytes", "moved_bytes", "bytes")]
        table.add_row(
            row["strategy"], str(row["windows"]), f"{row['mean_cost']:.4f}", f"{row['imbalance']:.3f}",
            f"{row['worst_imbalance']:.3f}",
            str(row["limit_missed"]), str(row["moved"]), *sizes,
        )  # fmt: skip
    print_table(table)
