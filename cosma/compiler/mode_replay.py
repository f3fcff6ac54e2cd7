"""Traffic of one order while modes of operators change one by one.

An instance and its arrays are made once. A mode is then what an operator may stream and the space of its workspace:
some entries of the arrays, so that a trial costs a replay and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.graph import Graph, Mode
from cosma.problem import build_problem
from cosma.problem.forced import forced_on
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.arrays import Bytes
    from cosma.evaluation.tape import Tape

#: A mode in arrays: which operands and results of an operator stream, and the space of its workspace.
Entries = tuple["Bytes", "Bytes", int]


class ModeReplay:
    """Replays the operators of a graph, each in one of its modes, by the rule that search goes by.

    Parameters
    ----------
    graph
        Every operator with its modes.
    """

    def __init__(self, graph: Graph, accelerator: Accelerator) -> None:
        from cosma.evaluation.network import build_network

        self.graph = graph
        most = {o.name: max((mode.workspace_bytes for mode in o.modes), default=0) for o in graph.operators}
        freest = {o.name: (Mode("any", (*o.operands, *o.outputs), most[o.name]),) for o in graph.operators}
        self.problem = problem = build_problem(in_modes(graph, freest), accelerator)
        # Nothing is contracted: operators in different modes would be.
        self.net = build_network(problem, contract=False).network
        self.least = dict(forced_on(graph, accelerator).constraints.workspaces)
        self.alignment = accelerator.alignment
        number = {t: i for i, t in enumerate(t for t in range(problem.tensor_count) if problem.space_bytes[t] > 0)}
        self.names = [problem.tensor_names[t] for t in number]
        self.workspace = {v: number[t] for v, t in problem.workspace.items()}
        self.forced = self.net.operand_streams.copy(), self.net.result_streams.copy()
        self.known: dict[tuple[int, Mode], Entries] = {}
        self.tape: Tape | None = None

    def put(self, operator: int, mode: Mode) -> None:
        """Run an operator in a mode from now on."""
        entries = self.known.get((operator, mode))
        if entries is None:
            entries = self.known[operator, mode] = self._entries(operator, mode)
        net = self.net
        net.operand_streams[net.operand_start[operator] : net.operand_start[operator + 1]] = entries[0]
        net.result_streams[net.result_start[operator] : net.result_start[operator + 1]] = entries[1]
        if operator in self.workspace:
            net.space[self.workspace[operator]] = entries[2]

    def _entries(self, operator: int, mode: Mode) -> Entries:
        import numpy as np

        streams = set(mode.may_stream)
        found = []
        tables = (self.net.operand_start, self.net.operand), (self.net.result_start, self.net.result)
        for (start, touched), allowed in zip(tables, self.forced, strict=True):
            row = slice(int(start[operator]), int(start[operator + 1]))
            named = np.array([self.names[t] in streams for t in touched[row].tolist()], dtype=np.uint8)
            found.append(named & allowed[row])
        least = self.least.get(self.graph.operators[operator].name, 0)
        return found[0], found[1], align_up(max(least, mode.workspace_bytes), self.alignment)

    def follow(self, order: Sequence[int]) -> None:
        """Replay this order from now on."""
        import numpy as np

        from cosma.evaluation.evaluate import new_tape

        self.tape = new_tape(self.net, np.asarray(order, dtype=np.int32))

    def noncompulsory_bytes(self) -> int:
        """Replay the order in the modes at hand; a very large number where the order does not fit so."""
        from cosma.evaluation.evaluate import cost_bytes
        from cosma.evaluation.kernels import replay_all

        assert self.tape is not None
        if replay_all(self.net, self.tape, False)[0] < 0:
            return 1 << 62
        return cost_bytes(self.tape) + self.problem.constant_noncompulsory_bytes


def in_modes(graph: Graph, modes: Mapping[str, tuple[Mode, ...]]) -> Graph:
    """The graph with other modes of its operators, by name."""
    operators = [o if modes[o.name] == o.modes else replace(o, modes=modes[o.name]) for o in graph.operators]
    return graph.replace(operators=operators)
