"""Networks to plan in which Concat, Split and Slice copy nothing, as far as operands may consist of pieces.

Copying is never given up for them: whoever plans runs both, each with the work it would have had alone, and keeps the
better plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cosma.accelerator import Fusion, Operands
from cosma.access.operator import operator_access
from cosma.compiler.fusion import AMPLE_BYTES, Choice
from cosma.compiler.modes import fitting_modes, in_chosen_modes, with_all_modes
from cosma.compiler.strategies import COPYING
from cosma.errors import InfeasibleError, Remedy, warn
from cosma.problem import build_problem, smallest_feasible_capacity
from cosma.problem.feasibility import infeasible
from cosma.problem.homes import homes_of
from cosma.rewrite.constraints import copying, fusable
from cosma.rewrite.fuse import Link, first_links, fitting, fuse, late_links
from cosma.rewrite.join import join_copies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cosma.accelerator import Accelerator
    from cosma.access import NodeSite
    from cosma.compiler.request import Request
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph


@dataclass(frozen=True, slots=True)
class Joined:
    """Networks without operators that need not copy."""

    #: Those that fit, for some choices of operators to fuse; none where all must copy.
    choices: tuple[Choice, ...] = ()
    #: Where none fits: the least capacity with which one of them would, reserved bytes aside.
    least_bytes: int | None = None

    def explained(self, error: InfeasibleError, request: Request) -> InfeasibleError:
        """Why a network with its copies does not fit, and the scratchpad enough without them where that is less."""
        least = self.least_bytes
        if least is None or error.conflict or (error.smallest_capacity_bytes or least) <= least:
            return error
        scratchpad = least + request.accelerator.reserved
        # The remedies tried help the network with its copies; its smallest scratchpad is no longer the smallest of all.
        rest = tuple(remedy for remedy in error.remedies if remedy.setting != "scratchpad")
        return InfeasibleError(
            error.message,
            operator=error.operator,
            operator_type=error.operator_type,
            needed_bytes=error.needed_bytes,
            available_bytes=error.available_bytes,
            smallest_capacity_bytes=least,
            remedies=(Remedy("scratchpad", scratchpad, scratchpad, enough=True), *rest),
        ).with_details([*error.details, f"  without copies {least} bytes suffice"])


def without_copies(request: Request) -> Joined:
    """Networks in which Concat, Split and Slice copy nothing, where the accelerator and the strategy know such."""
    strategy = request.strategy.name
    if not request.accelerator.zero_copy or request.graph.joins:
        return Joined()  # of a graph that was joined by whoever made it, that is what is planned
    if strategy in COPYING:
        message = f"zero-copy is left out: {strategy} plans copies, as the existing methods do that others compare with"
        warn(message)
        return Joined()
    if request.tiling not in (None, "none", "auto"):
        return Joined()  # tiles that were asked for are planned, with copies and without
    return joined_choices(request.source, request.graph, request.accelerator)


def with_zero_copy(error: InfeasibleError, request: Request) -> InfeasibleError:
    """Say that leaving copies out helps a network that does not fit, where it was tried and does."""
    accelerator = request.accelerator
    if accelerator.zero_copy or error.conflict:
        return error
    found = joined_choices(request.source, request.graph, accelerator.replace(zero_copy=True))
    least = found.least_bytes
    if found.choices:
        error.remedies += (Remedy("zero_copy", True, accelerator.scratchpad, enough=True),)
    elif least is not None and least < (error.smallest_capacity_bytes or 0):
        error.remedies += (Remedy("zero_copy", True, least + accelerator.reserved, enough=False),)
    return error


def without_some_copies(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> bool:
    """Whether some operator of a graph need not copy, so that a bound for its copies does not hold for every plan."""
    if not accelerator.zero_copy:
        return False
    return len(_join(graph, source.sites, accelerator).operators) < len(graph.operators)


def joined_choices(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> Joined:
    """Networks without operators that need not copy; ``graph`` is before fusion, element type applied."""
    stationary = accelerator.operands == Operands.STATIONARY
    joined = _join(graph, source.sites, accelerator)
    left = {operator.name for operator in joined.operators}
    if len(left) == len(graph.operators):
        return Joined()
    gone = {operator.name for operator in graph.operators} - left
    room = accelerator.replace(operands=Operands.STREAMABLE) if stationary else accelerator
    found: dict[frozenset[str], Choice] = {}
    needs: list[int] = []
    for name, links in _link_sets(graph, accelerator):
        # An operator that a Concat would absorb makes it more than a copy.
        key = _fitting(graph, room, [link for link in links if link.producer not in gone])
        if key in found:
            continue
        choice = Choice(f"{name}, zero-copy", key, fuse(graph, key).graph if key else graph)
        if stationary:
            choice = with_all_modes(choice, source, accelerator)
        made = _join(choice.graph, source.sites, accelerator)
        if made is choice.graph:
            continue
        problem = build_problem(fitting_modes(made, accelerator) if stationary else made, accelerator)
        if infeasible(problem, graph) is None:
            found[key] = replace(choice, graph=made)
        elif not (problem.conflict or problem.refused):
            needs.append(smallest_feasible_capacity(problem))
    choices = tuple(found.values())
    if stationary and choices:
        try:
            choices = in_chosen_modes(choices, accelerator)
        except InfeasibleError:
            choices = ()
    return Joined(choices, min(needs) if needs and not choices else None)


def joined_to_cut(source: LoadedModel, graph: Graph, accelerator: Accelerator) -> Choice | None:
    """The network to cut into tiles in which Concats copy nothing; None where all must.

    ``graph`` is before fusion, element type applied. A Split or a Slice goes on copying: its results would be parts
    already, which no tile cuts. Whether the network fits the accelerator without tiles does not matter.
    """
    ample = accelerator.replace(scratchpad=AMPLE_BYTES)
    concats = {operator.name for operator in graph.operators if operator.type == "Concat"}
    concats -= copying(graph, accelerator.constraints)
    while concats:
        gone = concats & _without_concats(graph, source, concats)[1]
        key: frozenset[str] = frozenset()
        if accelerator.fusion != Fusion.NONE:
            key = _fitting(graph, ample, [link for link in first_links(graph) if link.producer not in gone])
        choice = Choice("all, zero-copy", key, fuse(graph, key).graph if key else graph)
        if accelerator.operands == Operands.STATIONARY:
            choice = with_all_modes(choice, source, accelerator)
        made, gone = _without_concats(choice.graph, source, gone)
        # A reader of which the regions cannot be followed through a Concat could be cut before.
        lost = {
            maker for operator in made.operators
            if operator.joined and operator_access(made, source.sites, operator).barrier
            and not operator_access(choice.graph, source.sites, choice.graph.operator(operator.name)).barrier
            for root in operator.joined if (maker := graph.producer(root)) is not None
        }  # fmt: skip
        if not lost:
            return replace(choice, graph=made) if gone else None
        concats -= lost
    return None


def _without_concats(graph: Graph, source: LoadedModel, concats: set[str]) -> tuple[Graph, set[str]]:
    """The network without those of some Concats that need not copy, and which these are."""
    keep = [operator.name for operator in graph.operators if operator.name not in concats]
    made = join_copies(graph, source.sites, keep=keep).graph
    return made, concats - {operator.name for operator in made.operators}


def _link_sets(graph: Graph, accelerator: Accelerator) -> list[tuple[str, Iterable[Link]]]:
    if accelerator.fusion == Fusion.NONE:
        return [("none", ())]
    return [("all", first_links(graph)), ("late", late_links(graph)), ("none", ())]


def _fitting(graph: Graph, accelerator: Accelerator, links: list[Link]) -> frozenset[str]:
    """Links of which the operators fit when fused; under constraints, those that no constraint names."""
    if accelerator.constraints or accelerator.reserved_ranges:
        return frozenset(link.tensor for link in fusable(links, accelerator))
    return frozenset(link.tensor for link in fitting(graph, accelerator, links) or ())


def _join(graph: Graph, sites: Mapping[str, NodeSite], accelerator: Accelerator) -> Graph:
    """Take out operators that copy, as many as leave every operand in few enough pieces."""
    keep = copying(graph, accelerator.constraints)
    while True:
        made = join_copies(graph, sites, keep=keep).graph
        refused = homes_of(made, accelerator).refused
        if not refused:
            return made
        left = {operator.name for operator in made.operators}
        before = len(keep)
        for _, root, _ in refused:
            maker = graph.producer(root)
            if root in made.joins and maker is not None:
                keep.add(maker)
            else:  # cut by those that read it
                keep.update(name for name in graph.consumers(root) if name not in left)
        if len(keep) == before:
            return graph
