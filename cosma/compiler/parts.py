"""Networks to plan: each choice of fused operators, and with tensors cut into parts where operators select from them.

Cutting can cost as well as save: an operator that writes parts cannot work in place, and parts are rounded up to the
alignment. So the network with whole tensors is always among the choices, and the better plan is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.compiler.fusion import Choice, fusion_choices
from cosma.errors import InfeasibleError
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from cosma.rewrite.parts import cut_selections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph


def plan_choices(graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = ()) -> tuple[Choice, ...]:
    """Choices of operators to fuse and of tensors to cut; whole tensors first. ``graph`` is before fusion.

    Raises InfeasibleError if some operator fits in no way, with its operands cut neither.
    """
    try:
        choices = fusion_choices(graph, accelerator, starts)
    except InfeasibleError:
        # An operator may fit with a part of an operand that does not fit whole.
        cut = cut_selections(graph, accelerator.alignment, least_unread=0).graph
        if cut is graph or infeasible(build_problem(cut, accelerator), cut) is not None:
            raise
        return tuple(replace(choice, name=_named(choice)) for choice in fusion_choices(cut, accelerator, starts))
    return with_parts(choices, accelerator, starts)


def with_parts(
    choices: tuple[Choice, ...], accelerator: Accelerator, starts: Sequence[Graph] = ()
) -> tuple[Choice, ...]:
    """The choices, and behind them some of them with tensors cut into parts where operators select from them."""
    # The way that fuses most and the one that fuses nothing, so that fusion never costs what cutting saves; a plan to
    # start from may have parts in any.
    ends = tuple(choice for choice in choices if choice is choices[0] or not choice.fused)
    wanted = choices if any(start.roots for start in starts) else ends
    for choice in wanted:
        cut = cut_selections(choice.graph, accelerator.alignment).graph
        if cut is not choice.graph and infeasible(build_problem(cut, accelerator), cut) is None:
            choices = (*choices, Choice(_named(choice), choice.fused, cut))
    return choices


def _named(choice: Choice) -> str:
    return f"{choice.name}, with parts"
