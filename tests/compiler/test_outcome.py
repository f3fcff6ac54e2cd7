"""The account of a compile: how it ended, bounds and seconds; progress, cancellation, threads and event loops."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import cosma
from cosma import Cancellation, CancelledError, InputError, Progress, compile_outcome
from cosma.compiler.outcome import CompileOptions
from cosma.plan.file import plan_to_json
from tests.planning import diamond
from tests.random_graphs import Shape, random_instance

TIGHT = cosma.Accelerator(scratchpad=256, alignment=16, operands="resident")


def long_instance() -> tuple[cosma.Graph, cosma.Accelerator]:
    """An instance that no engine settles within a second."""
    graph, drawn = random_instance(200, Shape(operators=160, inputs=4, weights=6, most_units=40))
    return graph, drawn


def test_options_are_those_of_compile() -> None:
    ours = set(CompileOptions.__annotations__)
    theirs = {name for name, p in inspect.signature(cosma.compile).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert ours == theirs


def test_an_outcome_says_how_it_ended_with_bounds_and_seconds() -> None:
    result = compile_outcome(diamond(), cosma.Accelerator(scratchpad=384), effort=0.2)
    assert result.status == "optimal"
    assert result.stopped_by == "proof"
    assert result.reproducible
    assert [(b.scope, b.lower_bound) for b in result.bounds] == [("graph", 32)]
    assert {"reading and rewriting", "existing methods"} <= set(result.seconds_by_phase)
    assert all(seconds >= 0 for seconds in result.seconds_by_phase.values())
    assert sum(result.seconds_by_phase.values()) == pytest.approx(result.seconds)
    alone = cosma.compile(diamond(), cosma.Accelerator(scratchpad=384), effort=0.2)
    assert plan_to_json(result.plan) == plan_to_json(alone)


def test_progress_is_told_in_the_thread_that_compiles() -> None:
    seen: list[Progress] = []
    threads: set[int] = set()

    def note(progress: Progress) -> None:
        seen.append(progress)
        threads.add(threading.get_ident())

    graph, accelerator = long_instance()
    result = compile_outcome(graph, accelerator, effort=0.3, progress=note)
    assert threads == {threading.get_ident()}
    costs = [progress.noncompulsory_bytes for progress in seen]
    assert min(costs) == result.plan.traffic.noncompulsory
    assert all(progress.bound_bytes <= min(costs) for progress in seen)
    assert {progress.phase for progress in seen} <= set(result.seconds_by_phase)


def test_what_progress_raises_ends_the_compile() -> None:
    class StopError(Exception):
        pass

    def refuse(progress: Progress) -> None:
        raise StopError(progress.phase)

    with pytest.raises(StopError):
        compile_outcome(diamond(), TIGHT, effort=0.2, progress=refuse)


def test_a_cancelled_compile_ends_with_the_best_plan_so_far() -> None:
    graph, accelerator = long_instance()
    cancel = Cancellation()

    def first_plan(progress: Progress) -> None:
        cancel.cancel()

    began = time.monotonic()
    result = compile_outcome(graph, accelerator, effort=1000.0, progress=first_plan, cancel=cancel)
    assert time.monotonic() - began < 60
    assert result.stopped_by == "interrupt"
    assert result.plan.stopped_by == "interrupt"
    assert cosma.replay(result.plan).valid


def test_a_compile_that_is_cancelled_before_it_begins_gives_a_plan_or_says_so() -> None:
    cancel = Cancellation()
    cancel.cancel()
    try:
        result = compile_outcome(*long_instance(), effort=10.0, cancel=cancel)
    except CancelledError:
        return
    assert result.stopped_by == "interrupt"
    assert cosma.replay(result.plan).valid


def test_a_cancellation_is_one() -> None:
    with pytest.raises(InputError, match="cancel must be a Cancellation"):
        compile_outcome(diamond(), TIGHT, cancel=threading.Event())  # type: ignore[arg-type]


def test_compiles_in_threads_give_the_plans_they_give_alone() -> None:
    shape = Shape(operators=24, inputs=3, weights=3, most_units=16)
    instances = [random_instance(seed, shape) for seed in range(130, 138)]

    def planned(instance: tuple[cosma.Graph, cosma.Accelerator]) -> str:
        try:
            return plan_to_json(cosma.compile(*instance, effort=0.2))
        except cosma.InfeasibleError as error:
            return str(error)

    alone = [planned(instance) for instance in instances]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(planned, instances)) == alone


def test_a_compile_within_an_event_loop_can_be_cancelled() -> None:
    graph, accelerator = long_instance()

    async def main() -> cosma.CompileResult:
        cancel = Cancellation()
        ticks = 0
        work = asyncio.create_task(
            asyncio.to_thread(compile_outcome, graph, accelerator, effort=1000.0, cancel=cancel)
        )
        while not work.done():
            await asyncio.sleep(0.05)  # the loop goes on while the thread compiles
            ticks += 1
            if ticks == 10:
                cancel.cancel()
        assert ticks >= 10
        return await work

    result = asyncio.run(main())
    assert result.stopped_by == "interrupt"
    assert cosma.replay(result.plan).valid
