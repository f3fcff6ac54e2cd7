"""The plan file as records: its keys, in the order they are written, and which of them may be left out.

Keys that are unset are those of version 2 that version 1 does not have.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Literal

import msgspec

from cosma.accelerator import Fusion, Operands, Weights
from cosma.graph import Accumulation, Region, Rows, TensorKind

#: Versions of the format that are read.
VERSIONS = (1, 2)


class Model(msgspec.Struct, frozen=True):
    """The network: its name, and the hash of its file where it was read from one."""

    name: str
    sha256: str | None = None


class Accelerator(msgspec.Struct, frozen=True):
    """The machine; sizes in bytes."""

    scratchpad: int
    alignment: int
    operands: Operands
    weights: Weights
    reserved: int = 0
    in_place: bool = True
    fusion: Fusion = Fusion.NONE
    min_transfer: int | msgspec.UnsetType = msgspec.UNSET
    reserved_ranges: tuple[tuple[int, int], ...] | msgspec.UnsetType = msgspec.UNSET
    zero_copy: bool | msgspec.UnsetType = msgspec.UNSET
    pieces: int | msgspec.UnsetType | None = msgspec.UNSET


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor: its ONNX name, true size in bytes and kind."""

    name: str
    bytes: int
    kind: TensorKind
    rows: Rows | None = None
    region: Region | None = None
    state: str | None = None
    shape: tuple[int, ...] | None = None


class Piece(msgspec.Struct, frozen=True):
    """A tensor that another one consists of, and the box that it fills there."""

    tensor: str
    start: tuple[int, ...]
    stop: tuple[int, ...]


class Root(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor that was cut, or that nobody writes because it consists of others."""

    name: str
    bytes: int
    shape: tuple[int, ...]
    kind: TensorKind
    pieces: tuple[Piece, ...] = ()
    covers: tuple[str, ...] = ()
    state: str | None = None


class Tile(msgspec.Struct, frozen=True):
    """The box of an operator's result that a tile computes."""

    of: str
    start: tuple[int, ...]
    stop: tuple[int, ...]


class Operator(msgspec.Struct, frozen=True):
    """An operator: what it reads and writes, the nodes that it stands for, and the way it runs."""

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    tile: Tile | msgspec.UnsetType | None = msgspec.UNSET
    accumulation: Accumulation | msgspec.UnsetType | None = msgspec.UNSET
    mode: str | msgspec.UnsetType | None = msgspec.UNSET
    may_stream: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    workspace: int | msgspec.UnsetType = msgspec.UNSET
    joined: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Instruction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the plan."""

    do: Literal["load", "allocate", "execute", "store", "free"]
    tensor: str | None = None
    operator: str | None = None
    address: int | None = None
    in_place_of: str | None = None
    streamed: tuple[str, ...] | None = None
    workspace: int | None = None


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that cross the chip's edge."""

    total: int | None = None
    compulsory: int
    noncompulsory: int | None = None
    loaded: int
    stored: int
    streamed: int


class Bound(msgspec.Struct, frozen=True):
    """A lower bound on the noncompulsory bytes, and the plans that it holds for."""

    scope: Literal["graph", "tiling", "tilings", "rows"]
    lower_bound: int
    method: str


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A lower bound on the noncompulsory bytes of any valid plan, and how it was found."""

    status: Literal["optimal", "feasible"] | None = None
    lower_bound: int
    gap: float | None = None
    method: str = "not stated"
    bounds: tuple[Bound, ...] | msgspec.UnsetType = msgspec.UNSET


class Area(msgspec.Struct, frozen=True):
    """Offsets of tensors in an area off-chip, and its size in bytes."""

    size: int
    offsets: dict[str, int] = {}


class OffChip(msgspec.Struct, frozen=True):
    """Where tensors lie off-chip."""

    size: int
    offsets: dict[str, int]
    lower_bound: int = 0
    areas: dict[str, Area] = {}


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plan file."""

    format: str
    version: int
    accelerator: Accelerator
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    instructions: tuple[Instruction, ...]
    model: Model = Model("a plan without a name")
    traffic: Traffic | None = None
    peak: int | None = None
    certificate: Certificate | None = None
    dtype: str | None = None
    dims: dict[str, int] = {}
    roots: tuple[Root, ...] = ()
    constraints: dict[str, Any] = {}
    off_chip: OffChip | None = None
    stopped_by: Literal["time", "interrupt"] | None = None
    reproducible: bool = True
    solver: dict[str, Any] = {}


def repeated_key(text: str | bytes) -> tuple[str, str] | None:
    """Find a key that stands twice in one object, and the path of that object: readers differ in which they take.

    Raises ValueError if the text is no JSON. Raises RecursionError if it is nested too deeply.
    """
    doubled: list[tuple[dict[str, Any], str]] = []

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            doubled.append((found, next(key for key, count in counts.items() if count > 1)))
        return found

    whole = json.loads(text, object_pairs_hook=gather, parse_int=str, parse_float=str)
    return (_path_of(whole, doubled[0][0]), doubled[0][1]) if doubled else None


def _path_of(whole: Any, wanted: object) -> str:
    """Path of an object within a JSON value, such as ``instructions[3]``; empty for the value itself."""
    waiting: list[tuple[Any, str]] = [(whole, "")]
    while waiting:
        value, path = waiting.pop()
        if value is wanted:
            return path
        if isinstance(value, dict):
            waiting += [(inner, f"{path}.{key}" if path else key) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(inner, f"{path}[{i}]") for i, inner in enumerate(value)]
    return ""  # an object that a later key of the same name replaced
