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
    before, after
        Non-compulsory bytes by the same quick method; ``after`` is None where the change leaves no plan.
    """

    change: str
    before: int
    after: int | None


def levers(plan: Plan, timeline: Timeline | None = None) -> list[Lever]:
    """Try what could be changed, each change alone, with the quick method: an indication, not a proof."""
    accelerator = plan.accelerator
    options: list[tuple[str, Accelerator]] = []
    if not accelerator.in_place:
        options.append(("allow in-place results (--in-place)", accelerator.replace(in_place=True)))
    if accelerator.fusion == Fusion.NONE:
        options.append(("fuse elementwise epilogues (--fusion epilogue)", accelerator.replace(fusion=Fusion.EPILOGUE)))
    if accelerator.operands != Operands.STREAMABLE:
        options.append(
            ("stream operands and results (--operands streamable)", accelerator.replace(operands=Operands.STREAMABLE))
        )
    if accelerator.operands == Operands.STATIONARY:
        pass  # the plan's modes are made for weights as they are
    elif accelerator.weights == Weights.SCRATCHPAD:
        options.append(("stream the weights (--weights stream)", accelerator.replace(weights=Weights.STREAM)))
    else:
        options.append(
            ("keep weights in the scratchpad (--weights scratchpad)", accelerator.replace(weights=Weights.SCRATCHPAD))
        )
    following = next_capacity(plan, timeline)
    if following is not None:
        larger = align_up(following[0], accelerator.alignment) + accelerator.reserved
        options.append((f"the next capacity that lets one more tensor stay (--scratchpad {larger})",
                        accelerator.replace(scratchpad=larger)))  # fmt: skip
    options.append((f"twice the scratchpad (--scratchpad {2 * accelerator.scratchpad})",
                    accelerator.replace(scratchpad=2 * accelerator.scratchpad)))  # fmt: skip
    before = _quick(plan, accelerator)
    if before is None:
        return []
    return [Lever(change, before, _quick(plan, other)) for change, other in options]


def _quick(plan: Plan, accelerator: Accelerator) -> int | None:
    try:
        return run_compile(plan.graph, accelerator, strategy=QUICK).plan.traffic.noncompulsory
    except InfeasibleError:
        return None


