"""Networks to plan in which Concat, Split and Slice copy nothing, as far as operands may consist of pieces.

Copying is never given up for them: whoever plans runs both, each with the work it would have had alone, and keeps the
better plan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.accelerator import Fusion, Operands
from cosma.compiler.fusion import Choice
from cosma.compiler.modes import in_chosen_modes, with_all_modes
from cosma.errors import InfeasibleError
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from cosma.problem.homes import homes_of
from cosma.rewrite.fuse import Link, first_links, fitting, fuse, late_links
from cosma.rewrite.join import join_copies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cosma.accelerator import Accelerator
    from cosma.access import NodeSite
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph


def joined_choices(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> tuple[Choice, ...]:
    """Networks without operators that need not copy, for some choices of operators to fuse; none where all must copy.

    Parameters
    ----------
    source
        The model, whose nodes say what Slices select.
    graph
        Its graph, element type applied, before fusion.
    accelerator
        What to plan for.
    """
    if accelerator.constraints:
        return ()  # they speak of tensors and operators that would be gone, or lie elsewhere
    stationary = accelerator.operands == Operands.STATIONARY
    joined = _join(graph, source.sites, accelerator)
    left = {operator.name for operator in joined.operators}
    if len(left) == len(graph.operators):
        return ()
    copying = {operator.name for operator in graph.operators} - left
    sets: list[tuple[str, Iterable[Link]]] = [("none", ())]
    if accelerator.fusion != Fusion.NONE:
        # What a Concat would absorb makes it more than a copy.
        sets = [("all", first_links(graph)), ("late", late_links(graph)), ("none", ())]
    found: dict[frozenset[str], Choice] = {}
    for name, links in sets:
        room = accelerator.replace(operands=Operands.STREAMABLE) if stationary else accelerator
        fit = fitting(graph, room, [link for link in links if link.producer not in copying])
        key = frozenset(link.tensor for link in fit or ())
        if key in found:
            continue
        choice = Choice(f"{name}, zero-copy", key, fuse(graph, key).graph if key else graph)
        if stationary:
            choice = with_all_modes(choice, source, accelerator)
        made = _join(choice.graph, source.sites, accelerator)
        if made is not choice.graph and infeasible(build_problem(made, accelerator), graph) is None:
            found[key] = replace(choice, graph=made)
    if not stationary:
        return tuple(found.values())
    try:
        return in_chosen_modes(list(found.values()), accelerator)
    except InfeasibleError:
        return ()


def _join(graph: Graph, sites: Mapping[str, NodeSite], accelerator: Accelerator) -> Graph:
    """Take out operators that copy, as many as leave every operand in few enough pieces."""
    keep: set[str] = set()
    while True:
        made = join_copies(graph, sites, keep=keep).graph
        refused = homes_of(made, accelerator).refused
        if not refused:
            return made
        left = {operator.name for operator in made.operators}
        for _, root in refused:
            maker = graph.producer(root)
            if root in made.joins and maker is not None:
                keep.add(maker)
            else:  # cut by those that read it
                keep.update(name for name in graph.consumers(root) if name not in left)
