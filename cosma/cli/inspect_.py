"""``cosma inspect``: a model in numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import cosma.door as door
from cosma.cli import options
from cosma.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.access import NodeSite
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
    from cosma.cli.output import print_json, print_rows, share
    from cosma.compiler.request import read_model
    from cosma.units import format_size, parse_size

    source = read_model(model, options.parse_sizes(dim, bound))
    graph = source.graph if dtype is None else source.graph.with_dtype(dtype)
    align = 64 if alignment is None else parse_size(alignment, "--alignment")
    facts = describe(graph, align, source.sites) | {"quantisation": describe_quantised(source.graph)}
    facts["tiling"] = describe_tiling(graph, source.sites)
    if json:
        head = {"model": source.name, "sha256": source.sha256, "dtype": dtype}
        print_json({**head, **facts, "notes": list(source.notes)})
        return
    sizes = facts["bytes"]
    known = counted(facts["operators_with_macs"], "operator")
    rows = [
        ("operators", f"{facts['operators']:,}", ""),
        ("tensors", f"{facts['tensors']:,}", f"{facts['zero_byte_tensors']} of zero bytes"),
        ("inputs", format_size(sizes["input"]), counted(facts["kinds"]["input"], "tensor")),
        ("weights", format_size(sizes["weight"]), counted(facts["kinds"]["weight"], "tensor")),
        ("intermediates", format_size(sizes["intermediate"]), counted(facts["kinds"]["intermediate"], "tensor")),
        ("outputs", format_size(sizes["output"]), counted(facts["kinds"]["output"], "tensor")),
        ("compulsory traffic", format_size(facts["compulsory"]), f"{facts['compulsory']} B"),
        ("multiply-accumulates", f"{facts['macs']:,}", f"known for {known}"),
    ]
    print_rows(source.name, ("", "", ""), rows, right=(1,))
    rows = [(kind, str(n), share(n, facts["operators"])) for kind, n in facts["operators_by_type"].items()]
    print_rows("Operators by type", ("type", "count", "share"), rows, right=(1, 2))
    _print_quantisation(facts["quantisation"])
    _print_tiling(facts["tiling"])
    largest = [
        (row["operator"], row["type"], str(row["bytes"]), format_size(row["bytes"]))
        for row in facts["largest_working_sets"]
    ]
    print_rows(
        "Largest working sets (activations)", ("operator", "type", "bytes", ""), largest, right=(2, 3)
    )  # fmt: skip
    columns = ("mode", "smallest feasible", "nothing spilled in a known order")
    rows = [
        (row["mode"], format_size(row["smallest_feasible"]), format_size(row["nothing_spilled"]))
        for row in facts["capacities"]
    ]
    print_rows(f"Capacities (alignment {align} B)", columns, rows, right=(1, 2))
    if source.notes:
        print_rows("Notes", ("",), [(note,) for note in source.notes])


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
    from cosma.cli.output import print_rows, print_text

    if facts["form"] == "none":
        print_text("Quantisation: none")
        return
    print_text(
        f"Quantisation: {facts['form']}; {facts['integer_operators']} operators integer, {facts['conversions']} only "
        f"convert, {facts['float_operators']} in floating point"
    )
    if facts["stays_float"]:
        rows = [(row["operator"], row["type"], row["why"]) for row in facts["stays_float"]]
        print_rows("What stays in floating point", ("operator", "type", "why"), rows, most=LARGEST)


def describe_tiling(graph: Graph, sites: Mapping[str, NodeSite]) -> dict[str, Any] | None:
    """What of a graph can be cut into tiles, as a record; None where its nodes are not known.

    An operator that cannot be cut along any axis is a barrier. One that reads an axis of an activation whole for each
    element of its result stops what is cut along that axis.
    """
    from cosma.access.operator import operator_access

    if not sites:
        return None
    operators: list[dict[str, Any]] = []
    for operator in graph.operators:
        access = operator_access(graph, sites, operator)
        shape = access.shapes.get(access.result, ())
        axes = [i for i, (allowed, size) in enumerate(zip(access.cuts(), shape, strict=True)) if allowed and size > 1]
        operators.append(
            {"operator": operator.name, "type": operator.type, "shape": list(shape), "axes": axes,
             "reads_whole": {name: list(found) for name, found in access.reads_whole().items() if found},
             "why": access.why_whole()}
        )  # fmt: skip
    by_type: dict[str, dict[str, Any]] = {}
    for row in operators:
        found = by_type.setdefault(row["type"], {"operators": 0, "barriers": 0, "axes": {}, "reads_whole": {}})
        found["operators"] += 1
        found["barriers"] += bool(row["why"])
        activations = set(graph.operator(row["operator"]).inputs)
        needed = {axis for name, axes in row["reads_whole"].items() if name in activations for axis in axes}
        for key, axes in (("axes", row["axes"]), ("reads_whole", sorted(needed))):
            for axis in axes:
                found[key][str(axis)] = found[key].get(str(axis), 0) + 1
    for found in by_type.values():
        for key in ("axes", "reads_whole"):
            found[key] = dict(sorted(found[key].items(), key=lambda entry: int(entry[0])))
    return {
        "by_type": dict(sorted(by_type.items(), key=lambda item: (-item[1]["operators"], item[0]))),
        "barriers": [
            {"operator": row["operator"], "type": row["type"], "why": row["why"]} for row in operators if row["why"]
        ],
        "operators": [{key: row[key] for key in ("operator", "shape", "axes", "reads_whole")} for row in operators],
    }


def _print_tiling(facts: dict[str, Any] | None) -> None:
    from cosma.cli.output import make_table, print_rows, print_table, print_text

    if facts is None:
        print_text("Tiles: a graph without a model's nodes is not cut")
        return
    columns = ("type", "count", "cut along (axes of the result)", "read whole (axes of an operand)", "barriers")
    table = make_table("What can be cut into tiles", columns, right=(1, 4))
    for kind, found in facts["by_type"].items():
        cut, read = (
            ", ".join(
                axis if count == found["operators"] else f"{axis} (in {count})" for axis, count in found[key].items()
            )
            for key in ("axes", "reads_whole")
        )
        table.add_row(kind, str(found["operators"]), cut or "none", read, str(found["barriers"] or ""))
    print_table(table)
    barriers = facts["barriers"]
    if barriers:
        rows = [(row["operator"], row["type"], row["why"]) for row in barriers]
        print_rows(
            "Barriers: operators that read and write everything", ("operator", "type", "why"), rows, most=LARGEST
        )  # fmt: skip


def describe(graph: Graph, alignment: int, sites: Mapping[str, NodeSite]) -> dict[str, Any]:
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
        "capacities": list(_capacities(graph, alignment, sites)),
    }


def _capacities(graph: Graph, alignment: int, sites: Mapping[str, NodeSite]) -> list[dict[str, Any]]:
    """Smallest feasible capacity per mode, at least the alignment, and one above which nothing is ever spilled."""
    from cosma.accelerator import Accelerator, Operands, Weights
    from cosma.access.modes import with_modes
    from cosma.heuristics import ORDERS, peak_live_bytes
    from cosma.problem import build_problem
    from cosma.rewrite.fuse import smallest_capacity

    rows = []
    for weights in Weights:
        network = with_modes(graph, sites, keep_weights=weights == Weights.SCRATCHPAD)
        for operands in Operands:
            for in_place in (True, False):
                rules: dict[str, Any] = {"operands": operands, "weights": weights, "in_place": in_place}
                accelerator = Accelerator(scratchpad=door.UNLIMITED, alignment=alignment, **rules)
                problem = build_problem(network, accelerator)
                orders = (ORDERS[name](problem) for name in ("given", "depth-first", "memory-greedy"))
                rows.append(
                    {
                        "mode": f"operands {operands}, weights {weights}, {'in-place' if in_place else 'no in-place'}",
                        "smallest_feasible": max(alignment, smallest_capacity(network, accelerator)),
                        "nothing_spilled": min(peak_live_bytes(problem, order) for order in orders),
                    }
                )
    return rows
