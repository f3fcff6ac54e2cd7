"""``cosma explain``: why a plan moves what it moves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.cli.safe_table import SafeTable
    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline
    from cosma.report.explain import Holder, OperatorStory, TensorStory, TiledStory

#: Tensors, holders, parts of a tensor, operators, and steps shown.
TENSORS, HOLDERS, PARTS, NAMES, STEPS = 8, 6, 12, 6, 20


def explain(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[TENSOR|OPERATOR]", help="Explain this one; without it, the whole plan.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL", help="Of an operator, also try other cuts.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Say why tensors are moved, what filled the scratchpad then, what that costs, and what would help.

    Of an operator in a plan of tiles: how it is cut, what limits it, and, with its model, what one stripe more or fewer
    would cost. The plan is replayed first; an invalid one ends with exit code 4.
    """
    from dataclasses import asdict

    from cosma.cli.explain_cut import cut_record, print_cut, read_source
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import note, print_json
    from cosma.cli.plans import load_valid_plan
    from cosma.errors import InputError
    from cosma.plan.tiles import untiled_name
    from cosma.plan.timeline import timeline_of
    from cosma.report.explain import explain_operator, explain_tensor, holder_of

    if name is None:
        options.only_with("an operator", {"--model": model})
    loaded = load_valid_plan(plan)
    timeline = timeline_of(loaded)
    source = read_source(model, loaded)
    if name is not None:
        asked, name = name, holder_of(loaded.graph, name)
        if asked != name:
            note(f"{asked!r} never leaves operator {name!r}, which is explained instead")
        if name in loaded.graph.tensors:
            story = explain_tensor(loaded, name, timeline)
            if json:
                print_json({"tensor": asdict(story)})
            else:
                _print_tensor(loaded, timeline, story)
        if name in set(loaded.schedule):
            step = explain_operator(loaded, name, timeline)
            if json and name not in loaded.graph.tensors:
                print_json({"operator": asdict(step), "cut": cut_record(loaded, name, timeline, source)})
            elif not json:
                _print_operator(loaded, step)
                print_cut(loaded, untiled_name(loaded.graph.operator(name)), timeline, source)
        elif name not in loaded.graph.tensors:
            from cosma.report.explain import explain_tiled, similar

            whole = explain_tiled(loaded, name, timeline)
            if whole is not None:
                if json:
                    print_json({"tiled": asdict(whole), "cut": cut_record(loaded, name, timeline, source)})
                else:
                    _print_tiled(whole)
                    print_cut(loaded, name, timeline, source)
                return
            known = [*loaded.graph.tensors, *loaded.schedule, *loaded.graph.roots]
            raise InputError(f"the plan has neither a tensor nor an operator {name!r}{similar(name, known)}")
        return
    if json:
        from cosma.studies.levers import levers
        from cosma.studies.next_capacity import next_capacity

        following = next_capacity(loaded, timeline)
        print_json(
            {
                "costliest": [{"tensor": n, "noncompulsory": c} for n, c in timeline.cost.items()],
                "next_capacity": None
                if following is None
                else {
                    "bytes": following.capacity_bytes,
                    "tensor": following.tensor,
                    "saves": loaded.traffic.noncompulsory - following.noncompulsory_bytes,
                },
                "levers": [asdict(lever) for lever in levers(loaded, following)],
            }
        )
        return
    _print_plan(loaded, timeline)
    try:
        with Interruption(grace_s=0.0):
            if timeline.cost and sys.stderr.isatty():
                note("trying what would help; Ctrl-C ends it")
            _print_levers(loaded, timeline)
    except KeyboardInterrupt:
        note("interrupted: what would help was not tried to the end")


def _print_plan(plan: Plan, timeline: Timeline) -> None:
    from cosma.cli.output import make_table, note, print_table, print_text, share
    from cosma.cli.plans import reservations
    from cosma.report.explain import bypasses, short_together
    from cosma.report.facts import certificate_sentence, costliest
    from cosma.units import format_size
    from cosma.validator import replay

    print_text(certificate_sentence(plan, replay(plan)))
    for remark in reservations(plan):
        note(f"note: {remark}")
    if not timeline.cost:
        print_text("Every byte is moved once: there is nothing to explain.")
        return
    columns = ("tensor", "non-compulsory", "share", "not kept during steps", "short of", "tightest at")
    table = make_table("Tensors that cost most, and what was in their way", columns, right=(1, 2, 4))
    in_parts = roomy = False
    for tensor, cost in costliest(plan, timeline, TENSORS):
        name = tensor.name
        parts = [part.name for part in plan.graph.parts_of(name)] or [name]
        in_parts |= name not in plan.graph.tensors
        found = short_together(plan, timeline, parts)
        passes = bypasses(plan, parts[0])
        if found is None or passes:
            why = "read past the scratchpad by each user" if passes else "stored early"
            table.add_row(name, format_size(cost), share(cost, plan.traffic.noncompulsory), why, "-", "-")
            continue
        runs, tightest, short = found
        roomy |= not short
        periods = ", ".join(f"{run.start}..{run.stop - 1}" for run in runs[:3]) + (", ..." if runs[3:] else "")
        step = timeline.steps[tightest]
        table.add_row(
            name, format_size(cost), share(cost, plan.traffic.noncompulsory), periods,
            format_size(short) if short else "nothing", f"step {tightest}: {step.operator} ({step.type})",
        )  # fmt: skip
    print_table(table)
    if in_parts:
        print_text("Of a tensor that was cut, all parts that were not kept count together.")
    if roomy:
        print_text("Short of nothing: there was room by size, so other addresses or a longer search may keep it.")


def _print_levers(plan: Plan, timeline: Timeline) -> None:
    from cosma.cli.output import as_option, make_table, print_table, print_text
    from cosma.report.explain import bypasses, kept_out
    from cosma.studies.levers import levers
    from cosma.studies.next_capacity import next_capacity
    from cosma.units import format_exact, format_size

    if not timeline.cost:
        return
    following = next_capacity(plan, timeline)
    if following is not None:
        stay = following.absence
        print_text(
            f"The next capacity found at which this plan keeps one more tensor is "
            f"{format_exact(following.capacity_bytes)}: {following.tensor} stays from step {stay.begin} to {stay.end} "
            f"and saves {format_size(plan.traffic.noncompulsory - following.noncompulsory_bytes)}."
        )
    elif kept_out(plan, timeline):
        print_text("No capacity was found at which this plan, all else as it is, keeps one more tensor.")
    elif all(bypasses(plan, name) for name in timeline.cost):
        print_text("All of that is weights, which pass the scratchpad by: each operator that uses one reads it anew.")
    elif plan.certificate.lower_bound >= plan.traffic.noncompulsory:
        print_text("By sizes alone there was room for every tensor that left.")
    else:
        print_text(
            "By sizes alone there was room for every tensor that left: a longer search or other addresses may help."
        )
    title = "What would help: a short search from this plan, for each change alone (an indication, not a proof)"
    table = make_table(title, ("change", "this plan", "after", ""), right=(1, 2))
    try:
        for lever in levers(plan, following):
            named = lever.change
            if lever.setting is not None:
                named += f" ({as_option(lever.setting, lever.value)})"
            if lever.after is None:
                table.add_row(named, format_size(lever.before), "-", "leaves no plan")
                continue
            change = lever.after - lever.before
            word = "no gain found" if not change else f"{format_size(abs(change))} {'less' if change < 0 else 'more'}"
            table.add_row(named, format_size(lever.before), format_size(lever.after), word)
    finally:  # an interrupt leaves what was tried
        print_table(table)
    if plan.graph.is_tiled:
        print_text(
            "All of that keeps these tiles. Others: `cosma explain PLAN OPERATOR --model MODEL` tries some of one "
            "operator, and a compile with more effort or another scratchpad looks for other tiles of all."
        )
    elif plan.solver.get("tiling") == "auto":
        print_text("Not tried here: tiles. The compile found none that move less; one with more effort may.")
    else:
        print_text("Not tried here: tiles. `cosma compile MODEL --tiling auto` looks for them.")


def _print_tensor(plan: Plan, timeline: Timeline, story: TensorStory) -> None:
    from cosma.cli.output import make_table, print_text
    from cosma.units import format_size

    print_text(f"tensor {story.tensor}: {story.kind} of {format_size(story.size_bytes)}")
    producer = plan.graph.producer(story.tensor)
    if producer is not None:
        print_text(f"  produced by {producer} at step {story.touches[0]}")
    print_text(f"  read by {_first(plan.graph.consumers(story.tensor), NAMES) or 'nobody'}")
    print_text(f"  touched at steps {_first(story.touches, STEPS)}")
    print_text(f"  moves {format_size(story.moved_bytes)}, of which {format_size(story.cost_bytes)} beyond compulsory")
    for stay in story.stays:
        how = f"in place of {stay.in_place_of}" if stay.in_place_of else str(stay.origin)
        print_text(
            f"  in the scratchpad at [{stay.address}, {stay.address + stay.space_bytes}) during steps "
            f"[{stay.start}, {stay.end}): {how}, then {stay.ending}"
        )
    if not story.stays:
        print_text("  never in the scratchpad: it is streamed")
    for absence in story.absences:
        print_text(absence.sentence(plan, timeline))
        if absence.holders:
            _print_holders(make_table(None, ("who had the space then", "bytes", "why"), right=(1,)), absence.holders)
        else:
            print_text("  Nothing else was there: it is larger than the scratchpad.")
    if beside := story.beside():
        print_text(beside)


def _first(items: Sequence[object], count: int) -> str:
    """The first of a list, and how many more there are."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(map(str, items[:count])) + more


def _print_holders(table: SafeTable, holders: Sequence[Holder]) -> None:
    """Fill a table with the largest holders of space, and print it."""
    from cosma.cli.output import print_table

    for holder in holders[:HOLDERS]:
        table.add_row(holder.tensor, str(holder.space_bytes), holder.reason)
    if rest := holders[HOLDERS:]:
        table.add_row(f"and {len(rest)} more", str(sum(h.space_bytes for h in rest)), "")
    print_table(table)


def _print_tiled(story: TiledStory) -> None:
    from cosma.cli.output import print_rows, print_text
    from cosma.units import format_size

    if story.tiles:
        steps = [str(step) for _, step in story.tiles]
        at = ", ".join(steps) if len(steps) <= PARTS else f"{steps[0]} to {steps[-1]}"
        print_text(f"operator {story.name}: {len(steps)} tiles, at steps {at}")
    else:
        print_text(f"tensor {story.name}: cut into {len(story.parts)} parts")
    if story.group is not None:
        others = [name for name in story.group.operators if name != story.name]
        print_text(
            f"  its tiles take turns in steps [{story.group.start}, {story.group.end}) with those of "
            f"{counted(len(others), 'other operator')}: {', '.join(others)}"
        )
    where = "at its steps" if story.tiles else "of its parts"
    print_text(
        f"  off-chip {where}: {format_size(story.moved_bytes)}, of which {format_size(story.cost_bytes)} beyond the "
        "compulsory"
    )
    title = f"{'parts of its result' if story.tiles else 'its parts'}, the costliest first"
    parts = sorted(story.parts, key=lambda one: -one[2])
    rows = [(part, str(size), format_size(cost)) for part, size, cost in parts]
    print_rows(title, ("part", "bytes", "non-compulsory"), rows, right=(1, 2), most=PARTS)


def _print_operator(plan: Plan, story: OperatorStory) -> None:
    from cosma.cli.output import make_table, print_rows, print_text
    from cosma.units import format_size

    capacity = plan.accelerator.capacity_bytes
    print_text(
        f"operator {story.operator} ({story.type}), step {story.step}: {format_size(story.occupied_bytes)} of "
        f"{format_size(capacity)} taken, {format_size(capacity - story.occupied_bytes)} free"
    )
    touched = [(tensor, str(space), where) for tensor, space, where in story.touched]
    print_rows("operands and results", ("tensor", "space", "where"), touched, right=(1,))
    if story.kept:
        _print_holders(make_table("also in the scratchpad", ("tensor", "space", "why"), right=(1,)), story.kept)
    for kind, tensor, size, compulsory in story.moved:
        print_text(f"  {kind} {tensor}: {size} B{', compulsory' if compulsory else ''}")
