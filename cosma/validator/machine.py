"""The machine a plan runs on: a scratchpad, an off-chip memory, and a rule for every instruction.

It shares no code with anything that makes plans, only the data they speak of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.graph import Graph, Operator, TensorKind
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.plan import Traffic
from cosma.units import align_up
from cosma.validator.forced import Rules
from cosma.validator.modes import least_workspace, no_such_way
from cosma.validator.notes import Notes
from cosma.validator.ranges import count_ranges, pieces_touched
from cosma.validator.space import Space
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable


class Machine:
    """Executes instructions and notes every broken rule instead of stopping at the first.

    After a violation the instruction takes effect as far as it makes sense. What follows from one mistake is noted
    too, with a pointer to it: a later violation that concerns the same tensor, until that is placed properly again.
    """

    def __init__(self, graph: Graph, accelerator: Accelerator) -> None:
        self.graph = graph
        self.accelerator = accelerator
        self.peak_bytes = 0
        self.transfers = 0
        self._loaded = self._stored = self._streamed = 0
        self._occupied_bytes = 0
        self._space = Space()
        self._address: dict[str, int] = {}
        self._awaiting: dict[str, str | None] = {}  # allocated and not written yet -> operand it takes over
        self._executed: set[str] = set()
        self._off_chip = {t.name for t in graph.tensors.values() if t.starts_off_chip}
        self._uses_left = {name: len(graph.consumers(name)) for name in graph.tensors}
        self._operators = {operator.name: operator for operator in graph.operators}
        self._rules = Rules(graph, accelerator)
        self._notes = Notes()
        self._note = self._notes.note

    # -- driving ------------------------------------------------------------------------------------------

    def run(self, instructions: Iterable[Instruction]) -> None:
        """Execute all instructions, then check what must hold at the end."""
        instructions = tuple(instructions)
        for message in self._rules.unknown():
            self._note(Verdict.UNKNOWN_NAME, message)
        self._notes.missing(self.graph.operators, {i.operator for i in instructions if isinstance(i, Execute)})
        for self._notes.index, instruction in enumerate(instructions):
            match instruction:
                case Load(name, address):
                    self._load(name, address)
                case Allocate(name, address, operand):
                    self._allocate(name, address, operand)
                case Execute(name, streamed, workspace):
                    self._execute(name, streamed, workspace)
                case Store(name):
                    self._store(name)
                case Free(name):
                    self._free(name)
        self._notes.index = None
        for pending in self._awaiting:
            self._note(Verdict.ALLOCATION_UNUSED, f"{pending!r} is allocated and never written", pending)
        for tensor in self.graph.of_kind(TensorKind.OUTPUT):
            if tensor.name not in self._off_chip:
                message = f"graph output {tensor.name!r} has no off-chip copy at the end"
                self._note(Verdict.OUTPUT_NOT_STORED, message, tensor.name)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Broken rules so far, in order of instructions."""
        return tuple(self._notes.violations)

    @property
    def traffic(self) -> Traffic:
        """Bytes moved so far, against the graph's compulsory bytes."""
        return Traffic(self._loaded, self._stored, self._streamed, self.graph.compulsory_bytes())

    # -- instructions -------------------------------------------------------------------------------------

    def _load(self, name: str, address: int) -> None:
        if not self._known(name):
            return
        size = self.graph.tensors[name].size_bytes
        self._loaded += size
        self.transfers += 1
        if name not in self._off_chip:
            self._note(Verdict.NO_OFF_CHIP_COPY, f"{name!r} is loaded, but was never stored", name)
        self._check_rows(name, "is loaded")
        if self._place(name, address):
            self._count(align_up(size, self.accelerator.alignment))

    def _allocate(self, name: str, address: int, operand: str | None) -> None:
        if not self._known(name) or (operand is not None and not self._known(operand, name)):
            return
        if operand is None:
            self._reserve(name, address)
            return
        if name in self._address:
            self._note(Verdict.ALREADY_RESIDENT, f"{name!r} is in the scratchpad already", name)
            return
        if self._address.get(operand) != address or operand in self._awaiting:
            where = f"at {self._address[operand]}" if operand in self._address else "not in the scratchpad"
            message = f"{name!r} takes over {operand!r} at {address}, which is {where}"
            self._note(Verdict.IN_PLACE_MISPLACED, message, operand, name)
            self._reserve(name, address)
            return
        self._address[name] = address
        self._awaiting[name] = operand
        self._notes.settle(name)
        self._check_forced_place(name, address, address + self._space_of(name))

    def _reserve(self, name: str, address: int) -> None:
        """Take new space for a result that is written next."""
        if self._place(name, address):
            self._count(self._space_of(name))
            self._awaiting[name] = None

    def _execute(self, name: str, streamed: tuple[str, ...], workspace: int | None) -> None:
        operator = self._operators.get(name)
        if operator is None:
            self._note(Verdict.UNKNOWN_NAME, f"operator {name!r} is not in the plan")
            return
        again = name in self._executed
        if again:
            self._note(Verdict.EXECUTED_TWICE, f"operator {name!r} executes again")
        through = dict.fromkeys(streamed)
        for first in self._rules.after.get(name, ()):
            if first in self._operators and first not in self._executed:
                self._note(Verdict.ORDER_BROKEN, f"{name!r} executes before {first!r}, which is to run first")
        self._check_streaming(operator, through)
        self._check_workspace(operator, through, workspace)
        kept_weights = self.accelerator.weights == Weights.SCRATCHPAD
        for operand in operator.inputs + (operator.weights if kept_weights else ()):
            self._read(operator, operand, operand in through)
        if not kept_weights:
            for weight in operator.weights:
                self._check_rows(weight, f"is streamed by {operator.name!r}")
                self._stream(weight)
        self._executed.add(name)
        if not again:
            for operand in operator.operands:
                self._uses_left[operand] -= 1
        self._check_pieces(operator, through)
        for result in operator.outputs:
            self._write(operator, result, result in through)
        for other in list(self._awaiting):
            self._note(Verdict.ALLOCATION_UNUSED, f"{other!r} is allocated, but {name!r} does not write it", other)
            del self._awaiting[other]

    def _store(self, name: str) -> None:
        if not self._known(name):
            return
        self._stored += self.graph.tensors[name].size_bytes
        self.transfers += 1
        if name not in self._address or name in self._awaiting:
            self._note(Verdict.NOT_RESIDENT, f"{name!r} is stored, but is not in the scratchpad", name)
            return
        self._off_chip.add(name)

    def _free(self, name: str) -> None:
        if not self._known(name):
            return
        if name not in self._address:
            self._note(Verdict.NOT_RESIDENT, f"{name!r} is freed, but is not in the scratchpad", name)
            return
        if name in self._awaiting:
            self._note(Verdict.ALLOCATION_UNUSED, f"{name!r} is freed before it is written", name)
            if self._awaiting.pop(name) is not None:
                del self._address[name]
                return
        else:
            self._check_not_lost(name, "is freed")
            self._check_kept(name, "is freed")
        self._vacate(name)

    # -- rules --------------------------------------------------------------------------------------------

    def _known(self, name: str, result: str | None = None) -> bool:
        """Whether a tensor is in the plan; ``result`` is what stays without an allocation where it is not."""
        if name in self.graph.tensors:
            return True
        about = (name,) if result is None else (name, result)
        self._note(Verdict.UNKNOWN_NAME, f"tensor {name!r} is not in the plan", *about)
        return False

    def _space_of(self, name: str) -> int:
        return align_up(self.graph.tensors[name].size_bytes, self.accelerator.alignment)

    def _stream(self, name: str) -> None:
        self._streamed += self.graph.tensors[name].size_bytes
        self.transfers += 1

    def _count(self, space_bytes: int) -> None:
        self._occupied_bytes += space_bytes
        self.peak_bytes = max(self.peak_bytes, self._occupied_bytes)

    def _place(self, name: str, address: int) -> bool:
        """Put a tensor at an address if that much is possible; note what is wrong with it."""
        if name in self._address:
            message = f"{name!r} is in the scratchpad already, at {self._address[name]}"
            self._note(Verdict.ALREADY_RESIDENT, message, name)
            return False
        before = len(self._notes.violations)
        end = address + self._space_of(name)
        if address % self.accelerator.alignment:
            message = f"{name!r} at {address} is not a multiple of {self.accelerator.alignment}"
            self._note(Verdict.MISALIGNED, message, name)
        if address < 0 or end > self.accelerator.capacity_bytes:
            self._note(
                Verdict.OUT_OF_BOUNDS,
                f"{name!r} at [{address}, {end}) is outside [0, {self.accelerator.capacity_bytes})",
                name,
            )
        self._check_forced_place(name, address, end)
        if end > address:
            other = self._space.clash(address, end)
            if other is not None:
                start = self._address[other]
                self._note(
                    Verdict.OVERLAP,
                    f"{name!r} at [{address}, {end}) overlaps {other!r} at [{start}, {start + self._space_of(other)})",
                    name,
                    other,
                )
            self._space.add(address, end, name)
        self._address[name] = address
        if len(self._notes.violations) == before:
            self._notes.settle(name)
        return True

    def _check_forced_place(self, name: str, address: int, end: int) -> None:
        for verdict, message in self._rules.misplaced(name, address, end):
            self._note(verdict, message, name)

    def _check_kept(self, name: str, how: str) -> None:
        if name in self._rules.resident and self._uses_left[name] > 0:
            message = f"{name!r} {how}, but must stay resident: {self._uses_left[name]} uses are to come"
            self._note(Verdict.NOT_KEPT, message, name)

    def _vacate(self, name: str) -> None:
        space_bytes = self._space_of(name)
        if space_bytes:
            self._space.remove(self._address[name], name)
        del self._address[name]
        self._occupied_bytes -= space_bytes

    def _check_streaming(self, operator: Operator, through: dict[str, None]) -> None:
        related = {*operator.operands, *operator.outputs}
        weights = set(operator.weights)
        for name in through:
            if name in self._rules.resident and name in related:
                message = f"{operator.name!r} streams {name!r}, which must stay resident"
                self._note(Verdict.NOT_KEPT, message, name)
            if name not in related:
                self._note(
                    Verdict.STREAMING_UNRELATED, f"{operator.name!r} streams {name!r}, neither operand nor result", name
                )
            elif self.accelerator.operands == Operands.RESIDENT and not (
                name in weights and self.accelerator.weights == Weights.STREAM
            ):
                message = f"{operator.name!r} streams {name!r}, but operands must be resident"
                self._note(Verdict.STREAMING_FORBIDDEN, message, name)
        if self.accelerator.operands == Operands.STATIONARY:
            chosen = self._by_choice(operator, through)
            why = no_such_way(operator, chosen)
            if why is not None:
                self._note(Verdict.STREAMING_FORBIDDEN, why, *sorted(chosen))

    def _by_choice(self, operator: Operator, through: dict[str, None]) -> set[str]:
        """What an operator streams, but for weights that pass by whatever the plan says."""
        passing = set(operator.weights) if self.accelerator.weights == Weights.STREAM else set()
        return {name for name in through if name in {*operator.operands, *operator.outputs}} - passing

    def _check_workspace(self, operator: Operator, through: dict[str, None], address: int | None) -> None:
        """Scratch space lies in the scratchpad while the operator runs, apart from every tensor."""
        forced = self._rules.workspace.get(operator.name, 0)
        if self.accelerator.operands == Operands.STATIONARY:
            forced = max(forced, least_workspace(operator, self._by_choice(operator, through)))
        size = align_up(forced, self.accelerator.alignment)
        if not size:
            return
        if address is None:
            message = f"{operator.name!r} needs {size} bytes of workspace, and has none"
            self._note(Verdict.WORKSPACE_ABSENT, message)
            return
        end = address + size
        where = f"workspace of {operator.name!r} at [{address}, {end})"
        if address % self.accelerator.alignment:
            message = f"{where} is not at a multiple of {self.accelerator.alignment}"
            self._note(Verdict.WORKSPACE_MISALIGNED, message)
        if address < 0 or end > self.accelerator.capacity_bytes:
            message = f"{where} is outside [0, {self.accelerator.capacity_bytes})"
            self._note(Verdict.WORKSPACE_OUT_OF_BOUNDS, message)
        taken = self._rules.taken(address, end)
        if taken is not None:
            self._note(Verdict.EXCLUDED_RANGE, f"{where} touches [{taken[0]}, {taken[1]}), which is not to be used")
        other = self._space.clash(address, end)
        if other is not None:
            start = self._address[other]
            message = f"{where} overlaps {other!r} at [{start}, {start + self._space_of(other)})"
            self._note(Verdict.WORKSPACE_OVERLAP, message, other)
        self._count(size)
        self._occupied_bytes -= size

    def _check_pieces(self, operator: Operator, through: dict[str, None]) -> None:
        """Operands and results lie in no more address ranges than an operator takes."""
        limit = self.accelerator.pieces
        if limit is None or not self.graph.roots:
            return
        for root, pieces in pieces_touched(self.graph, operator):
            names = [piece.tensor for piece in pieces]
            if len(names) <= limit:
                continue
            address = {name: self._address[name] for name in names if name in self._address and name not in through}
            size = {name: self.graph.tensors[name].size_bytes for name in names}
            count = count_ranges(pieces, address, size)
            if count > limit:
                message = f"{operator.name!r} touches {root!r} in {count} address ranges, of which it takes {limit}"
                self._note(Verdict.PIECES_EXCEEDED, message)

    def _read(self, operator: Operator, name: str, through: bool) -> None:
        producer = self.graph.producer(name)
        if producer is not None and producer not in self._executed:
            message = f"{operator.name!r} reads {name!r} before {producer!r} has produced it"
            self._note(Verdict.WRONG_ORDER, message, name)
        elif through:
            if name not in self._off_chip:
                message = f"{operator.name!r} streams {name!r}, which was never stored"
                self._note(Verdict.NO_OFF_CHIP_COPY, message, name)
            self._check_rows(name, f"is streamed by {operator.name!r}")
        elif name not in self._address or name in self._awaiting:
            message = f"{operator.name!r} reads {name!r}, neither in the scratchpad nor streamed"
            self._note(Verdict.OPERAND_ABSENT, message, name)
        if through:
            self._stream(name)

    def _write(self, operator: Operator, name: str, through: bool) -> None:
        if through:
            self._stream(name)
            self._off_chip.add(name)
            return
        if name not in self._awaiting:
            message = f"{operator.name!r} writes {name!r}: no allocation, not streamed"
            self._note(Verdict.RESULT_NOT_ALLOCATED, message, name)
            return
        operand = self._awaiting.pop(name)
        if operand is None:
            return
        # In place: the result's bytes replace the operand's.
        tensors = self.graph.tensors
        allowed = self._rules.may_overwrite(operator, tensors[name], tensors[operand])
        if not allowed and not self.accelerator.in_place:
            message = f"{name!r} takes over {operand!r}, but in-place is off"
            self._note(Verdict.IN_PLACE_FORBIDDEN, message, name)
        elif not allowed:
            self._note(
                Verdict.IN_PLACE_FORBIDDEN,
                f"{operator.type} may not write {name!r} ({tensors[name].size_bytes} bytes) over {operand!r} "
                f"({tensors[operand].size_bytes} bytes)",
            )
        if operand not in self._address:
            self._note(Verdict.IN_PLACE_MISPLACED, f"{name!r} takes over {operand!r}, which is gone", operand, name)
            self._space.add(self._address[name], self._address[name] + self._space_of(name), name)
        else:
            self._check_not_lost(operand, f"is overwritten by {name!r}")
            self._check_kept(operand, f"is overwritten by {name!r}")
            self._vacate(operand)
            if self._space_of(name):
                self._space.add(self._address[name], self._address[name] + self._space_of(name), name)
        self._count(self._space_of(name))

    def _check_rows(self, name: str, how: str) -> None:
        """Rows of a table can be read once there are the indices that select them, on chip or off."""
        rows = self.graph.tensors[name].rows
        for index in rows.indices if rows is not None else ():
            if index not in self._off_chip and (index not in self._address or index in self._awaiting):
                message = f"{name!r} {how}, but {index!r}, which selects it, is nowhere"
                self._note(Verdict.ROWS_UNKNOWN, message, index, name)

    def _check_not_lost(self, name: str, how: str) -> None:
        if name in self._off_chip:
            return
        if self._uses_left[name] > 0:
            self._note(Verdict.TENSOR_LOST, f"{name!r} {how}, but {self._uses_left[name]} uses are to come", name)
        elif self.graph.tensors[name].kind is TensorKind.OUTPUT:
            self._note(Verdict.TENSOR_LOST, f"graph output {name!r} {how} before it was stored", name)
