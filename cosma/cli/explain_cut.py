"""What ``cosma explain`` says of the way an operator is cut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosma.text import counted

if TYPE_CHECKING:
    from cosma.frontend import LoadedModel
    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline
    from cosma.report.explain_tiling import AxisCut, CutStory

#: Tensors and readers shown.
KEPT, READERS = 6, 4


def read_source(model: Path | None, plan: Plan) -> LoadedModel | None:
    """The model of a plan, for the sizes that the plan was made for; None where no file is given.

    Raises InputError if it is another model, or no ONNX file.
    """
    from cosma.cli.plans import model_of
    from cosma.errors import InputError

    if model is None:
        return None
    source = model_of(plan, model, {})
    if not source.sites:
        raise InputError(f"{model} is no ONNX file: nothing is known of how its operators can be cut")
    return source


def cut_record(plan: Plan, name: str, timeline: Timeline, source: LoadedModel | None) -> dict[str, Any] | None:
    """How an operator is cut as a record, with other cuts tried where the model is given; None without tiles."""
    from dataclasses import asdict

    story = _story(plan, name, timeline, source)
    if story is None:
        return None
    record = asdict(story)
    if source is not None:
        from cosma.studies.tiling_levers import cut_trials

        record["trials"] = [asdict(trial) for trial in cut_trials(plan, source, name)]
    return record


def print_cut(plan: Plan, name: str, timeline: Timeline, source: LoadedModel | None) -> None:
    """Say how an operator is cut, what limits it, and what other cuts would cost."""
    from cosma.cli.output import make_table, note, print_table, print_text
    from cosma.units import format_size

    story = _story(plan, name, timeline, source)
    if story is None:
        return
    cut = "; ".join(map(_cut, story.axes))
    print_text(f"  cut {cut}" if cut else "  not cut: it runs whole")
    print_text(
        f"  tightest at step {story.step}: {format_size(story.occupied_bytes)} of {format_size(story.capacity_bytes)} "
        f"taken; its tile {format_size(story.own_bytes)}, the tile's weights {format_size(story.own_weight_bytes)}, "
        f"maps kept {format_size(story.kept_map_bytes)}, weights kept {format_size(story.kept_weight_bytes)}: "
        f"{LIMITS[story.limit]}"
    )
    if story.largest:
        shown = ", ".join(f"{tensor} {format_size(size)}" for tensor, size in story.largest[:KEPT])
        more = f", and {len(story.largest) - KEPT} more" if len(story.largest) > KEPT else ""
        print_text(f"  kept beside it then: {shown}{more}")
    for reader in story.readers[:READERS]:
        why = f": {reader.barrier}" if reader.barrier else ""
        print_text(f"  its group ends where {reader.operator} reads {reader.tensor}{why}")
    if source is None:
        note("--model MODEL.onnx tries one stripe more and one fewer")
        return
    from cosma.studies.tiling_levers import AS_IT_IS, cut_trials

    title = f"Other cuts, each planned in one pass (this plan: {format_size(plan.traffic.noncompulsory)})"
    table = make_table(title, ("cut", "tiles in all", "non-compulsory", ""), right=(1, 2))
    before: int | None = None
    try:
        for trial in cut_trials(plan, source, name):
            if trial.noncompulsory_bytes is None:
                table.add_row(trial.change, str(trial.tiles), "-", "does not fit")
                continue
            before = trial.noncompulsory_bytes if before is None else before
            change = trial.noncompulsory_bytes - before
            word = f"{format_size(abs(change))} {'more' if change > 0 else 'less'}" if change else "the same"
            if trial.change == AS_IT_IS:
                word = ""
            table.add_row(trial.change, str(trial.tiles), format_size(trial.noncompulsory_bytes), word)
    except KeyboardInterrupt:
        note("interrupted: not every cut was tried")
    print_table(table)


#: What the largest share of the scratchpad means.
LIMITS = {
    "tile": "the tile itself takes most, so finer tiles leave more room",
    "weights of the tile": "its own weights take most, so cutting its channels leaves more room",
    "maps kept": "maps kept for later tiles take most",
    "weights kept": "weights kept for later tiles take most, and stripes would read them again",
}


def _cut(axis: AxisCut) -> str:
    size = f"{axis.smallest} to {counted(axis.largest, 'element')}"
    if axis.smallest == axis.largest:
        size = counted(axis.largest, "element")
    if axis.axis == "sum":
        return f"along the axis that it sums over into {axis.tiles} steps of {size}"
    return f"along axis {axis.axis} into {axis.tiles} tiles of {size}"


def _story(plan: Plan, name: str, timeline: Timeline, source: LoadedModel | None) -> CutStory | None:
    from cosma.report.explain_tiling import barriers_of, explain_cut

    if all(operator.tile is None for operator in plan.graph.operators):
        return None
    barriers = None
    if source is not None:
        from cosma.studies.tiling_levers import untiled_graph

        barriers = barriers_of(untiled_graph(plan, source), source.sites)
    return explain_cut(plan, name, timeline, barriers)
