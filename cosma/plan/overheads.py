"""What a plan costs beside its traffic: transfers, tiles, work done again, code, ranges of operands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from statistics import median_low
from typing import TYPE_CHECKING

from cosma.plan.instructions import Allocate, Execute, Free, Load, Store
from cosma.plan.tiles import root_name, untiled_name
from cosma.plan.timeline import passing_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph, Operator
    from cosma.plan.instructions import Instruction
    from cosma.plan.plan import Plan

#: Bytes of an instruction in the C header: two words, an address, a word, a list of two words, padded to eight bytes.
INSTRUCTION_BYTES = 32


@dataclass(frozen=True, slots=True)
class Overheads:
    """What a plan costs beside its traffic.

    Attributes
    ----------
    transfers, short_transfers
        Loads, stores and streamed tensors; those of fewer bytes than the accelerator's ``min_transfer``.
    smallest_bytes, median_bytes
        Of a transfer; 0 where there is none.
    padding_bytes
        What short transfers lack to ``min_transfer``, in all.
    operators, tiles
        Operators before tiling, and what is executed.
    most_tiles, most_cut
        Most tiles of an operator, and the first operator that has so many.
    again_share
        Elements computed a second time over elements of all results: 0 where tiles do not overlap.
    instructions, code_bytes
        Instructions of the plan, and their size as the C header has them.
    most_ranges
        Most address ranges that an operand of a step consists of; 1 where nothing is cut.
    operands_of_ranges
        How many operands consist of so many ranges, by their number.
    """

    transfers: int
    short_transfers: int
    smallest_bytes: int
    median_bytes: int
    padding_bytes: int
    operators: int
    tiles: int
    most_tiles: int
    most_cut: str
    again_share: float
    instructions: int
    most_ranges: int
    operands_of_ranges: dict[int, int]

    @property
    def code_bytes(self) -> int:
        """Size of the instructions as the C header has them."""
        return self.instructions * INSTRUCTION_BYTES


def overheads_of(plan: Plan) -> Overheads:
    """Count what a valid plan costs beside its traffic; linear in the plan."""
    sizes = sorted(transfer_sizes(plan))
    least = plan.accelerator.min_transfer
    short = sum(size < least for size in sizes)
    tiles = Counter(untiled_name(plan.graph.operator(name)) for name in plan.schedule)
    most_cut, most_tiles = max(tiles.items(), key=lambda item: item[1], default=("", 0))
    ranges = Counter(count for _, _, count in operand_ranges(plan))
    return Overheads(
        transfers=len(sizes),
        short_transfers=short,
        smallest_bytes=sizes[0] if sizes else 0,
        median_bytes=median_low(sizes) if sizes else 0,
        padding_bytes=padding_bytes(plan.graph, plan.accelerator, plan.instructions),
        operators=len(tiles),
        tiles=len(plan.schedule),
        most_tiles=most_tiles,
        most_cut=most_cut,
        again_share=_computed_again(plan.graph),
        instructions=len(plan.instructions),
        most_ranges=max(ranges, default=1),
        operands_of_ranges=dict(sorted(ranges.items())),
    )


def transfer_sizes(plan: Plan) -> Iterator[int]:
    """Bytes of each transfer, in the order of the plan; weights that pass the scratchpad by are transfers too."""
    return _sizes(plan.graph, plan.accelerator, plan.instructions)


def padding_bytes(graph: Graph, accelerator: Accelerator, instructions: Iterable[Instruction]) -> int:
    """What short transfers lack to the accelerator's ``min_transfer``, in all."""
    least = accelerator.min_transfer
    return sum(max(0, least - size) for size in _sizes(graph, accelerator, instructions)) if least else 0


def _sizes(graph: Graph, accelerator: Accelerator, instructions: Iterable[Instruction]) -> Iterator[int]:
    size = {name: tensor.size_bytes for name, tensor in graph.tensors.items()}
    for step in instructions:
        moved: Iterable[str] = ()
        if isinstance(step, Load | Store):
            moved = (step.tensor,)
        elif isinstance(step, Execute):
            moved = passing_by(graph.operator(step.operator), step.streamed, accelerator)
        yield from (size[name] for name in moved if size[name])


def operand_ranges(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Tell of each operand in the scratchpad how many address ranges it consists of: operator, root, ranges.

    Parts of one root that an operator reads are one operand. Parts lie in one range where each ends at the address at
    which the next begins; what is streamed lies in none.
    """
    tensors = plan.graph.tensors
    address: dict[str, int] = {}
    taken: dict[str, str] = {}
    for step in plan.instructions:
        if isinstance(step, Load):
            address[step.tensor] = step.address
        elif isinstance(step, Allocate):
            address[step.tensor] = step.address
            if step.in_place_of is not None:
                taken[step.tensor] = step.in_place_of
        elif isinstance(step, Free):
            address.pop(step.tensor, None)
        elif isinstance(step, Execute):
            operator = plan.graph.operator(step.operator)
            for names in _operands(operator, plan.graph):
                places = [(address[n], tensors[n].size_bytes) for n in names if n in address and tensors[n].size_bytes]
                if places:
                    yield step.operator, root_name(tensors[names[0]]), count_ranges(places)
            for operand in taken.values():
                address.pop(operand, None)
            taken = {}


def count_ranges(places: Sequence[tuple[int, int]]) -> int:
    """Count the address ranges that places make, each an address and a size in bytes."""
    ordered = sorted(places)
    return 1 + sum(a + size != b for (a, size), (b, _) in pairwise(ordered))


def _operands(operator: Operator, graph: Graph) -> Iterator[list[str]]:
    """Tensors that make up each operand and each result, by root."""
    for names in ((*operator.operands,), operator.outputs):
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(root_name(graph.tensors[name]), []).append(name)
        yield from found.values()


def _computed_again(graph: Graph) -> float:
    """Share of elements that more than one tile computes; tiles over one box share out a reduced axis."""
    boxes: dict[str, set[tuple[tuple[int, int], ...]]] = {}
    whole = 0
    for operator in graph.operators:
        if operator.tile is None:
            whole += 1
            continue
        spans = operator.tile.box
        boxes.setdefault(operator.tile.root, set()).add(spans)
    computed = needed = 0
    for found in boxes.values():
        computed += sum(prod(b - a for a, b in box) for box in found)
        needed += prod(max(axis[1] for axis in column) - min(axis[0] for axis in column)
                       for column in zip(*found, strict=True))  # fmt: skip
    return (computed - needed) / needed if needed else 0.0


def overhead_rows(found: Overheads, accelerator: Accelerator) -> list[tuple[str, str, str]]:
    """What a plan costs beside its traffic, for tables: label, value, remark."""
    from cosma.units import format_size

    remark = f"smallest {format_size(found.smallest_bytes)}, median {format_size(found.median_bytes)}"
    if accelerator.min_transfer:
        remark += (
            f"; {found.short_transfers:,} below min_transfer ({format_size(accelerator.min_transfer)}), which lack "
            f"{format_size(found.padding_bytes)}"
        )
    rows = [("transfers", f"{found.transfers:,}", remark)]
    if found.tiles > found.operators:
        again = "none computed twice" if found.again_share == 0 else f"{100 * found.again_share:.1f} % computed twice"
        most = f"{found.operators:,} operators, at most {found.most_tiles} of one ({found.most_cut}); {again}"
        rows.append(("tiles", f"{found.tiles:,}", most))
    if found.most_ranges > 1:
        operands = sum(found.operands_of_ranges.values())
        alone = f"{found.operands_of_ranges.get(1, 0):,} of {operands:,} operands in one"
        rows.append(("ranges of an operand", f"at most {found.most_ranges}", alone))
    code = f"{found.instructions:,} instructions of {INSTRUCTION_BYTES} B, as the C header has them"
    rows.append(("code", format_size(found.code_bytes), code))
    return rows
