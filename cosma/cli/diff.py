"""``cosma diff``: two plans, or two expert placements, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.text import counted

if TYPE_CHECKING:
    from cosma.report.diff import PlanDifference

#: Rows shown of each list.
SHOWN = 10


def diff(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A plan or an expert placement.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Another of the same kind.")],
    json: options.Json = False,
) -> None:
    """Say what moved between two plans (or expert placements), and what it saved.

    Both plans are replayed first; an invalid one ends with exit code 4. A claimed lower bound that the other plan
    goes below is named, also one for any tiling.
    """
    from dataclasses import asdict

    from cosma.cli.output import print_json
    from cosma.cli.plans import load_valid_plan
    from cosma.errors import InputError
    from cosma.report.diff import diff_plans

    kinds = [_format_of(path) for path in (before, after)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{before} is a {kinds[0]} file and {after} a {kinds[1]} file; give two of one kind")
    if kinds[0] == "cosma-placement":
        _diff_placements(before, after, json=json)
        return
    found = diff_plans(load_valid_plan(before), load_valid_plan(after))
    if json:
        print_json(asdict(found))
    else:
        _print(found)


def _format_of(path: Path) -> str:
    import msgspec

    from cosma.errors import FormatError
    from cosma.files import other_than, read_bytes

    class Head(msgspec.Struct):
        format: str

    data = read_bytes(path, "plan or placement")
    try:
        return msgspec.json.decode(data, type=Head).format
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        wanted = "a cosma-plan file or an expert placement"
        raise FormatError(f"{path}: {other_than(wanted, data) or f'is not {wanted}: {error}'}") from error


def _diff_placements(before: Path, after: Path, *, json: bool) -> None:
    from cosma.cli.output import print_json, print_text
    from cosma.placement import diff as diff_of
    from cosma.placement import read_placement

    found = diff_of(read_placement(before), read_placement(after))
    if json:
        print_json(found)
        return
    print_text(
        f"{found['moved']} of {found['of']} experts moved, {found['across_nodes']} of them to another node; "
        f"{found['copies_added']} copies added, {found['copies_removed']} removed"
    )
    for move in found["moves"][:SHOWN]:
        print_text(f"  layer {move['layer']}, expert {move['expert']}: device {move['from']} -> {move['to']}")
    if found["moved"] > SHOWN:
        print_text(f"  and {found['moved'] - SHOWN} more; --json lists them")
    old, new = found["metrics"]["before"], found["metrics"]["after"]
    for key in old:
        if key in new and isinstance(old[key], int | float) and old[key] != new[key]:
            print_text(f"{key}: {old[key]} -> {new[key]}")


def _print(found: PlanDifference) -> None:
    from cosma.cli.output import make_table, print_rows, print_table, print_text, share
    from cosma.report.diff import COUNTS, setting_rows
    from cosma.units import format_size

    if found.accelerators:
        print_rows("Assumed differently", ("", "before", "after"), setting_rows(found))
    table = make_table("In numbers", ("", "before", "after", "change"), right=(1, 2, 3))
    for name, old, new in found.numbers:
        write = str if name in COUNTS else format_size
        sign = "+" if new > old else "-"
        change = "" if new == old else f"{sign}{write(abs(new - old))}"
        # Beyond ten times as much, a percentage says nothing.
        if new != old and abs(new - old) <= 10 * old:
            change += f" ({share(abs(new - old), old)})"
        table.add_row(name, write(old), write(new), change)
    print_table(table)
    for remark in found.remarks:
        print_text(remark)
    if found.tensors:
        title = f"Tensors whose non-compulsory traffic differs: {len(found.tensors)}"
        table = make_table(title, ("tensor", "before", "after", "how before", "how after"), right=(1, 2))
        rows = found.tensors
        if len(rows) > 2 * SHOWN:
            rows = (*rows[:SHOWN], *rows[-SHOWN:])
        for i, tensor in enumerate(rows):
            if i == SHOWN and len(found.tensors) > 2 * SHOWN:
                table.add_row("...", "", "", "", "")
            sizes = (format_size(tensor.before), format_size(tensor.after))
            table.add_row(tensor.tensor, *sizes, tensor.how_before, tensor.how_after)
        print_table(table)
    moved, of = found.moved_tensors
    print_text(f"{moved} of {of} tensors or parts lie at other addresses")
    _print_cuts(found)
    print_text(f"{counted(len(found.moved_operators), 'operator')} at another place in the order")
    for name, old, new in found.moved_operators[:SHOWN]:
        print_text(f"  {name}: place {old} -> {new}")
    if len(found.moved_operators) > SHOWN:
        print_text(f"  and {len(found.moved_operators) - SHOWN} more; --json lists all")
    for names, where in ((found.only_before, "before"), (found.only_after, "after")):
        if names:
            dots = ", ..." if len(names) > SHOWN else ""
            print_text(f"{counted(len(names), 'operator')} only {where}: {', '.join(names[:SHOWN])}{dots}")


def _print_cuts(found: PlanDifference) -> None:
    """Say which operators are cut into tiles differently, and which run as part of others."""
    from cosma.cli.output import print_rows

    if found.cuts:
        title = f"Operators cut into tiles differently: {len(found.cuts)}"
        rows = [(cut.operator, str(cut.before), str(cut.after)) for cut in found.cuts]
        print_rows(title, ("operator", "tiles before", "tiles after"), rows, right=(1, 2), most=2 * SHOWN)
    if found.fused:
        title = f"Operators fused differently: {len(found.fused)}"
        rows = [
            (name, "itself" if old == name else old, "itself" if new == name else new)
            for name, old, new in found.fused
        ]
        print_rows(title, ("operator", "runs before in", "after in"), rows, most=SHOWN)
