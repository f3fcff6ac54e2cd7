"""Which operators to fuse: a few choices tried with little work, the rest of the work spent on the best of them.

Under ``fusion = epilogue`` any choice of links is legal, none included. So no compile returns a plan that is worse
than the one it found without fusion, and a network that fits without fusion fits with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cosma.compiler.run import CompileRun
from cosma.compiler.starts import Start
from cosma.errors import InfeasibleError
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from cosma.rewrite.constraints import fusable
from cosma.rewrite.fuse import Link, first_links, fitting, free_links, fuse, late_links, links, smallest_capacity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cosma.accelerator import Accelerator
    from cosma.compiler.limits import Limits
    from cosma.graph import Graph
    from cosma.lowering import Realised
    from cosma.problem import Instance

#: Share of the effort for a first look at each choice; at most half of the effort goes there with the five there are.
TRIAL_SHARE = 0.1
#: A scratchpad that everything fits in, fused or not: where only the shape of the graph matters, or tiles come later.
AMPLE_BYTES = 1 << 50
#: Origin of the plans that come with choices: a search, which leaves little to gain, or a first look.
SEARCHED, IN_TURNS = "tiling search", "tiles in turns"


@dataclass(frozen=True, slots=True)
class Choice:
    """A network with some of its links fused."""

    #: How the links were chosen: ``all``, ``late``, ``free``, ``none`` or ``start``.
    name: str
    #: Tensors that no longer exist.
    fused: frozenset[str]
    #: The network.
    graph: Graph
    #: For a network of tiles, the network that was cut.
    untiled: Graph | None = None
    #: Under ``operands = stationary``, the network with all modes of every operator, where ``graph`` has chosen some.
    relaxed: Graph | None = None
    #: A plan of the network, where its choice came with one.
    start: Realised | None = None
    #: The instance to plan, where it has been built.
    problem: Instance | None = field(default=None, compare=False, repr=False)

    def instance(self, accelerator: Accelerator) -> Instance:
        """The instance to plan: the one that has been built, where that is for this accelerator."""
        known = self.problem
        if known is not None and known.graph is self.graph and known.accelerator == accelerator:
            return known
        return build_problem(self.graph, accelerator)

    def starts(self) -> tuple[Start, ...]:
        """The plan that came with the choice, as one to start from."""
        if self.start is None:
            return ()
        found_by = SEARCHED if self.name == "tiled" else IN_TURNS
        return (Start(found_by, self.name, "", self.start.decisions.order, self.start, ""),)


def fusion_choices(graph: Graph, accelerator: Accelerator, starts: Iterable[Graph] = ()) -> tuple[Choice, ...]:
    """Choices of links that let every operator fit, the one that fuses most first.

    ``graph`` is the network before fusion, element type applied; without fusion it is the only choice. The fusion of
    the networks in ``starts`` is a choice too. Raises InfeasibleError if some operator fits in no way.
    """
    if accelerator.fusion == "none":
        _check(graph, graph, accelerator)
        return (Choice("none", frozenset(), graph),)
    # Operators that constraints name are not fused, and then the instance says whether a choice fits.
    forced = bool(accelerator.constraints or accelerator.reserved_ranges)
    known = {link.tensor: link for link in (fusable(links(graph), accelerator) if forced else links(graph))}
    sets: list[tuple[str, Iterable[Link]]] = [
        ("all", first_links(graph)),
        ("late", late_links(graph)),
        ("free", free_links(graph, accelerator)),
        ("none", ()),
    ]
    # A tensor that was cut is there by the name of its root.
    present = [start.tensors.keys() | start.roots.keys() for start in starts]
    sets += [("start", [link for name, link in known.items() if name not in there]) for there in present]
    found: dict[frozenset[str], Choice] = {}
    errors: list[InfeasibleError] = []
    for name, chosen in sets:
        fit = [link for link in chosen if link.tensor in known] if forced else fitting(graph, accelerator, chosen)
        key = None if fit is None else frozenset(link.tensor for link in fit)
        if key is None or key in found:
            continue
        made = fuse(graph, key).graph if key else graph
        error = infeasible(build_problem(made, accelerator), graph) if forced else None
        if error is None:
            found[key] = Choice(name, key, made)
        else:
            errors.append(error)
    if not found and errors:
        raise errors[-1]
    if not found:
        # No choice fits: name the operator that needs most in the choice that needs least.
        ample = accelerator.replace(scratchpad=smallest_capacity(graph, accelerator) + accelerator.reserved)
        for chosen in (first_links(graph), late_links(graph)):
            fit = fitting(graph, ample, chosen)
            if fit is not None:
                _check(fuse(graph, {link.tensor for link in fit}).graph, graph, accelerator)
    return tuple(found.values())


def _check(graph: Graph, before: Graph, accelerator: Accelerator) -> None:
    error = infeasible(build_problem(graph, accelerator), before)
    if error is not None:
        raise error


def run_choices(
    states: Sequence[CompileRun], run: Callable[[CompileRun], None], limits: Limits, *, counts_effort: bool
) -> CompileRun:
    """Run a strategy on every choice, then go on with the most promising; the run that has the best plan.

    There is one run for each choice, the preferred one first. Their limits are set here: ``limits`` is for all of them
    together. ``counts_effort`` says whether the strategy does more with more effort; others need no second look.
    """
    if len(states) == 1:
        _run(states[0], run, limits)
        return states[0]
    least = min(state.problem.constant_noncompulsory_bytes for state in states)
    tried: list[CompileRun] = []
    spent_s = 0.0
    refused: list[InfeasibleError] = []
    for state in states:
        share = TRIAL_SHARE if counts_effort else 1.0
        try:
            _run(state, run, _share(limits, share, spent_s))
        except InfeasibleError as error:
            refused.append(error)  # no plan of this choice was found that keeps to the constraints
            continue
        spent_s += state.clock.elapsed_s()
        tried.append(state)
        # Under a trade-off, another choice may take fewer transfers.
        if state.best_report is not None and state.noncompulsory_bytes <= least and not limits.trade_off:
            return state
        if state.clock.interrupted:
            return _best(tried)
    if not tried:
        raise refused[0]
    best = _best(tried)
    # A choice that cannot beat the best plan is not worth more work; of the other choices, the best so far is.
    goal = best.noncompulsory_bytes
    worth = [s for s in tried if s is best or s.bound_bytes < goal * (1 - limits.gap)]
    worth = [s for s in worth if not s.proven()]
    if counts_effort and worth:
        state = _best(worth)
        clock_s = state.clock.elapsed_s()
        clipped, state.clock.timed_out = state.clock.timed_out, False
        left = _share(limits, 1 - TRIAL_SHARE * len(tried), spent_s)
        if left.time_limit_s is not None:
            left = replace(left, time_limit_s=left.time_limit_s + clock_s)
        _run(state, run, left)
        state.clock.timed_out = state.clock.timed_out or clipped
        best = _best(tried)
    best.clock.timed_out = best.clock.timed_out or any(state.clock.timed_out for state in tried)
    return best


def _run(state: CompileRun, run: Callable[[CompileRun], None], limits: Limits) -> None:
    state.grant(limits)
    state.spent = 0.0
    try:
        state.offer_starts()
        if not state.proven():
            run(state)
    finally:
        state.pause()
    if state.ledger is not None:
        state.ledger.closed += state.spent
        state.spent = 0.0


def _share(limits: Limits, share: float, spent_s: float) -> Limits:
    """A share of the effort and of the clock, but no more of the clock than is left."""
    if limits.time_limit_s is None:
        return replace(limits, effort=limits.effort * share)
    clock_s = max(0.05, min(limits.time_limit_s * share, limits.time_limit_s - spent_s))
    return replace(limits, effort=limits.effort * share, time_limit_s=clock_s)


def _best(states: Sequence[CompileRun]) -> CompileRun:
    """The run with the least traffic; of equals the first."""
    return min(states, key=lambda s: s.noncompulsory_bytes if s.best_report is not None else 1 << 62)
