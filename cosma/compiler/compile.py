"""From a graph and an accelerator to a validated plan."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import cosma.door as door
from cosma.accelerator.constraint_files import read_constraints
from cosma.accelerator.constraints import Constraints
from cosma.accelerator.files import as_accelerator
from cosma.clock import Clock
from cosma.compiler.conflicts import Network, explained
from cosma.compiler.existing import existing_traffic
from cosma.compiler.groups import run_groups
from cosma.compiler.joins import joined_choices
from cosma.compiler.run import CompileRun, Ledger, Limits, ProgressSink
from cosma.compiler.starts import Start, fit_starts, load_starts
from cosma.compiler.strategies import WITH_SOLVER, WITH_STARTS, find_strategy
from cosma.compiler.tilings import bounded, tiling_search
from cosma.compiler.trade import traded_off
from cosma.errors import CosmaWarning, InfeasibleError, InputError
from cosma.parameters import changed, read_parameters
from cosma.parameters.compiler import CompileParameters
from cosma.plan import Plan, ScopedBound, Traffic
from cosma.problem import build_problem
from cosma.rewrite import count_as
from cosma.rewrite.constraints import expand
from cosma.rewrite.state import with_states
from cosma.rewrite.tiling import Tiling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cosma.accelerator import Accelerator
    from cosma.accelerator.files import Preset
    from cosma.compiler.fusion import Choice
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.plan import Certificate
    from cosma.problem import Instance, Problem
    from cosma.solvers import Profile


@dataclass(frozen=True, slots=True)
class CompileResult:
    """A plan and what is known about how it came to be.

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
        The same time by what was being done; where engines work side by side, by the one that was begun last.
    """

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


def compile(
    model: Graph | LoadedModel | Path | str,
    accelerator: Accelerator | Preset | Path | str,
    *,
    strategy: str = "auto",
    effort: float = 10.0,
    time_limit_s: float | None = None,
    gap: float = 0.0,
    seed: SupportsIndex = 0,
    dtype: str | None = None,
    dims: Mapping[str, SupportsIndex] | None = None,
    bounds: Mapping[str, SupportsIndex] | None = None,
    solver: str | None = None,
    starts: Sequence[Plan | Path | str] = (),
    tiling: Tiling | Path | str | None = None,
    trade_off: float = 0.0,
    states: Mapping[str, str] | None = None,
    on_interrupt: Literal["raise", "best"] = "raise",
    parameters: CompileParameters | Path | str | None = None,
    constraints: Constraints | Path | str | None = None,
    off_chip: bool = False,
) -> Plan:
    """Plan a network on an accelerator; the plan has been replayed and its traffic counted.

    Parameters
    ----------
    model
        A graph, a loaded model, or the path of an ONNX file or of a graph in JSON.
    accelerator
        What to plan for: an accelerator, a preset, a preset's name or the path of a TOML file.
    strategy
        A name from ``cosma presets``, or ``ORDER+REPLACEMENT+ADDRESSES``.
    effort
        Work to spend, in nominal seconds; see :class:`Limits`.
    time_limit_s
        A clock on top of the effort, in seconds.
    gap
        Proven gap at which to stop early.
    seed
        Same model, options and seed give the same plan, byte for byte, unless a clock ended the run.
    dtype
        Count every floating-point tensor as if its elements were of this type.
    dims
        Values for the symbolic dimensions of an ONNX model.
    bounds
        The most that results of an ONNX model can hold whose size is known only when it runs, by tensor.
    solver
        Profile of the back end for strategies that solve programs: a name from ``cosma presets`` or a TOML file.
    starts
        Plans of the same network, or paths of their files, for the strategies of :data:`WITH_STARTS`. A plan that is
        valid on ``accelerator`` (made for a smaller scratchpad, say) is offered as it is, so the result is never
        worse, and search goes on from it. Of any other, the order alone is used; :func:`run_compile` says why.
    tiling
        How operators are cut into tiles: ``none``, ``auto``, a rule (``rows=8``, ``stripes=4``, ``channels=2``), the
        path of a TOML file, or a :class:`cosma.Tiling`.
    trade_off
        Share of the traffic that a plan may move more than the best one found if it takes fewer transfers, such as
        0.05; with a tiling, coarser tiles are planned too.
    states
        Graph outputs that are the next values of graph inputs, each with its input: a cache that grows. The two have
        one place off-chip, so with zero-copy only what is new of such an output is stored.
    on_interrupt
        What a :class:`KeyboardInterrupt` does: ``raise`` hands it to the caller, ``best`` ends the run with the best
        plan so far, which then says so (``Plan.stopped_by``). Before there is a plan, it is raised.
    parameters
        Tuning parameters of the engines, or the path of a TOML file with some of them; the defaults where None.
    constraints
        What the plan must keep to beside the rules of the accelerator, or the path of a TOML file. By default what the
        accelerator holds already, as that of another plan may.
    off_chip
        Whether the plan also says where each tensor lies off-chip.

    Raises
    ------
    InputError
        If the model, an option or a name is wrong, or a start is a plan of another network.
    ConstraintError
        If a constraint is malformed, or names what the model does not have.
    InfeasibleError
        If no plan exists; the message says why and what would help.

    Warns
    -----
    CosmaWarning
        If no tensor fits into what the accelerator leaves, so that everything is streamed.
    """
    return run_compile(
        model,
        accelerator,
        strategy=strategy,
        limits=Limits(effort=effort, time_limit_s=time_limit_s, gap=gap, trade_off=trade_off),
        seed=seed,
        dtype=dtype,
        dims=dims,
        bounds=bounds,
        solver=solver,
        starts=starts,
        tiling=tiling,
        states=states,
        on_interrupt=on_interrupt,
        parameters=parameters,
        constraints=constraints,
        off_chip=off_chip,
    ).plan


def run_compile(
    model: Graph | LoadedModel | Path | str,
    accelerator: Accelerator | Preset | Path | str,
    *,
    strategy: str = "auto",
    limits: Limits | None = None,
    seed: SupportsIndex = 0,
    dtype: str | None = None,
    dims: Mapping[str, SupportsIndex] | None = None,
    bounds: Mapping[str, SupportsIndex] | None = None,
    solver: str | None = None,
    starts: Sequence[Plan | Path | str] = (),
    tiling: Tiling | Path | str | None = None,
    states: Mapping[str, str] | None = None,
    sink: ProgressSink | None = None,
    interrupted: Callable[[], bool] = bool,
    on_interrupt: Literal["raise", "best"] = "raise",
    parameters: CompileParameters | Path | str | None = None,
    constraints: Constraints | Path | str | None = None,
    off_chip: bool = False,
) -> CompileResult:
    """Like :func:`compile`, with progress, interruption and an account of how the run ended.

    ``interrupted`` is polled, and ends the run with the best plan so far once it returns true.
    """
    if on_interrupt not in ("raise", "best"):
        raise InputError(f"on_interrupt must be 'raise' or 'best', not {door.shown(on_interrupt)}")
    began_s = time.monotonic()
    limits = Limits() if limits is None else door.instance(limits, Limits, "limits")
    seed = check_seed(seed)
    accelerator = as_accelerator(accelerator)
    chosen = find_strategy(door.text(strategy, "strategy"))
    parameters = _read_parameters(parameters)
    for hook, what in ((sink, "sink"), (interrupted, "interrupted")):
        if hook is not None and not callable(hook):
            raise InputError(f"{what} must be callable, not {door.shown(hook)}")
    source = read_model(model, dims, bounds)
    graph = count_as(source.graph, dtype).graph
    forced = accelerator.constraints if constraints is None else read_constraints(constraints)
    accelerator = accelerator.replace(constraints=expand(forced, graph, accelerator))
    stated = with_states(graph, states or {})
    _warn_of_odd_fit(build_problem(graph, _letting_in(accelerator)))
    starts = tuple(door.items(starts, "starts (a sequence of plans or paths, even of one)"))
    if starts and strategy not in WITH_STARTS:
        raise InputError(f"starts are for the strategies {', '.join(WITH_STARTS)}; {strategy} takes none")
    loaded = load_starts(starts)
    counts_effort = strategy in WITH_STARTS and strategy != "existing"
    compares = counts_effort or strategy == "existing"
    look = tiling_search(limits, seed, sink, interrupted)
    starting_graphs = [start.plan.graph for start in loaded]
    network = Network(source, graph, tiling, starting_graphs, counts_effort, limits.trade_off > 0, parameters)
    joined = joined_choices(source, stated, accelerator) if accelerator.zero_copy and counts_effort else ()
    try:
        copying = network.choices(accelerator, look)
    except InfeasibleError as error:
        if not joined:
            raise explained(error, accelerator, network) from None
        copying = ()
    choices = (*joined, *copying)
    prepared_s = time.monotonic() - began_s
    rest = look.rest(limits)
    # Without copies as much work again: what is tried beside the network as it is costs that nothing.
    ledger = Ledger(limits.effort + (rest.effort if joined and copying else 0.0), closed=look.spent)
    problems = [build_problem(choice.graph, accelerator) for choice in choices]
    given = fit_starts(problems, loaded, dtype=dtype)
    profile = None if solver is None else _read_profile(solver, strategy)
    runs = [
        CompileRun(
            problem=problem,
            relaxation=_relaxation(choices[i], accelerator),
            limits=rest,
            seed=seed,
            sink=sink,
            clock=Clock(asked_to_stop=interrupted),
            profile=profile,
            starts=(*(start for k, start in given if k == i), *choices[i].starts()),
            parameters=parameters,
            ledger=ledger,
        )
        for i, problem in enumerate(problems)
    ]
    keep = on_interrupt == "best"
    groups = [group for group in (runs[: len(joined)], runs[len(joined) :]) if group]
    try:
        state = run_groups(groups, chosen.run, rest, counts_effort=counts_effort, keep=keep)
    except InfeasibleError as error:
        raise explained(error, accelerator, network) from None
    state.clock.timed_out |= look.clock.timed_out
    state, traded = traded_off(runs, state, limits.trade_off)
    settings = _settings(state, strategy, seed, limits) | traded
    if given:
        settings["starts"] = [start.sha256 for _, start in given]
    if len(choices) > 1:
        settings["fused"] = choices[runs.index(state)].name
    if changed(parameters):
        settings["parameters"] = changed(parameters)
    if tiling is not None and tiling != "none":
        settings["tiling"] = "given" if isinstance(tiling, Tiling) else Path(str(tiling)).name
    certificate = _scoped(state.certificate(), state.problem.graph, choices, accelerator)
    certificate = bounded(certificate, choices[runs.index(state)], source, accelerator, state.stop)
    plan = _plan(state, source, accelerator, certificate, dtype, settings)
    if door.flag(off_chip, "off_chip"):
        from cosma.export import lay_out

        plan = replace(plan, off_chip=lay_out(plan))
    return CompileResult(
        plan=plan,
        found_by=state.best_by,
        stopped_by=_stopped_by(state),
        reproducible=plan.reproducible,
        seconds=time.monotonic() - began_s,
        starts=tuple(start for _, start in given),
        assumptions=source.assumptions,
        seconds_by_phase=_seconds_by_phase(runs, prepared_s),
        existing=existing_traffic(runs, source, graph, accelerator) if compares else {},
        left_out=state.left_out,
    )


def _plan(
    state: CompileRun,
    source: LoadedModel,
    accelerator: Accelerator,
    certificate: Certificate,
    dtype: str | None,
    settings: dict[str, Any],
) -> Plan:
    assert state.best is not None
    assert state.best_report is not None
    return Plan(
        graph=state.problem.graph,
        accelerator=state.problem.accelerator,
        instructions=state.best.instructions,
        traffic=state.best_report.traffic,
        peak_bytes=state.best_report.peak_bytes,
        certificate=certificate,
        model_name=source.name,
        model_sha256=source.sha256,
        dtype=dtype,
        dims=source.dims,
        solver=settings,
        stopped_by="interrupt" if state.clock.interrupted else "time" if state.clock.timed_out else None,
    )


def _relaxation(choice: Choice, accelerator: Accelerator) -> Problem | None:
    """The instance in which every operator may run in any of its modes, where one was chosen for it."""
    return None if choice.relaxed is None else build_problem(choice.relaxed, accelerator)


def _settings(state: CompileRun, strategy: str, seed: int, limits: Limits) -> dict[str, Any]:
    """How a plan came to be, as its file says it."""
    settings: dict[str, Any] = {"strategy": strategy, "seed": seed, "found_by": state.best_by}
    if strategy not in ("e1", "e2", "e3", "existing"):
        settings |= {"effort": limits.effort, "gap": limits.gap}
    if state.profile is not None:
        settings["profile"] = state.profile.name
    return settings


def _read_profile(solver: str, strategy: str) -> Profile:
    if strategy not in WITH_SOLVER:
        raise InputError(f"a solver is for the strategies {', '.join(WITH_SOLVER)}; {strategy} takes none")
    from cosma.solvers import load_profile

    return load_profile(door.text(solver, "solver"))


def _read_parameters(given: CompileParameters | Path | str | None) -> CompileParameters:
    if given is None:
        return CompileParameters()
    if isinstance(given, str | Path):
        return read_parameters(given, CompileParameters)
    return door.instance(given, CompileParameters, "parameters")


def _scoped(
    certificate: Certificate, graph: Graph, choices: Sequence[Choice], accelerator: Accelerator
) -> Certificate:
    """Say for which of the choices a bound holds, where there were several."""
    method = certificate.method
    if any(operator.tile is not None for operator in graph.operators):
        # A plan that moves nothing twice is the best of all tilings; any other bound is for the tiles chosen.
        scope = "any tiling" if certificate.noncompulsory == 0 else "these tiles alone"
        return replace(certificate, method=method.replace("no tiling", scope))
    if accelerator.fusion != "none" and len(choices) > 1:
        method += "; for the operators fused here"
    if any(choice.graph.joins for choice in choices):
        method += f"; for {'copies left out as here' if graph.joins else 'operators that copy'}"
    elif any(choice.graph.roots for choice in choices):
        method += f"; for {'tensors cut as here' if graph.roots else 'whole tensors'}"
    return replace(certificate, method=method)


def check_seed(seed: object) -> int:
    """Take a seed; raises :class:`InputError` where it is no whole number within [0, 2^31)."""
    return door.integer(seed, "seed", least=0, most=2**31 - 1)


def _seconds_by_phase(states: Sequence[CompileRun], prepared_s: float) -> dict[str, float]:
    found = {"reading and rewriting": prepared_s}
    for state in states:
        for phase, seconds in state.seconds.items():
            found[phase] = found.get(phase, 0.0) + seconds
    return found


def _letting_in(accelerator: Accelerator) -> Accelerator:
    """The accelerator without what keeps tensors from the scratchpad by name."""
    entries = [entry for entry in accelerator.constraints.entries if entry.field != "never_on_chip"]
    return accelerator.replace(constraints=Constraints.of(entries))


def _warn_of_odd_fit(problem: Instance) -> None:
    """Warn where nothing can lie in the scratchpad: what was asked for is hardly what was meant."""
    accelerator = problem.accelerator
    spaces = [int(space) for space in problem.space_bytes if space]
    if not problem.streamable or not spaces or min(spaces) <= problem.capacity_bytes:
        return
    if accelerator.alignment > accelerator.scratchpad:
        why = f"the alignment of {accelerator.alignment} bytes exceeds the scratchpad of {accelerator.scratchpad}"
    elif problem.capacity_bytes == 0:
        why = (
            f"{accelerator.reserved} of {accelerator.scratchpad} bytes are reserved, and the rest holds no multiple of "
            f"the alignment of {accelerator.alignment}"
        )
    else:
        why = f"the smallest tensor takes {min(spaces)} bytes, {problem.capacity_bytes} are available"
    warnings.warn(f"everything is streamed: {why}", CosmaWarning, stacklevel=4)


def read_model(
    model: Graph | LoadedModel | Path | str,
    dims: Mapping[str, SupportsIndex] | None = None,
    bounds: Mapping[str, SupportsIndex] | None = None,
) -> LoadedModel:
    """Resolve what a user gave as a model; a graph that is no ONNX file has no hash and no dimensions."""
    from cosma.frontend import LoadedModel, load_onnx
    from cosma.graph import Graph

    if isinstance(model, str | os.PathLike):
        if not str(door.path(model, "model")).endswith(".json"):
            return load_onnx(model, dims=dims, bounds=bounds)
        from cosma.graph.json_format import load_graph

        model = load_graph(model)
    if isinstance(model, Graph):
        return LoadedModel(model, model.name, None)
    return door.instance(model, LoadedModel, "the model (or a Graph, or a path)")


def _stopped_by(state: CompileRun) -> str:
    if state.certificate().status == "optimal":
        return "proof"
    if state.clock.interrupted:
        return "interrupt"
    if state.clock.timed_out:
        return "time"
    return "gap" if state.proven() else "work"
