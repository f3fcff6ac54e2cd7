"""A network cut in one way, whose tiles may come in many orders, with plans along them.

What a plan streams is taken from a quick replay that counts no addresses. Then residency and addresses are decided in
one pass along the order, so that a plan costs little and moves little more than the replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from cosma.accelerator import Operands
from cosma.clock import never
from cosma.compiler.modes import fitting_modes, in_modes_along
from cosma.lowering.realise import Realised
from cosma.plan.tiles import untiled_name
from cosma.problem import Decisions, build_problem
from cosma.problem.feasibility import fits
from cosma.problem.rules import may_stream, store_bytes
from cosma.rewrite.tile import depth_first, tile

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.problem import Instance
    from cosma.rewrite.tiling import Tiling

#: Operators that begin a run of operators whose tiles take turns, but for the first, by number.
Bounds = frozenset[int]
#: Operators with tensors that pass by the scratchpad, both by number.
Streamed = frozenset[tuple[int, int]]


def runs_of(graph: Graph, bounds: Iterable[int]) -> tuple[tuple[str, ...], ...]:
    """Names of the operators of each run."""
    names = [operator.name for operator in graph.operators]
    return tuple(tuple(names[a:b]) for a, b in pairwise([0, *sorted(bounds), len(names)]))


@dataclass(frozen=True, slots=True)
class Modes:
    """A mode for each tile, and what the tiles stream in it."""

    graph: Graph
    problem: Instance
    streamed: Streamed
    #: What streaming moves beyond the compulsory, if nothing streamed happens to be in the scratchpad.
    streamed_bytes: int

    def streaming(self, streamed: Streamed) -> Modes:
        """The same modes with something else streamed, of what they allow."""
        return Modes(self.graph, self.problem, streamed, _streamed_bytes(self.problem, streamed))


class Turns:
    """A network cut in one way, whose tiles may come in many orders."""

    def __init__(self, source: LoadedModel, base: Graph, tiling: Tiling, accelerator: Accelerator) -> None:
        from cosma.evaluation.network import build_network

        self.base, self.tiling, self.accelerator = base, tiling, accelerator
        alone = replace(tiling, segments=tuple((operator.name,) for operator in base.operators))
        self.graph = tile(base, source.sites, tiling if tiling.is_ordered else alone).graph
        if accelerator.operands == Operands.STATIONARY:
            self.graph = fitting_modes(self.graph, accelerator)
        self.problem = build_problem(self.graph, accelerator)
        self.known: dict[Bounds, int] = {}
        self.owners = [untiled_name(operator) for operator in self.graph.operators]
        self.net = build_network(self.problem, contract=False).network

    @property
    def parts(self) -> int:
        """Tensors that tiles touch, each as often as one touches it."""
        return int(self.net.operand.size + self.net.result.size)

    @property
    def fit(self) -> bool:
        """Whether every tile fits, in some mode where tiles have modes."""
        return not self.problem.conflict and not self.problem.refused and fits(self.problem)

    @property
    def one_pass(self) -> bool:
        """Whether tiles can be planned in one pass: not where constraints say what may lie where, or has to stream."""
        free = self.problem.places is None and not self.problem.homes
        return free and not self.accelerator.constraints.never_on_chip

    def cost(self, bounds: Bounds) -> int:
        """Bytes beyond the compulsory of the tiles in turns, by the replay that search goes by, in the freest modes."""
        import numpy as np

        from cosma.evaluation.evaluate import cost_bytes, new_tape

        if bounds not in self.known:
            tape = new_tape(self.net, np.array(self.order(bounds), dtype=np.int32))
            self.known[bounds] = cost_bytes(tape) + self.problem.constant_noncompulsory_bytes
        return self.known[bounds]

    def order(self, bounds: Bounds) -> list[int]:
        """Tiles run by run, depth first within each; as the tiling orders them where it does."""
        if self.tiling.is_ordered:
            return list(range(len(self.owners)))
        number = {}
        for i, run in enumerate(runs_of(self.base, bounds)):
            number.update(dict.fromkeys(run, i))
        return depth_first(self.graph.operators, self.owners, [number[name] for name in self.owners])

    def in_turns(self, bounds: Bounds) -> Tiling:
        """The tiling with its operators in runs."""
        return self.tiling if self.tiling.is_ordered else replace(self.tiling, segments=runs_of(self.base, bounds))

    # -- plans --------------------------------------------------------------------------------------------

    def modes(self, bounds: Bounds) -> Modes:
        """A mode for each tile and what it streams, as a replay of the tiles in turns goes."""
        return modes_along(self.graph, self.problem, self.accelerator, self.order(bounds))

    def planned_bytes(self, bounds: Bounds, modes: Modes) -> int | None:
        """Bytes beyond the compulsory, at most, of a plan with addresses; None where none is found in one pass."""
        from cosma.lowering.along import bytes_along

        paid = bytes_along(modes.problem, self.order(bounds), modes.streamed)
        return None if paid is None else paid + modes.streamed_bytes

    def plan(
        self, bounds: Bounds, modes: Modes, effort: float = 0.0, seed: int = 0, stop: Callable[[], bool] = never
    ) -> tuple[Graph, Realised, Graph] | None:
        """The tiles in turns, each in its mode, a plan, and the same tiles each with all modes that fit.

        The order of the plan is changed for so much effort. What moves least in one pass need not when planned with
        care, so the tiles keep their turns: planning goes by both.
        """
        from cosma.search.one_pass import better_in_one_pass

        order = self.order(bounds)
        found = better_in_one_pass(modes.problem, order, effort, seed, stop, streamed=modes.streamed)
        if found is None:
            return None
        planned = found[1]
        place = {v: step for step, v in enumerate(order)}
        graph, free = (
            one.replace(operators=[one.operators[v] for v in order]) for one in (modes.graph, self.graph)
        )  # fmt: skip
        problem = build_problem(graph, self.accelerator)
        number = {name: t for t, name in enumerate(problem.tensor_names)}
        tensors = [number[name] for name in modes.problem.tensor_names]
        stays = sorted(
            (stay.renumbered(tensors) for stay in planned.decisions.residencies), key=lambda s: (s.start, s.tensor)
        )
        along = tuple(place[v] for v in planned.decisions.order)
        return graph, replace(planned, decisions=Decisions(along, tuple(stays))), free


def modes_along(graph: Graph, problem: Instance, accelerator: Accelerator, order: Sequence[int]) -> Modes:
    """A mode for each tile and what it streams, as a replay in an order goes; tiles come with all modes that fit."""
    from cosma.heuristics.simulate import simulate

    made = in_modes_along(graph, problem, accelerator, order)
    problem = problem if made is graph else build_problem(made, accelerator)
    decisions, _ = simulate(problem, order, "belady", "greedy-by-size")
    held: dict[int, list[tuple[int, int]]] = {}
    for stay in decisions.residencies:
        held.setdefault(stay.tensor, []).append((stay.start, stay.end))
    streamed = {
        (v, t)
        for step, v in enumerate(order)
        for t in (*problem.operands_of(v).tolist(), *problem.results_of(v).tolist())
        if not any(start <= step < end for start, end in held.get(t, ()))
    }
    # What is read once and has a copy off-chip costs nothing to stream.
    streamed |= {
        (v, t)
        for t in range(problem.tensor_count)
        if problem.starts_off_chip[t] and len(problem.consumers_of(t)) == 1
        and may_stream(problem, v := int(problem.consumers_of(t)[0]), t)
    }  # fmt: skip
    return Modes(made, problem, frozenset(), 0).streaming(frozenset(streamed))


def _streamed_bytes(problem: Instance, streamed: Streamed) -> int:
    """Non-compulsory bytes of what is streamed, as if none of it were in the scratchpad at the time."""
    store = store_bytes(problem).tolist()
    reads: dict[int, int] = {}
    written = set()
    for v, t in streamed:
        if problem.producer[t] == v:
            written.add(t)
        else:
            reads[t] = reads.get(t, 0) + 1
    total = problem.constant_noncompulsory_bytes
    for t in reads.keys() | written:
        readers, passing = len(problem.consumers_of(t)), reads.get(t, 0)
        # What has been written off-chip comes in once for all that read it in the scratchpad; an input does so anyway.
        first = passing < readers
        arrivals = passing + (first if t in written else 0) - (problem.starts_off_chip[t] and not first)
        total += int(arrivals) * int(problem.size_bytes[t]) + store[t]
    return total
