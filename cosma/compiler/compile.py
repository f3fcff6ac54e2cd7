"""From a graph and an accelerator to a validated plan."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex

import cosma.door as door
from cosma.clock import Clock
from cosma.compiler.choices import choices_of
from cosma.compiler.conflicts import explained
from cosma.compiler.existing import existing_traffic
from cosma.compiler.groups import run_groups
from cosma.compiler.joins import with_zero_copy, without_copies
from cosma.compiler.limits import Limits, ProgressSink, tiling_search
from cosma.compiler.request import Request, RequestOptions, read_request, warn_of_odd_fit
from cosma.compiler.result import (
    CompileResult,
    bounded,
    judged,
    make_plan,
    scoped,
    seconds_by_phase,
    settings_of,
    stopped_by,
)
from cosma.compiler.run import CompileRun, Ledger
from cosma.compiler.starts import fit_starts
from cosma.compiler.trade import traded_off
from cosma.errors import InfeasibleError, InputError, TimeLimitError
from cosma.problem import build_problem
from cosma.problem.reductions import single_takeovers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Unpack

    from cosma.accelerator import Accelerator
    from cosma.accelerator.constraints import Constraints
    from cosma.accelerator.files import Preset
    from cosma.compiler.fusion import Choice
    from cosma.compiler.limits import TilingWork
    from cosma.compiler.starts import Start
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.parameters.compiler import CompileParameters
    from cosma.plan import Plan
    from cosma.problem import Problem
    from cosma.rewrite.tiling import Tiling


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
    TimeLimitError
        If operators are larger than the scratchpad, and the time limit ended the search before it had tiles that fit.
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
        limits=Limits(effort=effort, time_limit_s=time_limit_s, gap=gap, trade_off=trade_off),
        strategy=strategy, seed=seed, dtype=dtype, dims=dims, bounds=bounds, solver=solver, starts=starts,
        tiling=tiling, states=states, parameters=parameters, constraints=constraints, off_chip=off_chip,
        on_interrupt=on_interrupt,
    ).plan  # fmt: skip


def run_compile(
    model: Graph | LoadedModel | Path | str,
    accelerator: Accelerator | Preset | Path | str,
    *,
    limits: Limits | None = None,
    off_chip: bool = False,
    sink: ProgressSink | None = None,
    interrupted: Callable[[], bool] = bool,
    on_interrupt: Literal["raise", "best"] = "raise",
    began_s: float | None = None,
    compare: bool = True,
    **options: Unpack[RequestOptions],
) -> CompileResult:
    """Like :func:`compile`, with progress, interruption and an account of how the run ended.

    ``interrupted`` is polled, and ends the run with the best plan so far once it returns true. ``began_s`` is when the
    clock of the time limit began, where the model was read before. ``compare`` is whether the result states the
    traffic of existing methods, where the strategy has it.
    """
    began_s = time.monotonic() if began_s is None else began_s
    unknown = sorted(options.keys() - RequestOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(RequestOptions.__annotations__)
        raise InputError(f"run_compile: unknown option {unknown[0]!r}; known are {known}")
    limits = Limits() if limits is None else door.instance(limits, Limits, "limits")
    off_chip = door.flag(off_chip, "off_chip")
    _check_hooks(sink, interrupted, on_interrupt)
    request = read_request(model, accelerator, limits, **options)
    warn_of_odd_fit(request)
    look = tiling_search(limits, request.seed, sink, interrupted, began_s)
    read_s = time.monotonic() - began_s
    joined, copying = _choices(request, look)
    choices = (*joined, *copying)
    chosen_s = time.monotonic() - began_s - read_s
    before_s = {"reading and rewriting": read_s, "tilings" if request.tiling == "auto" else "rewriting": chosen_s}
    rest = look.rest(limits)
    # Without copies as much work again: those choices cost the network as it is no effort.
    ledger = Ledger(limits.effort + (rest.effort if joined and copying else 0.0), closed=look.spent)
    runs, given = _runs(choices, request, rest, ledger, sink, interrupted)
    # Making the instances took time as well, and judging the plan will.
    rest = look.rest(limits, max(run.problem.operator_count for run in runs))
    groups = [group for group in (runs[: len(joined)], runs[len(joined) :]) if group]
    keep = on_interrupt == "best"
    try:
        state = run_groups(groups, request.strategy.run, rest, counts_effort=request.counts_effort, keep=keep)
    except InfeasibleError as error:
        raise explained(error, request) from None
    state.clock.timed_out |= look.timed_out
    state, traded = traded_off(runs, state, limits.trade_off)
    choice = choices[runs.index(state)]
    certificate = scoped(state.certificate(), state.problem.graph, choices, request.accelerator)
    if choice.untiled is not None or request.tiling == "auto":
        certificate = bounded(certificate, choice, request.source, request.graph, request.accelerator, state.stop)
    fused = choice.name if len(choices) > 1 else None
    plan = make_plan(state, request, certificate, settings_of(state, request, given, fused) | traded)
    if off_chip:
        from cosma.export import lay_out

        plan = replace(plan, off_chip=lay_out(plan))
    plan = judged(plan, request)
    compare = compare and request.compares
    compared = existing_traffic(runs, request.source, request.graph, request.accelerator) if compare else {}
    seconds = time.monotonic() - began_s
    return CompileResult(
        plan=plan,
        found_by=state.best_by,
        stopped_by=stopped_by(state),
        reproducible=plan.reproducible,
        seconds=seconds,
        starts=given,
        assumptions=request.source.assumptions,
        seconds_by_phase=seconds_by_phase(runs, before_s, seconds),
        existing=compared,
        left_out=state.left_out,
    )


def _check_hooks(sink: object, interrupted: object, on_interrupt: object) -> None:
    if on_interrupt not in ("raise", "best"):
        raise InputError(f"on_interrupt must be 'raise' or 'best', not {door.shown(on_interrupt)}")
    for hook, what in ((sink, "sink"), (interrupted, "interrupted")):
        if hook is not None and not callable(hook):
            raise InputError(f"{what} must be callable, not {door.shown(hook)}")


def _choices(request: Request, look: TilingWork) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """Graphs to plan: first those without operators that need not copy, then those where all copy."""
    joined = without_copies(request)
    try:
        return joined.choices, choices_of(request, request.accelerator, look)
    except TimeLimitError:
        if not joined.choices:
            raise
        return joined.choices, ()
    except InfeasibleError as error:
        if not joined.choices:
            raise with_zero_copy(joined.explained(explained(error, request), request), request) from None
        return joined.choices, ()


def _runs(
    choices: Sequence[Choice], request: Request, limits: Limits, ledger: Ledger, sink: ProgressSink | None,
    interrupted: Callable[[], bool],
) -> tuple[list[CompileRun], tuple[Start, ...]]:  # fmt: skip
    """A run for each graph to plan, with the plans it starts from; and those plans that the user gave."""
    problems = [choice.instance(request.accelerator) for choice in choices]
    given = fit_starts(problems, request.starts, dtype=request.dtype)
    runs = [
        CompileRun(
            problem=problem,
            relaxation=_relaxation(choices[i], problems[i], request.accelerator),
            in_any_mode=choices[i].relaxed is not None,
            limits=limits,
            seed=request.seed,
            sink=sink,
            clock=Clock(asked_to_stop=interrupted),
            profile=request.profile,
            starts=(*(start for k, start in given if k == i), *choices[i].starts()),
            parameters=request.parameters,
            ledger=ledger,
        )
        for i, problem in enumerate(problems)
    ]
    return runs, tuple(start for _, start in given)


def _relaxation(choice: Choice, problem: Problem, accelerator: Accelerator) -> Problem | None:
    """The instance to bound: any mode of every operator where one was chosen, and one takeover for each."""
    any_mode = None if choice.relaxed is None else build_problem(choice.relaxed, accelerator)
    single = single_takeovers(problem if any_mode is None else any_mode)
    return any_mode if single is None else single.problem
