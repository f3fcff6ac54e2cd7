from __future__ import annotations

import numpy as np
import pytest

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.lowering import realise, slots_of
from cosma.lowering.emit import emit
from cosma.lowering.repair import Repair
from cosma.packing import pack
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import Problem, build_problem, decisions_from_gaps, noncompulsory_bytes, occupancy_bytes, touches_of
from cosma.validator import ReplayReport, replay_instructions
from tests.random_graphs import Shape, random_order, random_problem


def crowd(seed: int, *, steps: int = 40, granules: int = 40, operands: str = "resident") -> Problem:
    """A slot of operators that share tensors of many sizes, which fill the scratchpad at nearly every step."""
    rng = np.random.default_rng(seed)
    links = ["x", *(f"z{i}" for i in range(steps - 1)), "y"]
    read: list[list[str]] = [[] for _ in range(steps)]
    born: list[list[str]] = [[] for _ in range(steps)]
    made = [Tensor(name, 0) for name in links[1:-1]]
    made += [Tensor("x", 0, TensorKind.INPUT), Tensor("y", 0, TensorKind.OUTPUT)]
    free = np.full(steps, granules)
    for first in range(steps - 1):
        while free[first] > 0:
            last = int(rng.integers(first + 1, min(steps, first + 12)))
            room = int(free[first : last + 1].min())
            if room == 0:
                break
            size = int(rng.integers(1, min(room, 13) + 1))
            free[first : last + 1] -= size
            name = f"t{len(made)}"
            made.append(Tensor(name, 64 * size))
            born[first].append(name)
            for step in sorted({last, int(rng.integers(first + 1, last + 1))}):
                read[step].append(name)
    operators = [Operator(f"o{s}", "Op", (links[s], *read[s]), (links[s + 1], *born[s])) for s in range(steps)]
    return build_problem(Graph(made, operators), Accelerator(scratchpad=64 * granules, operands=operands))


def replayed(problem: Problem, repair: Repair) -> ReplayReport:
    """Replay what a repair came to."""
    addresses = [0] * len(repair.decisions.residencies)
    for number, slot in enumerate(repair.slots.members):
        for i in slot:
            addresses[i] = repair.offsets[str(number)]
    return replay_instructions(problem.graph, problem.accelerator, emit(problem, repair.decisions, addresses))


@pytest.mark.parametrize("operands", ["resident", "streamable"])
@pytest.mark.parametrize("work_limit", [0, 2_000, 50_000])
def test_crowded_scratchpads_get_addresses(operands: str, work_limit: int) -> None:
    repaired = 0
    for seed in range(8):
        problem = crowd(seed, operands=operands)
        decisions = decisions_from_gaps(problem, range(problem.operator_count), lambda gap: True)
        realised = realise(problem, decisions, work_limit=work_limit)
        report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
        assert report.valid, (seed, report.violations[0])
        assert report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)
        assert (report.traffic.noncompulsory > 0) == (realised.repairs > 0)
        repaired += realised.repairs > 0
        assert realise(problem, decisions, work_limit=work_limit) == realised
    assert repaired >= 3, "the instances are meant to be too tight for some packings"


def test_little_is_given_up() -> None:
    """Although the scratchpad is full to the last byte at nearly every step."""
    lost = kept = 0
    for seed in range(8):
        problem = crowd(seed, operands="resident")
        decisions = decisions_from_gaps(problem, range(problem.operator_count), lambda gap: True)
        lost += noncompulsory_bytes(problem, realise(problem, decisions, work_limit=50_000).decisions)
        kept += 2 * int(problem.size_bytes.sum())
    assert 0 < lost < 0.15 * kept


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_chains_without_addresses_find_some(share: float) -> None:
    """In every mode, takeovers and streaming included, from any part of a packing."""
    repaired = 0
    for seed in range(60):
        problem = random_problem(seed, Shape(operators=20 + seed, most_units=9))
        rng = np.random.default_rng(seed)
        order = random_order(problem, seed)
        touches = touches_of(problem, order)
        keep = np.ones(len(touches.step), dtype=np.bool_)
        decisions = decisions_from_gaps(problem, order, keep, touches=touches)
        while int(occupancy_bytes(problem, decisions).max(initial=0)) > problem.capacity_bytes and keep.any():
            keep[rng.choice(np.flatnonzero(keep))] = False
            decisions = decisions_from_gaps(problem, order, keep, touches=touches)
        if int(occupancy_bytes(problem, decisions).max(initial=0)) > problem.capacity_bytes:
            continue
        slots = slots_of(problem, decisions)
        packed = pack(slots.buffers, problem.capacity_bytes, alignment=problem.accelerator.alignment)
        assert packed.packed
        placed = {name: offset for name, offset in packed.offsets.items() if rng.random() < share}
        repair = Repair(problem, decisions, slots, placed, 2_000, LoweringParameters())
        repair.run()
        report = replayed(problem, repair)
        assert report.valid, (seed, report.violations[0])
        assert report.traffic.noncompulsory == noncompulsory_bytes(problem, repair.decisions)
        repaired += 1
    assert repaired > 40


@pytest.mark.parametrize("work_limit", [0, 20_000])
def test_more_than_can_be_moved_about_at_one_step(work_limit: int) -> None:
    """A full step that loads a hundred tensors, all but one placed with gaps between them that none can use."""
    sizes = [64 * (2 + i % 2) for i in range(100)]
    tensors = [Tensor("x", 0, TensorKind.INPUT), Tensor("y", 0, TensorKind.OUTPUT)]
    tensors += [Tensor(f"t{i}", size) for i, size in enumerate(sizes)]
    operators = [Operator(f"o{i}", "Op", ("x",), (f"t{i}",)) for i in range(100)]
    operators.append(Operator("all", "Op", tuple(f"t{i}" for i in range(100)), ("y",)))
    problem = build_problem(Graph(tensors, operators), Accelerator(scratchpad=sum(sizes), operands="resident"))
    decisions = decisions_from_gaps(problem, range(problem.operator_count), lambda gap: False)
    slots = slots_of(problem, decisions)
    together = [k for k, buffer in enumerate(slots.buffers) if buffer.lower == 100 and buffer.size]
    assert len(together) == 100
    placed = {buffer.id: 0 for buffer in slots.buffers}
    address = 64
    for k in together:
        placed[str(k)] = address
        address += slots.buffers[k].size + (64 if address < 1_000 else 0)
    stuck = [k for k in together if placed[str(k)] + slots.buffers[k].size > problem.capacity_bytes]
    assert stuck
    for k in stuck:
        del placed[str(k)]
    repair = Repair(problem, decisions, slots, placed, work_limit, LoweringParameters())
    repair.run()
    report = replayed(problem, repair)
    assert report.valid, report.violations[0]
