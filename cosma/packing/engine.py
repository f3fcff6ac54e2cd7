"""The packing engine: quick bounds, fast heuristics, a complete search or CP-SAT, repair of the heuristics' best.

`pack` answers for one capacity; `minimise` (in `cosma.packing.smallest`) looks for the lowest one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, SupportsIndex

import cosma.door as door
from cosma.errors import InputError
from cosma.packing.arrays import flatten
from cosma.packing.bounds import quick_conflict
from cosma.packing.buffers import Buffer, Forbidden, check_buffers, live_peak, tallest
from cosma.packing.conflict import shrink
from cosma.packing.cpsat import solve_cpsat
from cosma.packing.exact import STEPS_PER_UNIT, beyond_search, decide
from cosma.packing.improve import improve
from cosma.packing.result import PackingResult, PackingStatus
from cosma.packing.sections import supports
from cosma.packing.verify import verify
from cosma.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Engine = Literal["auto", "heuristics", "search", "cp-sat"]

ENGINES: tuple[Engine, ...] = ("auto", "heuristics", "search", "cp-sat")

WORK_LIMIT = 3_000_000
"""Default limit in units of work, 5 to 10 microseconds each: about twenty seconds."""

HEURISTIC_ROUNDS = 32
"""Repaired first-fit orders tried before the complete search."""

IMPROVE_FROM = 500
"""Buffers from which stretches are packed again where the search of the whole is undecided."""

IMPROVE_SHARE = 10
"""What is kept of the work limit for packing stretches again: this part of it."""

SEARCH_UP_TO = 2000
"""Buffers from which stretches get all of the work: the search of the whole hardly ever ends."""

UNITS_PER_HEURISTIC = 2
"""Units of work it takes to flatten one buffer for the heuristics, and to look at it in every order."""

SMALL_CONFLICT = 12
"""Conflict sets of at most this many buffers are reduced at once."""

CONFLICT_TESTS = 20
"""Each test while reducing a conflict set may spend what work is left divided by this."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One question to the engines, with everything that does not change between capacities."""

    buffers: Sequence[Buffer]
    alignment: int
    forbidden: Sequence[Forbidden]
    engine: Engine
    seed: int
    deadline: float | None


def pack(
    buffers: Iterable[Buffer],
    capacity: door.Size,
    *,
    alignment: door.Size = 1,
    forbidden: Iterable[Forbidden] = (),
    engine: Engine = "auto",
    work_limit: SupportsIndex = WORK_LIMIT,
    time_limit: float | None = None,
    seed: SupportsIndex = 0,
    explain: bool = True,
) -> PackingResult:
    """Give every buffer an address below `capacity`, or prove that there are none.

    Parameters
    ----------
    buffers
        What to place; ids are unique.
    capacity
        Bytes available, addresses ``[0, capacity)``.
    alignment
        Every address is a multiple of it and of the buffer's own; a fixed one that is not is refused.
    forbidden
        Address ranges no buffer may touch.
    engine
        ``auto`` (heuristics, the complete search, then repair of stretches where there are many buffers; CP-SAT
        where windows of gaps start above a buffer's address), ``heuristics`` (never proves more than the quick
        bounds), ``search`` or ``cp-sat``.
    work_limit
        Units of work before the answer is ``unknown``, for the search and for reducing the conflict set together.
        A unit is a thousand buffers and sections looked at (5 to 10 microseconds), or a hundredth of a millisecond
        of CP-SAT's deterministic time. Zero leaves the heuristics only. What the heuristics do counts, but they are
        always run.
    time_limit
        Seconds; only then does the answer depend on the clock.
    seed
        Start of every pseudo-random choice; same input, limits and seed give the same addresses.
    explain
        Whether to reduce the conflict set of an infeasible packing, until it is irreducible or the work is spent.

    Raises
    ------
    InputError
        For meaningless buffers, capacity, alignment or engine, or shapes the named engine cannot take.
    """
    capacity = door.size(capacity, "capacity", most=door.UNLIMITED)
    work_limit = door.integer(work_limit, "work limit", least=0, most=door.UNLIMITED)
    task = make_task(
        buffers, alignment=alignment, forbidden=forbidden, engine=engine, seed=seed, time_limit=time_limit
    )
    buffers = task.buffers
    early = quick_conflict(buffers, capacity, task.forbidden)
    if early is not None:
        return early
    result = heuristic_packing(task, capacity)
    if result.packed:
        return result
    lowest = [result.offsets[buffer.id] for buffer in buffers]
    result = replace(result, offsets={}, height=None)
    left = work_limit - result.work["units"]
    if engine == "heuristics" or left <= 0 or late(task):
        return result
    if engine == "auto" and beyond_search(buffers):
        return replace(result, reason="the heuristics found nothing that fits, and the search is for fewer buffers")
    repairs = engine == "auto" and len(buffers) >= IMPROVE_FROM and supports(buffers) is None
    share = IMPROVE_SHARE if len(buffers) < SEARCH_UP_TO else 1
    answer = exact_packing(task, capacity, max(1, left - left // share) if repairs else left)
    answer = replace(answer, work=_sum(result.work, answer.work), suspects=result.suspects, placed=result.placed)
    if repairs and answer.status is PackingStatus.UNKNOWN and answer.work["units"] < work_limit:
        improved = improved_packing(task, capacity, lowest, work_limit - answer.work["units"])
        improved = replace(improved, work=_sum(answer.work, improved.work))
        if improved.packed:
            return improved
        return replace(answer, work=improved.work, suspects=improved.suspects, placed=improved.placed)
    if answer.status is PackingStatus.INFEASIBLE and explain:
        return explained(task, answer, work_limit)
    return answer


def late(task: _Task) -> bool:
    """Whether the time limit has passed."""
    return task.deadline is not None and time.monotonic() >= task.deadline


def _sum(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in [*first, *second]}


def make_task(
    buffers: object,
    *,
    alignment: object,
    forbidden: object,
    engine: object,
    seed: object,
    time_limit: object,
) -> _Task:
    """Take what a caller hands in as one question to the engines.

    Raises InputError with the argument and what is accepted.
    """
    taken = door.sequence(buffers, Buffer, "buffers")
    areas = door.sequence(forbidden, Forbidden, "forbidden")
    step = door.size(alignment, "alignment")
    if step < 1:
        raise InputError(f"alignment {step} is not a positive number of bytes")
    chosen = next((known for known in ENGINES if known == engine), None)
    if chosen is None:
        raise InputError(f"packing engine {door.shown(engine)} is unknown; choose one of {', '.join(ENGINES)}")
    deadline = None
    if time_limit is not None:
        deadline = time.monotonic() + door.number(time_limit, "time limit, in seconds,")
    check_buffers(taken, areas, step)
    if chosen == "search" and (why := supports(taken)) is not None:
        raise InputError(f"packing engine 'search' cannot take these buffers: {why}; use engine 'cp-sat' or 'auto'")
    return _Task(taken, step, areas, chosen, door.seed(seed), deadline)


def heuristic_packing(task: _Task, capacity: int) -> PackingResult:
    """Pack with first fit; when nothing fits, the ``unknown`` answer still holds the lowest packing met."""
    from cosma.packing.firstfit import heuristics

    bound = max(live_peak(task.buffers), tallest(task.buffers))
    kept = _keep_hints(task, capacity)
    instance = flatten(kept, task.alignment, task.forbidden)
    offsets, height, tried = heuristics(instance, capacity, HEURISTIC_ROUNDS, task.seed, task.deadline)
    if height > capacity and any(buffer.hint is not None for buffer in task.buffers):
        instance = flatten(task.buffers, task.alignment, task.forbidden)
        offsets, height, again = heuristics(instance, capacity, HEURISTIC_ROUNDS, task.seed, task.deadline)
        tried = _sum(tried, again)
    status = PackingStatus.PACKED if height <= capacity else PackingStatus.UNKNOWN
    named = {buffer.id: int(offset) for buffer, offset in zip(task.buffers, offsets, strict=False)}
    within = {buffer.id for buffer in task.buffers if named[buffer.id] + buffer.size <= capacity}
    units = UNITS_PER_HEURISTIC * len(task.buffers) + tried.pop("pairs") // STEPS_PER_UNIT
    return PackingResult(
        status=status,
        capacity=capacity,
        offsets=named,
        height=height,
        lower_bound=bound,
        engine="first-fit",
        reason="" if status is PackingStatus.PACKED else "the heuristics found nothing that fits",
        work={**tried, "units": units},
        suspects=tuple(buffer.id for buffer in task.buffers if buffer.id not in within),
        placed={name: offset for name, offset in named.items() if name in within},
    )


def _keep_hints(task: _Task, capacity: int) -> list[Buffer]:
    """Fix every hinted buffer at its hint, except those that would break a rule there or clash with another."""
    kept = list(task.buffers)
    if all(buffer.hint is None for buffer in kept):
        return kept
    trial = [
        replace(buffer, offset=buffer.hint) if buffer.offset is None and buffer.hint is not None else buffer
        for buffer in kept
    ]
    wanted = {buffer.id: buffer.offset for buffer in trial if buffer.offset is not None}
    plain = [buffer for buffer in kept if buffer.id in wanted]
    bad: set[str] = set()
    for violation in verify(plain, wanted, capacity, alignment=task.alignment, forbidden=task.forbidden):
        free = [name for name in violation.ids if name not in bad]
        if len(free) == len(violation.ids):
            bad.update(name for name in free[-1:])
    fixed = {buffer.id for buffer in kept if buffer.offset is not None}
    if bad & fixed:
        return kept
    return [old if new.id in bad else new for old, new in zip(kept, trial, strict=True)]


def improved_packing(task: _Task, capacity: int, offsets: Sequence[int], work_limit: int) -> PackingResult:
    """Pack stretches of the lowest packing met again, where buffers stick out of the capacity."""
    bound = max(live_peak(task.buffers), tallest(task.buffers))
    found = improve(
        task.buffers,
        offsets,
        capacity,
        alignment=task.alignment,
        forbidden=task.forbidden,
        work_limit=work_limit,
        deadline=task.deadline,
        seed=task.seed,
    )
    work = {"nodes": found.nodes, "units": found.units}
    if found.stuck:
        return PackingResult(
            PackingStatus.UNKNOWN,
            capacity,
            lower_bound=bound,
            suspects=tuple(task.buffers[k].id for k in found.stuck),
            placed={task.buffers[k].id: offset for k, offset in found.offsets.items()},
            engine="improve",
            work=work,
        )
    return _packed(task, found.offsets, capacity, bound, "improve", work)


def exact_packing(task: _Task, capacity: int, work_limit: int) -> PackingResult:
    """Decide with the complete search, or with CP-SAT when asked for or when shapes need it."""
    bound = max(live_peak(task.buffers), tallest(task.buffers))
    use_cpsat = task.engine == "cp-sat" or (task.engine == "auto" and supports(task.buffers) is not None)
    engine = "cp-sat" if use_cpsat else "search"
    decision = (solve_cpsat if use_cpsat else decide)(
        task.buffers,
        capacity,
        alignment=task.alignment,
        forbidden=task.forbidden,
        work_limit=work_limit,
        deadline=task.deadline,
        seed=task.seed,
    )
    work = decision.work
    if decision.offsets is not None:
        return _packed(task, decision.offsets, capacity, bound, engine, work)
    if decision.infeasible:
        free = [i for i, k in enumerate(decision.culprits) if task.buffers[k].offset is None]
        return PackingResult(
            PackingStatus.INFEASIBLE,
            capacity,
            lower_bound=max(bound, capacity + 1),
            conflict=tuple(task.buffers[decision.culprits[i]].id for i in free),
            distances=tuple(decision.distances[i] for i in free),
            reason=f"no packing of these buffers fits {capacity} bytes",
            engine=engine,
            work=work,
        )
    return PackingResult(
        PackingStatus.UNKNOWN, capacity, lower_bound=bound, engine=engine, work=work,
        reason=f"stopped by {decision.reason}",
    )  # fmt: skip


def _packed(
    task: _Task, offsets: dict[int, int], capacity: int, bound: int, engine: str, work: dict[str, int]
) -> PackingResult:
    """Name the addresses, after the independent check has passed them."""
    named = {
        buffer.id: buffer.offset if buffer.offset is not None else offsets[k]
        for k, buffer in enumerate(task.buffers)
    }
    wrong = verify(task.buffers, named, capacity, alignment=task.alignment, forbidden=task.forbidden)
    if wrong:
        raise AssertionError(f"engine {engine} returned an invalid packing: {wrong[0].message}")
    height = max((named[buffer.id] + buffer.size for buffer in task.buffers if buffer.size), default=0)
    return PackingResult(
        PackingStatus.PACKED, capacity, named, height, lower_bound=bound, engine=engine, work=work
    )


def explained(task: _Task, answer: PackingResult, work_limit: int) -> PackingResult:
    """Reduce the conflict set of an infeasible answer: to few buffers fast, then until none can be left out.

    First the buffers near the step where most branches failed are tried alone, twice as far each time; what does
    not fit is then reduced one by one. The work already spent counts; when none is left the set stays as it is.
    """
    index = {buffer.id: buffer for buffer in task.buffers}
    fixed = [buffer for buffer in task.buffers if buffer.offset is not None]
    away = dict(zip(answer.conflict, answer.distances, strict=True))
    names = sorted(answer.conflict, key=lambda name: (-away[name], _area(index[name]), name))
    spent = answer.work.get("units", 0)

    def infeasible(chosen: list[int]) -> bool | None:
        nonlocal spent
        subset = [index[names[k]] for k in chosen]
        spent += len(subset)
        if quick_conflict([*subset, *fixed], answer.capacity, task.forbidden) is not None:
            return True
        part = replace(task, buffers=[*subset, *fixed])
        packing = heuristic_packing(part, answer.capacity)
        spent += packing.work["units"]
        if packing.packed:
            return False
        share = max(1, (work_limit - spent) // CONFLICT_TESTS)
        packing = exact_packing(part, answer.capacity, share)
        spent += packing.work["units"]
        return None if packing.status is PackingStatus.UNKNOWN else packing.status is PackingStatus.INFEASIBLE

    def exhausted() -> bool:
        return spent >= work_limit or (task.deadline is not None and time.monotonic() >= task.deadline)

    members = list(range(len(names)))
    tests = 0
    reach = 0
    while len(members) > SMALL_CONFLICT and not exhausted():
        near = [k for k in members if away[names[k]] <= reach]
        if len(near) == len(members):
            break
        tests += 1
        if infeasible(near):
            members = near
            break
        reach = 2 * reach + 1
    found = shrink(members, infeasible, exhausted=exhausted)
    conflict = sorted(names[k] for k in found.members)
    return replace(
        answer,
        conflict=tuple(conflict),
        distances=(),
        irreducible=found.irreducible,
        reason=f"{counted(len(conflict), 'buffer')} cannot be placed{' together' * (len(conflict) > 1)} in "
        f"{answer.capacity} bytes{' beside the fixed ones' * bool(fixed)}",
        work={**answer.work, "units": spent, "conflict tests": tests + found.tests},
    )


def _area(buffer: Buffer) -> int:
    return buffer.size * (buffer.upper - buffer.lower)
