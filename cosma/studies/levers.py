"""What would change a plan's traffic: the same network compiled for accelerators that differ in one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.accelerator import Fusion, Operands, Weights
from cosma.compiler import run_compile
from cosma.errors import InfeasibleError
from cosma.report.explain import next_capacity
from cosma.units import align_up

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline


#: The quick method that levers are compared by.
QUICK = "e2"


@dataclass(frozen=True, slots=True)
class Lever:
    """Something that could be changed, and what a quick method makes of it.

    Attributes
    ----------
    change
        What is changed.
    setting, value
        The field of the accelerator, and what it is then.
    before, after
        Non-compulsory bytes by the same quick method; ``after`` is None where the change leaves no plan.
    """

    change: str
    setting: str
    value: str | int
    before: int
    after: int | None


def levers(plan: Plan, timeline: Timeline | None = None) -> list[Lever]:
    """Try what could be changed, each change alone, with the quick method: an indication, not a proof."""
    accelerator = plan.accelerator
    options: list[tuple[str, str, str | int]] = []
    if not accelerator.in_place:
        options.append(("allow in-place results", "in_place", True))
    if accelerator.fusion == Fusion.NONE:
        options.append(("fuse elementwise epilogues", "fusion", Fusion.EPILOGUE.value))
    if accelerator.operands != Operands.STREAMABLE:
        options.append(("stream operands and results", "operands", Operands.STREAMABLE.value))
    if accelerator.operands == Operands.STATIONARY:
        pass  # the plan's modes are made for weights as they are
    elif accelerator.weights == Weights.SCRATCHPAD:
        options.append(("stream the weights", "weights", Weights.STREAM.value))
    else:
        options.append(("keep weights in the scratchpad", "weights", Weights.SCRATCHPAD.value))
    following = next_capacity(plan, timeline)
    if following is not None:
        larger = align_up(following[0], accelerator.alignment) + accelerator.reserved
        options.append(("the next capacity that lets one more tensor stay", "scratchpad", larger))
    options.append(("twice the scratchpad", "scratchpad", 2 * accelerator.scratchpad))
    before = _quick(plan, accelerator)
    if before is None:
        return []
    return [
        Lever(change, setting, value, before, _quick(plan, accelerator.replace(**{setting: value})))
        for change, setting, value in options
    ]


def _quick(plan: Plan, accelerator: Accelerator) -> int | None:
    try:
        return run_compile(plan.graph, accelerator, strategy=QUICK).plan.traffic.noncompulsory
    except InfeasibleError:
        return None


