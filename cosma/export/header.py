"""A plan as a C header: constant tables of tensors, operators and instructions, for C99 and C++."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.errors import InputError
from cosma.export.names import named_plan
from cosma.export.off_chip import lay_out
from cosma.graph import Piece
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.off_chip import AREAS, Area
from cosma.plan.timeline import scratch_bytes
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.plan import Plan

#: Declared once, however many plans are included.
TYPES = """\
#ifndef COSMA_PLAN_TYPES
#define COSMA_PLAN_TYPES 1

/* What an instruction does. */
enum {
  COSMA_LOAD = 0,     /* copy `tensor` from off-chip memory to `address` */
  COSMA_ALLOCATE = 1, /* reserve `address` for `tensor`, which the next COSMA_EXECUTE writes; where `in_place_of`
                         is a tensor, it takes over that operand's space, and the operand is gone afterwards */
  COSMA_EXECUTE = 2,  /* run `operator`; the tensors in list `streamed` are read or written off-chip */
  COSMA_STORE = 3,    /* copy `tensor` to off-chip memory; it stays in the scratchpad */
  COSMA_FREE = 4      /* `tensor` gives up its space */
};

/* What a tensor is to the whole network. */
enum { COSMA_INPUT = 0, COSMA_WEIGHT = 1, COSMA_INTERMEDIATE = 2, COSMA_OUTPUT = 3 };

#define COSMA_NONE 0xFFFFFFFFu

typedef struct cosma_tensor {
  const char *name;
  uint64_t bytes; /* true size: what a transfer moves */
  uint64_t space; /* size rounded up to the alignment: what it takes in the scratchpad */
  uint32_t kind;
} cosma_tensor;

/* A tensor that is a box of elements of a larger one that was cut. Along axis i it holds the elements from
 * bounds[first + i] up to, and without, bounds[first + rank + i]; densely, in row-major order. */
typedef struct cosma_region {
  uint32_t tensor; /* index of the part */
  const char *root;
  uint32_t first;
  uint32_t rank;
} cosma_region;

/* A tensor that was cut. Its shape is bounds[first] up to, and without, bounds[first + rank]; off-chip it lies whole
 * and dense, so the strides of a part there follow from this shape. In the scratchpad a part is dense by itself. */
typedef struct cosma_root {
  const char *name;
  uint64_t bytes;
  uint32_t kind;
  uint32_t first;
  uint32_t rank;
} cosma_root;

/* An operator that computes a box of the result of an operator `of` of the network before tiling; its box stands in
 * `bounds` like that of a region. A tile whose windows reach outside of the root it reads pads there, and only there:
 * rows [p, q) of the result need rows p * stride - pad up to (q - 1) * stride - pad + (kernel - 1) * dilation + 1. */
typedef struct cosma_tile {
  uint32_t operator_index;
  const char *of;
  uint32_t first;
  uint32_t rank;
} cosma_tile;

/* Where a tensor lies off-chip: `offset` bytes into an area, of which inputs, weights and outputs have one each. The
 * area of spilled tensors is shared over time. What an output consists of that nobody writes lies in it, where its
 * region says; a state lies among the outputs, where its next value does. */
enum { COSMA_SPILLED = 0, COSMA_INPUTS = 1, COSMA_WEIGHTS = 2, COSMA_OUTPUTS = 3 };

typedef struct cosma_place {
  uint32_t tensor; /* index of the tensor, or of the root where `is_root` is 1: what was cut lies there whole */
  uint32_t is_root;
  uint32_t area;
  uint64_t offset;
} cosma_place;

/* Lists of tensors are runs of the table of indices: `count` of them from `first` on. */
typedef struct cosma_list {
  uint32_t first;
  uint32_t count;
} cosma_list;

/* A tile that is one step of a sum: it adds up the elements [start, stop) of the axis that its operator sums over, on
 * top of the partial sums in list `sums`, one for each result. The first step has none and adds the bias; the last one
 * yields the result, with what is fused behind the sum. */
typedef struct cosma_sum {
  uint32_t operator_index;
  uint64_t start;
  uint64_t stop;
  cosma_list sums;
} cosma_sum;

typedef struct cosma_operator {
  const char *name;
  const char *type;
  cosma_list inputs;  /* activations */
  cosma_list weights; /* constants */
  cosma_list outputs;
  uint64_t workspace; /* bytes of scratch space while it runs */
} cosma_operator;

typedef struct cosma_instruction {
  uint32_t what;
  uint32_t subject;     /* index of the tensor, or of the operator for COSMA_EXECUTE */
  uint64_t address;     /* in bytes; COSMA_LOAD and COSMA_ALLOCATE, and of the workspace for COSMA_EXECUTE */
  uint32_t in_place_of; /* index of a tensor, or COSMA_NONE; COSMA_ALLOCATE */
  cosma_list streamed;  /* COSMA_EXECUTE */
} cosma_instruction;

typedef struct cosma_plan {
  const char *model;
  uint64_t scratchpad;            /* bytes */
  uint64_t reserved;              /* bytes at its top that the plan leaves alone */
  uint64_t alignment;             /* bytes; every address is a multiple of it */
  uint32_t weights_are_streamed;  /* 1: operators read their weights off-chip, without being told in `streamed` */
  uint64_t peak;                  /* most bytes in use at once */
  uint64_t loaded, stored, streamed, compulsory; /* traffic in bytes */
  const cosma_tensor *tensors;
  uint32_t tensor_count;
  const cosma_operator *operators;
  uint32_t operator_count;
  const uint32_t *indices;
  const cosma_instruction *instructions;
  uint32_t instruction_count;
  const cosma_region *regions; /* one for each part of a tensor that was cut, then one for each piece of a join */
  uint32_t region_count;
  const cosma_root *roots; /* the tensors that were cut */
  uint32_t root_count;
  const cosma_tile *tiles; /* one for each operator that is a tile */
  uint32_t tile_count;
  const cosma_sum *sums; /* one for each operator that is a step of a sum */
  uint32_t sum_count;
  const uint64_t *bounds;
  const cosma_place *places; /* one for each tensor that lies off-chip, but for rows selected from a table */
  uint32_t place_count;
  uint64_t area_bytes[4]; /* size of each area */
} cosma_plan;

#endif /* COSMA_PLAN_TYPES */
"""

_KIND = {"input": 0, "weight": 1, "intermediate": 2, "output": 3}


def c_header(plan: Plan, name: str = "cosma_plan_data") -> str:
    """Write a plan as a header that declares ``static const cosma_plan NAME``.

    Parameters
    ----------
    plan
        A valid plan.
    name
        Identifier of the plan; its tables are named after it.

    Raises
    ------
    InputError
        If ``name`` is no C identifier.
    PlanInvalidError
        If the plan names a tensor or an operator that it does not have.
    """
    plan = named_plan(plan)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", door.text(name, "name")):
        raise InputError(f"the name {name!r} is no C identifier; use letters, digits and underscores")
    rows = _Rows(plan)
    #: Type of the rows, name, rows, a row for a table without any, and whether its length is stated.
    tables: list[tuple[str, str, list[str], str, bool]] = [
        ("cosma_tensor", "tensors", rows.tensors(), '{"", 0u, 0u, 0u}', True),
        ("cosma_operator", "operators", rows.operators(), '{"", "", {0u, 0u}, {0u, 0u}, {0u, 0u}, 0u}', True),
        ("uint32_t", "indices", rows.indices, "0u", False),
        ("cosma_instruction", "instructions", rows.instructions(), _instruction("FREE", 0), True),
        ("cosma_region", "regions", rows.regions(), '{0u, "", 0u, 0u}', True),
        ("cosma_root", "roots", rows.roots(), '{"", 0u, 0u, 0u, 0u}', True),
        ("cosma_tile", "tiles", rows.tiles(), '{0u, "", 0u, 0u}', True),
        ("cosma_sum", "sums", rows.sums(), "{0u, 0u, 0u, {0u, 0u}}", True),
        ("uint64_t", "bounds", rows.bounds, "0u", False),
        ("cosma_place", "places", rows.places(), "{0u, 0u, 0u, 0u}", True),
    ]
    accelerator, traffic = plan.accelerator, plan.traffic
    guard = f"{name.upper()}_H"
    parts = [
        f"/* A plan by cosma for the model {_comment(plan.model_name)}.",
        f" * {_comment(accelerator.describe())}",
        f" * Non-compulsory traffic {traffic.noncompulsory} B of {traffic.total} B; "
        f"{_certificate(plan)}.",
        " * Carry the instructions out in order. Addresses count from the start of the scratchpad. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        TYPES,
        *(_table(f"static const {kind} {name}_{table}", held, nothing) for kind, table, held, nothing, _ in tables),
        f"static const cosma_plan {name} = {{",
        f"  {_string(plan.model_name)},",
        f"  {accelerator.scratchpad}u, {accelerator.reserved}u, {accelerator.alignment}u,",
        f"  {int(accelerator.weights == 'stream')}u,",
        f"  {plan.peak_bytes}u,",
        f"  {traffic.loaded}u, {traffic.stored}u, {traffic.streamed}u, {traffic.compulsory}u,",
        *(f"  {name}_{table}," + (f" {len(held)}u," if counted else "") for _, table, held, _, counted in tables),
        f"  {{{', '.join(f'{area.size_bytes}u' for area in rows.areas)}}}",
        "};",
        "",
        f"#endif /* {guard} */",
        "",
    ]
    return "\n".join(parts)


class _Rows:
    """Rows of the tables of a plan; lists of tensors and bounds of boxes stand in tables of their own, as they come."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.indices: list[str] = []
        self.bounds: list[str] = []
        layout = plan.off_chip if plan.off_chip is not None else lay_out(plan)
        self.areas = [layout.spilled, *(layout.areas.get(name, Area(0)) for name in AREAS)]
        self._tensor = {name: i for i, name in enumerate(plan.graph.tensors)}
        self._operator = {operator.name: i for i, operator in enumerate(plan.graph.operators)}

    def _list(self, tensors: Sequence[str]) -> str:
        first = len(self.indices) if tensors else 0
        self.indices += [f"{self._tensor[name]}u" for name in tensors]
        return f"{{{first}u, {len(tensors)}u}}"

    def _box(self, *corners: Sequence[int]) -> str:
        first = len(self.bounds)
        self.bounds += [f"{at}u" for corner in corners for at in corner]
        return f"{first}u, {len(corners[0])}u"

    def tensors(self) -> list[str]:
        """What each tensor is, and the space it takes."""
        alignment = self.plan.accelerator.alignment
        return [
            f"{{{_string(t.name)}, {t.size_bytes}u, {align_up(t.size_bytes, alignment)}u, {_KIND[t.kind]}u}}"
            for t in self.plan.graph.tensors.values()
        ]

    def operators(self) -> list[str]:
        """What each operator reads and writes, and its scratch space."""
        return [
            f"{{{_string(o.name)}, {_string(o.type)}, {self._list(o.inputs)}, {self._list(o.weights)}, "
            f"{self._list(o.outputs)}, {scratch_bytes(o, self.plan.accelerator)}u}}"
            for o in self.plan.graph.operators
        ]

    def instructions(self) -> list[str]:
        """The plan itself."""
        return [self._instruction(instruction) for instruction in self.plan.instructions]

    def _instruction(self, instruction: Instruction) -> str:
        match instruction:
            case Load(tensor, address):
                return _instruction("LOAD", self._tensor[tensor], address)
            case Allocate(tensor, address, operand):
                taken = None if operand is None else self._tensor[operand]
                return _instruction("ALLOCATE", self._tensor[tensor], address, taken)
            case Execute(operator, streamed, workspace):
                return _instruction("EXECUTE", self._operator[operator], workspace or 0, None, self._list(streamed))
            case Store(tensor):
                return _instruction("STORE", self._tensor[tensor])
            case Free(tensor):
                return _instruction("FREE", self._tensor[tensor])

    def regions(self) -> list[str]:
        """Parts of tensors that were cut, then pieces of joins."""
        graph = self.plan.graph
        pieces = [Piece(t.name, t.region) for t in graph.tensors.values() if t.region is not None]
        pieces += [piece for join in graph.joins.values() for piece in join.pieces]
        return [
            f"{{{self._tensor[piece.tensor]}u, {_string(piece.region.root)}, "
            f"{self._box(piece.region.start, piece.region.stop)}}}"
            for piece in pieces
        ]

    def roots(self) -> list[str]:
        """Tensors that were cut, with their shapes."""
        return [
            f"{{{_string(root.name)}, {root.size_bytes}u, {_KIND[root.kind]}u, {self._box(root.shape or ())}}}"
            for root in self.plan.graph.roots.values()
        ]

    def tiles(self) -> list[str]:
        """Operators that compute a box of a result."""
        return [
            f"{{{i}u, {_string(o.tile.root)}, {self._box(o.tile.start, o.tile.stop)}}}"
            for i, o in enumerate(self.plan.graph.operators)
            if o.tile is not None
        ]

    def sums(self) -> list[str]:
        """Operators that are a step of a sum."""
        return [
            f"{{{i}u, {o.accumulation.start}u, {o.accumulation.stop}u, {self._list(o.accumulation.sums)}}}"
            for i, o in enumerate(self.plan.graph.operators)
            if o.accumulation is not None
        ]

    def places(self) -> list[str]:
        """Where tensors lie off-chip: as the plan says, else in a new layout."""
        root = {name: i for i, name in enumerate(self.plan.graph.roots)}
        return [
            f"{{{root[name] if name in root else self._tensor[name]}u, {int(name in root)}u, {k}u, {offset}u}}"
            for k, area in enumerate(self.areas)
            for name, offset in area.offsets.items()
        ]


def _certificate(plan: Plan) -> str:
    if "certificate" in plan.not_claimed:
        return "no lower bound is claimed"
    claimed = "claimed " if plan.certificate.claimed else ""
    return f"{claimed}{plan.certificate.status}, {claimed}lower bound {plan.certificate.lower_bound} B"


def _instruction(
    what: str, subject: int, address: int = 0, in_place_of: int | None = None, streamed: str = "{0u, 0u}"
) -> str:
    operand = "COSMA_NONE" if in_place_of is None else f"{in_place_of}u"
    return f"{{COSMA_{what}, {subject}u, {address}u, {operand}, {streamed}}}"


def _table(declaration: str, rows: list[str], nothing: str) -> str:
    """Write an array; C has no empty ones, so an empty table holds a row that nobody counts."""
    body = ",\n  ".join(rows or [nothing])
    return f"{declaration}[] = {{\n  {body}\n}};\n"


def _string(text: str) -> str:
    r"""Write a C string: other than ASCII as octal bytes of the UTF-8 form, and ``?`` so that no trigraph forms."""
    out = []
    for byte in text.encode("utf-8", "backslashreplace"):
        character = chr(byte)
        if character in '"\\' or character == "?":
            out.append("\\" + character)
        elif 32 <= byte < 127:
            out.append(character)
        else:
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def _comment(text: str) -> str:
    """Keep text from ending the comment it stands in."""
    printable = text.encode("ascii", "backslashreplace").decode("ascii")
    return re.sub(r"[\x00-\x1f]", " ", printable).replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
