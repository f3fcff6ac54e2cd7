"""What can be wrong with a plan: one name per rule, and where the rule was broken."""

from __future__ import annotations

from dataclasses import dataclass

import cosma.door as door
from cosma.plan.plan import Traffic
from cosma.text import short_repr, shortened


class Verdict(door.Choice):
    """The rule that was broken."""

    UNKNOWN_NAME = "unknown-name"  # an instruction names a tensor or operator the plan does not have
    EXECUTED_TWICE = "executed-twice"
    NOT_EXECUTED = "not-executed"
    WRONG_ORDER = "wrong-order"  # an operator runs before the producer of an operand
    OPERAND_ABSENT = "operand-absent"  # an operand is neither in the scratchpad nor streamed
    NO_OFF_CHIP_COPY = "no-off-chip-copy"  # something is loaded or streamed that was never stored
    ROWS_UNKNOWN = "rows-unknown"  # rows of a table are read before there are the indices that select them
    ALREADY_RESIDENT = "already-resident"
    NOT_RESIDENT = "not-resident"  # something is stored or freed that is not in the scratchpad
    MISALIGNED = "misaligned"
    OUT_OF_BOUNDS = "out-of-bounds"
    OVERLAP = "overlap"
    RESULT_NOT_ALLOCATED = "result-not-allocated"
    ALLOCATION_UNUSED = "allocation-unused"  # allocated, but not written by the next operator
    IN_PLACE_FORBIDDEN = "in-place-forbidden"  # not in the in-place table, or in-place is off
    IN_PLACE_MISPLACED = "in-place-misplaced"  # not at the operand's address, or that operand is not there
    TENSOR_LOST = "tensor-lost"  # the only copy of a tensor with a later use is given up
    STREAMING_FORBIDDEN = "streaming-forbidden"
    STREAMING_UNRELATED = "streaming-unrelated"  # streamed, but neither operand nor result
    MODE_FORBIDDEN = "mode-forbidden"  # an operator, as the model has it, cannot run in a mode that the plan claims
    WORKSPACE_ABSENT = "workspace-absent"  # the operator needs scratch space and is given none
    WORKSPACE_MISALIGNED = "workspace-misaligned"
    WORKSPACE_OUT_OF_BOUNDS = "workspace-out-of-bounds"
    WORKSPACE_OVERLAP = "workspace-overlap"  # scratch space lies where a tensor lies
    EXCLUDED_RANGE = "excluded-range"  # a tensor or scratch space lies in a range that is reserved or excluded
    ADDRESS_BROKEN = "address-broken"  # a tensor lies elsewhere than at its fixed address
    ALIGNMENT_BROKEN = "alignment-broken"  # an address is no multiple of the tensor's own alignment
    NOT_KEPT = "not-kept"  # a tensor that must stay resident is streamed, or leaves before its last use
    NEVER_ON_CHIP = "never-on-chip"  # a tensor that must not lie in the scratchpad is placed there
    ORDER_BROKEN = "order-broken"  # an operator runs before another one that is to run first
    OUTPUT_NOT_STORED = "output-not-stored"
    PART_OUTSIDE = "part-outside"  # a part does not lie within its root
    PART_SIZE = "part-size"  # a part has not its share of its root's bytes, or another kind than its root
    PARTS_OVERLAP = "parts-overlap"  # two parts of a root share elements
    PARTS_MISSING = "parts-missing"  # the parts of a root do not cover it, or no one operator writes them all
    JOIN_WRONG = "join-wrong"  # a root does not consist of what the model's operators make of its pieces
    ZERO_COPY_FORBIDDEN = "zero-copy-forbidden"  # roots that nobody writes, on an accelerator that copies
    STATE_WRONG = "state-wrong"  # a state cannot lie off-chip where its next value does
    PIECES_EXCEEDED = "pieces-exceeded"  # an operand or a result lies in more address ranges than an operator takes
    TILES_WRONG = "tiles-wrong"  # tiles of an operator do not cover its result once, or write something else
    REGION_UNREAD = "region-unread"  # an operator depends on elements of a root that no part it reads holds
    OFF_CHIP_ABSENT = "off-chip-absent"  # what is spilled, or an input, weight or output, has no off-chip offset
    OFF_CHIP_MISALIGNED = "off-chip-misaligned"
    OFF_CHIP_OUT_OF_BOUNDS = "off-chip-out-of-bounds"
    OFF_CHIP_OVERLAP = "off-chip-overlap"  # two tensors lie at the same off-chip bytes at the same time
    TRAFFIC_MISMATCH = "traffic-mismatch"  # what the plan says it costs is not what it costs
    PEAK_MISMATCH = "peak-mismatch"
    CERTIFICATE_MISMATCH = "certificate-mismatch"
    MODEL_MISMATCH = "model-mismatch"  # the plan does not cover the graph it is checked against


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule.

    Attributes
    ----------
    verdict
        Which rule.
    instruction
        Index of the instruction that broke it; None for rules about the plan as a whole.
    message
        What, where, needed against found.
    follows
        Index, among all violations of the replay, of the one that this one follows from: an operand that is absent
        because its load is missing is missed by every reader. None for a root.
    """

    __repr__ = short_repr

    verdict: Verdict
    instruction: int | None
    message: str
    follows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", door.choice(Verdict, self.verdict, "violation: verdict"))
        if self.instruction is not None:
            index = door.integer(self.instruction, "violation: instruction", least=0)
            object.__setattr__(self, "instruction", index)
        door.text(self.message, "violation: message")

    def __str__(self) -> str:
        where = "plan" if self.instruction is None else f"instruction {self.instruction}"
        return f"{where}: {self.verdict}: {self.message}"


@dataclass(frozen=True, slots=True, repr=False)
class ReplayReport:
    """What a replay found and counted.

    Attributes
    ----------
    violations
        Every broken rule, in order of instructions; empty for a valid plan.
    traffic
        Bytes counted instruction by instruction.
    peak_bytes
        Most bytes in the scratchpad at any instant, each tensor rounded up to the alignment.
    transfers
        Number of loads, stores and streamed reads and writes (streamed weights included).
    """

    violations: tuple[Violation, ...]
    traffic: Traffic
    peak_bytes: int
    transfers: int

    def __post_init__(self) -> None:
        violations = door.sequence(self.violations, Violation, "replay report: violations")
        object.__setattr__(self, "violations", violations)
        door.instance(self.traffic, Traffic, "replay report: traffic")
        for name in ("peak_bytes", "transfers"):
            count = door.integer(getattr(self, name), f"replay report: {name}", least=0, most=door.UNLIMITED)
            object.__setattr__(self, name, count)

    def __repr__(self) -> str:
        state = "valid"
        if not self.valid:
            state = f"{len(self.violations)} violations, first {shortened(str(self.violations[0]))}"
        return (
            f"ReplayReport({state}; {self.traffic.noncompulsory} non-compulsory bytes, peak {self.peak_bytes} bytes, "
            f"{self.transfers} transfers)"
        )

    @property
    def valid(self) -> bool:
        """Whether no rule was broken."""
        return not self.violations

    @property
    def roots(self) -> tuple[tuple[Violation, int], ...]:
        """Violations that follow from no other, each with the number of those that follow from it."""
        counts: dict[int, int] = {i: 0 for i, v in enumerate(self.violations) if v.follows is None}
        for violation in self.violations:
            if violation.follows is not None:
                counts[violation.follows] += 1
        return tuple((self.violations[i], count) for i, count in counts.items())

    def lines(self, limit: int | None = None) -> list[str]:
        """Write the violations for people: a line for each root, at most ``limit``, and what follows as a count."""
        roots = self.roots
        lines = [
            str(root) + (f" (and {count} that follow{'s' if count == 1 else ''} from it)" if count else "")
            for root, count in roots[:limit]
        ]
        if limit is not None and len(roots) > limit:
            lines.append(f"and {len(roots) - limit} more")
        return lines
