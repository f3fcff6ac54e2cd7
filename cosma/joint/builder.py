"""The joint program out of its families: order, residency, takeovers, capacity, and learnt conflicts."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

from cosma.joint.program import Joint
from cosma.joint.timed import TimedTensor, TimeIndexed
from cosma.problem.rules import arrival_bytes, first_arrival_is_compulsory, may_stream, store_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.joint.program import Addresses, JointConflict
    from cosma.problem import Problem
    from cosma.problem.precedence import Windows


class JointBuilder(TimeIndexed):
    """Collects variables and rows of the joint program; the attributes are those of :class:`Joint` and their inputs."""

    def __init__(self, problem: Problem, addresses: Addresses, windows: Windows) -> None:
        super().__init__(
            "joint" if addresses == "none" else f"joint with {addresses} addresses",
            earliest=windows.earliest,
            latest=windows.latest,
            predecessors=[problem.predecessors_of(v).tolist() for v in range(problem.operator_count)],
            tensors=_tensors(problem, windows),
            capacity_bytes=problem.capacity_bytes,
            further_bytes=() if addresses == "none" else _places(problem),
        )
        self.problem = problem
        self.windows = windows
        self.limit = problem.address_limit_bytes // self.unit
        self.address: dict[tuple[int, int], int] = {}

    def add_program(self, ordered: Sequence[tuple[int, int]]) -> None:
        """Add all but addresses and their conflicts; see :func:`cosma.joint.build.build_joint`."""
        self.add_order()
        for u, v in ordered:
            self.add_precedence("symmetric branches", u, v)
        first_is_compulsory = first_arrival_is_compulsory(self.problem)
        for t, tensor in self.tensors.items():
            self.add_tensor(t)
            if first_is_compulsory[t]:
                self.out.constant(-tensor.read_bytes)
        for v in self.steps:
            self.add_takeovers(v, self.problem.pairs_of(v))
        self.add_capacity()

    def finish(self) -> Joint:
        """Freeze what was added."""
        self.out.constant(self.problem.constant_noncompulsory_bytes)
        return Joint(
            self.problem,
            self.windows,
            self.out.build(),
            self.at,
            self.inside,
            self.read,
            self.stored,
            self.takeover,
            self.address,
            self.unit,
        )

    def add_conflict(self, conflict: JointConflict) -> None:
        """Not all of these stays at once: a longer stay would do no better, a shorter or broken one is another."""
        columns: list[int] = []
        values: list[int] = []
        bound = -1
        there = {(r.tensor, r.start, r.end) for r in conflict.residencies}
        for r in conflict.residencies:
            for i in range(r.start, r.end):
                columns.append(self.inside[r.tensor, i])
                values.append(1)
                bound += 1
                if i > r.start:
                    columns.append(self.read[r.tensor, i])
                    values.append(-1)
            if r.in_place_of is not None:
                columns.append(self.takeover[r.tensor, r.in_place_of, r.start])
                values.append(1)
                bound += 1
                continue
            for (result, operand, i), z in self.takeover.items():
                # Standing apart is part of the conflict: sharing an operand's space would be another shape.
                if result == r.tensor and i == r.start and any((operand, s, i + 1) in there for s in range(i + 1)):
                    columns.append(z)
                    values.append(-1)
        self.out.row("address conflict", columns, values, upper=bound)


def _tensors(problem: Problem, windows: Windows) -> list[TimedTensor]:
    """Tensors that take space and are touched, alive between the windows of their touches."""
    arrival, store = arrival_bytes(problem).tolist(), store_bytes(problem).tolist()
    found = []
    for t, space in enumerate(problem.space_bytes.tolist()):
        producer, readers = int(problem.producer[t]), problem.consumers_of(t).tolist()
        touching = [producer, *readers] if producer >= 0 else readers
        if space and touching:
            tensor = TimedTensor(
                number=t,
                space_bytes=space,
                read_bytes=arrival[t],
                store_bytes=store[t],
                producer=producer,
                readers=readers,
                streamed_by=frozenset(v for v in touching if may_stream(problem, v, t)),
                life=range(windows.born[t], windows.dies[t] + 1),
            )
            found.append(tensor)
    return found


def _places(problem: Problem) -> list[int]:
    """Ends of ranges, fixed addresses and alignments in bytes: addresses are counted in what divides them all."""
    places = problem.places
    if places is None:
        return []
    steps = [lcm(problem.alignment, step) for step in places.alignment.values()]
    return [*(end for window in places.windows for end in window), *places.address.values(), *steps]
