"""What would change a plan's traffic: the same network compiled for accelerators that differ in one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.accelerator import Fusion, Operands, Weights
from cosma.compiler import Limits, run_compile
from cosma.compiler.fusion import fusion_choices
from cosma.errors import InfeasibleError
from cosma.parameters.compiler import AutoParameters, CompileParameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.accelerator import Accelerator
    from cosma.plan import Plan
    from cosma.studies.next_capacity import OneMore

#: Effort spent on each change, in nominal seconds: on 1,645 operators, 5 s of two cores that others shared.
EFFORT = 0.1
#: Of all orders, the plan's own alone gets its best replacement before the search.
QUICK = CompileParameters(auto=AutoParameters(first_orders=1))


@dataclass(frozen=True, slots=True)
class Lever:
    """Something that could be changed, and what a short search from the plan makes of it."""

    #: What is changed.
    change: str
    #: The field of the accelerator, and what it is then; None and empty where none is changed.
    setting: str | None
    value: str | int
    #: Non-compulsory bytes of the plan itself, and of what the search finds; ``after`` is None where the change leaves
    #: no plan.
    before: int
    after: int | None


def levers(plan: Plan, following: OneMore | None = None) -> Iterator[Lever]:
    """Try what could be changed, each change alone, by a short search that starts from the plan.

    What it finds is an indication: a longer search may find more, nothing is proven. The next capacity, where it is
    given, is not searched: the plan found there stands for it.
    """
    accelerator = plan.accelerator
    # Many tiles are laid out anew along their order, and searched no further.
    along = plan.graph.is_tiled and len(plan.graph.operators) > QUICK.auto.most_tiles
    same = "planned anew in its order" if along else "a longer search"
    options: list[tuple[str, str | None, str | int]] = [(f"{same}, all else as it is", None, "")]
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
    twice = 2 * accelerator.scratchpad
    before = plan.traffic.noncompulsory
    larger = None if following is None else following.capacity_bytes + accelerator.reserved
    if following is not None and larger is not None and larger < twice:
        change = "keep one more tensor, all else as it is"
        yield Lever(change, "scratchpad", larger, before, following.noncompulsory_bytes)
    options.append(("twice the scratchpad", "scratchpad", twice))
    for change, setting, value in options:
        other = accelerator if setting is None else accelerator.replace(**{setting: value})
        yield Lever(change, setting, value, before, _after(plan, other))


def _after(plan: Plan, accelerator: Accelerator) -> int | None:
    graph, most = plan.graph, None
    starts: tuple[Plan, ...] = (plan,)
    try:
        if accelerator.fusion != plan.accelerator.fusion:
            # One choice of what to fuse, its operators given in the plan's order; to fuse nothing is the plan itself.
            ordered = graph.replace(operators=[graph.operator(name) for name in plan.schedule])
            graph, starts, most = fusion_choices(ordered, accelerator)[0].graph, (), plan.traffic.noncompulsory
        found = run_compile(
            graph,
            accelerator.replace(fusion=Fusion.NONE),  # of what there is, nothing more is fused
            limits=Limits(effort=EFFORT),
            starts=starts,
            parameters=QUICK,
            compare=False,
        )
    except InfeasibleError:
        return None
    after = found.plan.traffic.noncompulsory
    return after if most is None else min(after, most)
