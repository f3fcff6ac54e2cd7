"""Whether what a plan says of off-chip memory can be: the judge's own reading of when each tensor lies there."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosma.graph import TensorKind
from cosma.plan.instructions import Execute, Load, Store
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from cosma.plan.off_chip import Area
    from cosma.plan.plan import Plan

_KINDS = {"inputs": TensorKind.INPUT, "weights": TensorKind.WEIGHT, "outputs": TensorKind.OUTPUT}


def check_off_chip(plan: Plan) -> list[Violation]:
    """Violations of a plan's off-chip layout; none where it has no layout."""
    if plan.off_chip is None:
        return []
    sizes = {t.name: t.size_bytes for t in (*plan.graph.roots.values(), *plan.graph.tensors.values())}
    joins, roots = plan.graph.joins.values(), plan.graph.roots
    pieces = {piece.tensor for join in joins if roots[join.root].kind is TensorKind.OUTPUT for piece in join.pieces}
    states = {str(t.state): t.name for t in plan.graph.tensors.values() if t.state is not None}
    found = list(_places(plan.off_chip.spilled, sizes, plan.accelerator.alignment, "spilled"))
    kinds = {t.kind for t in plan.graph.tensors.values()}
    for name, needed in _KINDS.items():
        if needed in kinds and name not in plan.off_chip.areas:
            found.append(_note(Verdict.OFF_CHIP_ABSENT, f"there is no off-chip area for {name}"))
    for name, area in plan.off_chip.areas.items():
        found += _places(area, sizes, plan.accelerator.alignment, name)
        found += _overlaps(area, sizes, {one: (0, 1) for one in area.offsets if one not in states}, name)
        kind = _KINDS.get(name)
        for tensor in (*plan.graph.roots.values(), *plan.graph.tensors.values()):
            if tensor.name in pieces and tensor.name in area.offsets:
                message = f"{tensor.name!r} lies in the graph output it is a piece of, and has an offset in {name}"
                found.append(_note(Verdict.OFF_CHIP_OVERLAP, message))
            listed = tensor.region is None and tensor.rows is None
            listed = listed and tensor.name not in pieces and tensor.name not in states
            if tensor.kind is kind and listed and tensor.name not in area.offsets:
                found.append(_note(Verdict.OFF_CHIP_ABSENT, f"{tensor.kind} {tensor.name!r} has no offset in {name}"))
    outputs = plan.off_chip.areas.get("outputs")
    for before, after in states.items():
        at = {} if outputs is None else outputs.offsets
        if after in at and at.get(before) != at[after]:
            message = f"{before!r} has no offset in outputs where its next value {after!r} lies"
            found.append(_note(Verdict.OFF_CHIP_ABSENT, message))
    spans = _spans(plan)
    for tensor_name in spans:
        if tensor_name not in plan.off_chip.spilled.offsets:
            found.append(_note(Verdict.OFF_CHIP_ABSENT, f"{tensor_name!r} is spilled and has no off-chip offset"))
    found += _overlaps(plan.off_chip.spilled, sizes, spans, "spilled")
    if plan.off_chip.lower_bound > plan.off_chip.spilled.size_bytes:
        message = f"off-chip: at least {plan.off_chip.lower_bound} bytes are claimed to be needed, and fewer are used"
        found.append(_note(Verdict.CERTIFICATE_MISMATCH, message))
    return found


def _note(verdict: Verdict, message: str) -> Violation:
    return Violation(verdict, None, message)


def _places(area: Area, sizes: dict[str, int], alignment: int, where: str) -> Iterator[Violation]:
    for name, offset in area.offsets.items():
        if name not in sizes:
            yield _note(Verdict.UNKNOWN_NAME, f"off-chip {where}: tensor {name!r} is not in the plan")
            continue
        end = offset + sizes[name]
        if offset % alignment:
            message = f"off-chip {where}: {name!r} at {offset} is not at a multiple of {alignment}"
            yield _note(Verdict.OFF_CHIP_MISALIGNED, message)
        if end > area.size_bytes:
            message = f"off-chip {where}: {name!r} at [{offset}, {end}) is outside [0, {area.size_bytes})"
            yield _note(Verdict.OFF_CHIP_OUT_OF_BOUNDS, message)


def _spans(plan: Plan) -> dict[str, tuple[int, int]]:
    """From the instruction that first writes an intermediate tensor off-chip to the last that touches it there."""
    touched: dict[str, list[int]] = {}
    for i, instruction in enumerate(plan.instructions):
        if isinstance(instruction, Execute):
            for name in instruction.streamed:
                touched.setdefault(name, []).append(i)
        elif isinstance(instruction, Load | Store):
            touched.setdefault(instruction.tensor, []).append(i)
    tensors = plan.graph.tensors
    return {
        name: (at[0], at[-1] + 1)
        for name, at in touched.items()
        if name in tensors and tensors[name].kind is TensorKind.INTERMEDIATE
    }


def _overlaps(area: Area, sizes: dict[str, int], spans: dict[str, tuple[int, int]], where: str) -> Iterator[Violation]:
    """Pairs that lie at the same bytes at the same time: a sweep over time with what is there sorted by offset."""
    events: list[tuple[int, int, str]] = []
    for name, (start, end) in spans.items():
        if name in area.offsets and sizes.get(name, 0):
            events += [(start, 1, name), (end, 0, name)]
    there: list[tuple[int, str]] = []
    for _, begins, name in sorted(events):
        offset = area.offsets[name]
        if not begins:
            there.remove((offset, name))
            continue
        stop = offset + sizes[name]
        for other_offset, other in there:
            if other_offset < stop and offset < other_offset + sizes[other]:
                yield _note(
                    Verdict.OFF_CHIP_OVERLAP,
                    f"off-chip {where}: {name!r} at [{offset}, {stop}) overlaps {other!r} at "
                    f"[{other_offset}, {other_offset + sizes[other]})",
                )
                break
        insort(there, (offset, name))
