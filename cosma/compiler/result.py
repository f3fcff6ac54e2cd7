"""The result of a compile: a plan, and how it came to be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cosma.clock import never
from cosma.errors import warn
from cosma.parameters import changed
from cosma.plan import Plan, ScopedBound, Traffic
from cosma.plan.states import lost_states, with_states_that_hold
from cosma.rewrite.tiling import Tiling
from cosma.text import short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cosma.accelerator import Accelerator
    from cosma.compiler.fusion import Choice
    from cosma.compiler.request import Request
    from cosma.compiler.run import CompileRun
    from cosma.compiler.starts import Start
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.plan import Certificate


@dataclass(frozen=True, slots=True)
class CompileResult:
    """A plan, and how it came to be.

    Attributes
    ----------
    plan
        Validated by replay.
    found_by
        The method that found it.
    stopped_by
        ``proof``, ``gap``, ``work``, ``time`` or ``interrupt``.
    reproducible
        Whether the same input, options and seed give the same plan again: false where a clock or an interrupt
        ended the run.
    seconds
        Time spent, clock on the wall.
    starts
        The plans given to start from, and for each that is not valid on this accelerator, why: only the order of
        such a plan was used.
    assumptions
        What the sizes of the model's tensors rest on that the model does not say, one sentence each.
    existing
        Traffic of the existing methods on the network with whole operators and tensors, by name: those that were
        tried, or none where the network does not fit so.
    left_out
        Engines that could not take the problem, and why; see :data:`cosma.compiler.engines.ENGINES`.
    seconds_by_phase
        The same time by phase; where engines work side by side, by the one that was begun last.
        ``tilings`` is the choice of tiles; ``judging`` replays the plan, bounds other tilings and compares.
    """

    __repr__ = short_repr

    plan: Plan
    found_by: str
    stopped_by: str
    reproducible: bool
    seconds: float
    starts: tuple[Start, ...] = ()
    assumptions: tuple[str, ...] = ()
    existing: Mapping[str, Traffic] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds_by_phase: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def status(self) -> Literal["optimal", "feasible"]:
        """``optimal`` where no valid plan moves less, as far as the bound reaches; ``feasible`` otherwise."""
        return self.plan.certificate.status

    @property
    def bounds(self) -> tuple[ScopedBound, ...]:
        """Lower bounds on the non-compulsory bytes, by the plans that each holds for."""
        certificate = self.plan.certificate
        return certificate.bounds or (ScopedBound("graph", certificate.lower_bound, certificate.method),)


def make_plan(
    state: CompileRun, request: Request, certificate: Certificate, settings: dict[str, Any]
) -> Plan:
    """The best plan of a run, with the bound that holds for it and with how it came to be.

    Warns with a CosmaWarning if a state cannot lie where its next value does.
    """
    assert state.best is not None
    assert state.best_report is not None
    graph = state.problem.graph
    if request.states:
        graph = with_states_that_hold(graph, state.best.instructions)
        for after, before in lost_states(graph, request.states.items()):
            why = f"{before!r} is read there once {after!r} is written"
            if after in graph.joins:
                why = f"{after!r} consists of other tensors, and does not begin with {before!r}"
            elif after in graph.roots or before in graph.roots:
                why = "they are cut into parts"
            message = f"state {after!r} = {before!r}: each has a place of its own off-chip, because {why}"
            warn(message)
    return Plan(
        graph=graph,
        accelerator=state.problem.accelerator,
        instructions=state.best.instructions,
        traffic=state.best_report.traffic,
        peak_bytes=state.best_report.peak_bytes,
        certificate=certificate,
        model_name=request.source.name,
        model_sha256=request.source.sha256,
        dtype=request.dtype,
        dims=request.source.dims,
        solver=settings,
        stopped_by="interrupt" if state.clock.interrupted else "time" if state.clock.timed_out else None,
    )


def judged(plan: Plan, request: Request) -> Plan:
    """A plan, once its replay against the model finds nothing wrong.

    What strategies offer was replayed on the graph that they planned; this holds the graph, its tiles and its modes
    against the model. A graph that comes from no file says itself what its operators may do. Raises PlanInvalidError if
    it does find something, which is a defect of the planner.
    """
    from cosma.validator import invalid, replay

    source = request.source
    if source.path is None:
        return plan
    graph, planned = source.finest_graph, source.graph.tensors
    if any(t.size_bytes != planned[t.name].size_bytes for t in graph.tensors.values() if t.name in planned):
        graph = source.graph  # it was counted otherwise after the file was read
    graph = graph if request.dtype is None else graph.with_dtype(request.dtype)
    report = replay(plan, graph, model=source.path, model_sha256=source.sha256)
    if not report.valid:
        raise invalid(f"{source.name} (a defect of the planner, please report it)", report)
    return plan


def settings_of(
    state: CompileRun, request: Request, starts: Sequence[Start], fused: str | None
) -> dict[str, Any]:
    """How a plan came to be, as its file says it; ``fused`` names the choice of operators to fuse, if any."""
    strategy, limits, tiling = request.strategy.name, request.limits, request.tiling
    settings: dict[str, Any] = {"strategy": strategy, "seed": request.seed, "found_by": state.best_by}
    if strategy not in ("e1", "e2", "e3", "existing"):
        settings |= {"effort": limits.effort, "gap": limits.gap}
    if request.profile is not None:
        settings["profile"] = request.profile.name
    if starts:
        settings["starts"] = [start.sha256 for start in starts]
    if fused is not None:
        settings["fused"] = fused
    if changed(request.parameters):
        settings["parameters"] = changed(request.parameters)
    if tiling is not None and tiling != "none":
        settings["tiling"] = "given" if isinstance(tiling, Tiling) else Path(str(tiling)).name
    return settings


def scoped(
    certificate: Certificate, graph: Graph, choices: Sequence[Choice], accelerator: Accelerator
) -> Certificate:
    """Say for which of the choices a bound holds, where there were several."""
    method = certificate.method
    if graph.is_tiled:
        # A plan that moves nothing twice is the best of all tilings; any other bound is for the tiles chosen.
        scope = "any tiling" if certificate.noncompulsory == 0 else "these tiles alone"
        return replace(certificate, method=method.replace("no tiling", scope))
    if accelerator.fusion != "none" and len(choices) > 1:
        method += "; for the operators fused here"
    if any(choice.graph.joins and choice.untiled is None for choice in choices):
        method += f"; for {'copies left out as here' if graph.joins else 'operators that copy'}"
    elif any(choice.graph.roots for choice in choices):
        method += f"; for {'tensors cut as here' if graph.roots else 'whole tensors'}"
    return replace(certificate, method=method)


def seconds_by_phase(states: Sequence[CompileRun], before_s: Mapping[str, float], total_s: float) -> dict[str, float]:
    """Time spent by phase: before the runs, in them, and the rest of the total, behind them."""
    found = dict(before_s)
    for state in states:
        for phase, seconds in state.seconds.items():
            found[phase] = found.get(phase, 0.0) + seconds
    return found | {"judging": max(0.0, total_s - sum(found.values()))}


def stopped_by(state: CompileRun) -> str:
    """Why a run ended, as :attr:`CompileResult.stopped_by` says it."""
    if state.certificate().status == "optimal":
        return "proof"
    if state.clock.interrupted:
        return "interrupt"
    if state.clock.timed_out:
        return "time"
    return "gap" if state.proven() else "work"


def bounded(
    certificate: Certificate, choice: Choice, source: LoadedModel, graph: Graph, accelerator: Accelerator,
    stop: Callable[[], bool] = never,
) -> Certificate:  # fmt: skip
    """Add to the certificate of a plan what holds for every tiling, of the graph before fusion.

    ``stop`` is polled: at a time limit or an interrupt the bound rests on what was looked at.
    """
    from cosma.bounds.tilings import METHOD, tilings_bound

    own: Literal["graph", "tiling"] = "graph" if choice.untiled is None else "tiling"
    achieved = certificate.noncompulsory
    found = tilings_bound(graph, source.sites, accelerator.capacity_bytes, stop) if achieved else 0
    # Not clipped to what is achieved: a bound above it is a defect that must show.
    bounds = (
        ScopedBound(own, certificate.lower_bound, certificate.method),
        ScopedBound("tilings", found, METHOD),
    )
    if certificate.lower_bound < found <= achieved:
        # What holds for every tiling holds for this one.
        assumed = certificate.method.partition("; assumes ")[2].partition(";")[0]
        assumed = assumed.replace("these tiles alone", "any tiling").replace("no tiling", "any tiling")
        certificate = replace(certificate, lower_bound=found, method=f"{METHOD}; assumes {assumed}")
    return replace(certificate, bounds=bounds)
