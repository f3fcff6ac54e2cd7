"""Graphs to plan whose operators are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.accelerator import Operands
from cosma.compiler.fusion import fusion_choices
from cosma.compiler.modes import stationary_choices
from cosma.compiler.parts import plan_choices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.compiler.fusion import Choice
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph


def uncut_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = (),
    *, parts: bool = False,
) -> tuple[Choice, ...]:  # fmt: skip
    """Choices of whole operators; with parts, of tensors cut where operators select from them."""
    if accelerator.operands == Operands.STATIONARY:
        return stationary_choices(source, graph, accelerator, starts, parts=parts)
    return (plan_choices if parts else fusion_choices)(graph, accelerator, starts)
