"""``cosma inspect``: a model in numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cosma.cli import options

if TYPE_CHECKING:
    from cosma.graph import Graph

#: Rows of the table of largest working sets.
LARGEST = 5


def inspect_(
    model: options.Model,
    dim: options.Dim = None,
    bound: options.Bound = None,
    dtype: options.Dtype = None,
    alignment: options.Alignment = None,
    json: options.Json = False,
) -> None:
    """Show a model's operators, tensors, working sets, and the capacities that matter."""
    from cosma.cli.output import make_table, print_json, print_table, share
    from cosma.compiler.compile import read_model
    from cosma.units import format_size, parse_size

    source = read_model(model, options.parse_sizes(dim, bound))
    graph = source.graph if dtype is None else source.graph.with_dtype(dtype)
    align = 64 if alignment is None else parse_size(alignment, "--alignment")
    facts = describe(graph, align) | {"quantisation": describe_quantised(source.graph)}
    if json:
        head = {"model": source.name, "sha256": source.sha256, "dtype": dtype}
        print_json({**head, **facts, "notes": list(source.notes)})
        return
    table = make_table(source.name, ("", "", ""), right=(1,))
    table.show_header = False
    sizes = facts["bytes"]
    for label, value, remark in (
        ("operators", str(facts["operators"]), ""),
        ("tensors", str(facts["tensors"]), f"{facts['zero_byte_tensors']} of zero bytes"),
        ("inputs", format_size(sizes["input"]), f"{facts['kinds']['input']} tensors"),
        ("weights", format_size(sizes["weight"]), f"{facts['kinds']['weight']} tensors"),
        ("intermediates", format_size(sizes["intermediate"]), f"{facts['kinds']['intermediate']} tensors"),
        ("outputs", format_size(sizes["output"]), f"{facts['kinds']['output']} tensors"),
        ("compulsory traffic", format_size(facts["compulsory"]), f"{facts['compulsory']} B"),
        ("multiply-accumulates", f"{facts['macs']:,}", f"known for {facts['operators_with_macs']} operators"),
    ):
        table.add_row(label, value, remark)
    print_table(table)
    table = make_table("Operators by type", ("type", "count", "share"), right=(1, 2))
    for kind, count in facts["operators_by_type"].items():
        table.add_row(kind, str(count), share(count, facts["operators"]))
    print_table(table)
    _print_quantisation(facts["quantisation"])
    table = make_table("Largest working sets (activations)", ("operator", "type", "bytes", ""), right=(2, 3))
    for row in facts["largest_working_sets"]:
        table.add_row(row["operator"], row["type"], str(row["bytes"]), format_size(row["bytes"]))
    print_table(table)
    columns = ("mode", "smallest feasible", "nothing spilled in a known order")
    table = make_table(f"Capacities (alignment {align} B)", columns, right=(1, 2))
    for row in facts["capacities"]:
        table.add_row(row["mode"], format_size(row["smallest_feasible"]), format_size(row["nothing_spilled"]))
    print_table(table)
    if source.notes:
        table = make_table("Notes", ("",))
        table.show_header = False
        for note in source.notes:
            table.add_row(note)
        print_table(table)


def describe_quantised(graph: Graph) -> dict[str, Any]:
    """How a graph is quantised, as a record."""
    from cosma.rewrite.forms import describe_quantisation

    found = describe_quantisation(graph)
    return {
        "form": found.form,
        "integer_operators": found.integer_operators,
        "conversions": found.conversions,
        "float_operators": len(found.stays_float),
        "stays_float": [{"operator": o.operator, "type": o.type, "why": o.why} for o in found.stays_float],
    }


def _print_quantisation(facts: dict[str, Any]) -> None:
    from cosma.cli.output import make_table, print_table, print_text

    if facts["form"] == "none":
        print_text("Quantisation: none")
        return
    print_text(
        f"Quantisation: {facts['form']}; {facts['integer_operators']} operators integer, {facts['conversions']} only "
        f"convert, {facts['float_operators']} in floating point"
    )
    if facts["stays_float"]:
        table = make_table("What stays in floating point", ("operator", "type", "why"), right=())
        for row in facts["stays_float"][:LARGEST]:
            table.add_row(row["operator"], row["type"], row["why"])
        if len(facts["stays_float"]) > LARGEST:
            table.add_row("...", "", f"and {len(facts['stays_float']) - LARGEST} more; --json lists all")
        print_table(table)


def describe(graph: Graph, alignment: int) -> dict[str, Any]:
    """A graph's numbers as a record; sizes in bytes."""
    from cosma.graph import TensorKind

    tensors = graph.tensors.values()
    working_sets = sorted(
        ((graph.working_set_bytes(o.name, weights=False), i, o) for i, o in enumerate(graph.operators)),
        key=lambda row: (-row[0], row[1]),
    )
    by_type = Counter(o.type for o in graph.operators)
    return {
        "operators": len(graph.operators),
        "tensors": len(graph.tensors),
        "zero_byte_tensors": sum(t.size_bytes == 0 for t in tensors),
        "kinds": {kind.value: len(graph.of_kind(kind)) for kind in TensorKind},
        "bytes": {kind.value: sum(t.size_bytes for t in graph.of_kind(kind)) for kind in TensorKind},
        "compulsory": graph.compulsory_bytes(),
        "macs": sum(o.macs or 0 for o in graph.operators),
        "operators_with_macs": sum(o.macs is not None for o in graph.operators),
        "operators_by_type": dict(sorted(by_type.items(), key=lambda item: (-item[1], item[0]))),
        "largest_working_sets": [
            {"operator": o.name, "type": o.type, "bytes": size} for size, _, o in working_sets[:LARGEST]
        ],
        "capacities": list(_capacities(graph, alignment)),
    }


def _capacities(graph: Graph, alignment: int) -> list[dict[str, Any]]:
    """Smallest feasible capacity per mode, and one above which nothing is ever spilled."""
    from cosma.accelerator import Accelerator, Operands, Weights
    from cosma.heuristics import ORDERS, peak_live_bytes
    from cosma.problem import build_problem, smallest_feasible_capacity

    rows = []
    for weights in Weights:
        for operands in Operands:
            for in_place in (True, False):
                accelerator = Accelerator(
                    scratchpad=2**62, alignment=alignment, operands=operands, weights=weights, in_place=in_place
                )
                problem = build_problem(graph, accelerator)
                orders = (ORDERS[name](problem) for name in ("given", "depth-first", "memory-greedy"))
                rows.append(
                    {
                        "mode": f"operands {operands}, weights {weights}, {'in-place' if in_place else 'no in-place'}",
                        "smallest_feasible": smallest_feasible_capacity(problem),
                        "nothing_spilled": min(peak_live_bytes(problem, order) for order in orders),
                    }
                )
    return rows
