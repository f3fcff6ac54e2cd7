"""Tensors and operators: the two kinds of thing a graph is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import cosma.door as door
from cosma.errors import GraphError
from cosma.graph.accumulation import Accumulation
from cosma.graph.mode import Mode
from cosma.graph.region import Region
from cosma.text import short_repr


class TensorKind(door.Choice):
    """What a tensor is to the graph as a whole."""

    INPUT = "input"
    WEIGHT = "weight"
    INTERMEDIATE = "intermediate"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the content of a row set comes from: elements of a constant table, selected while the model runs."""

    #: Name of the constant in the model; no tensor of the graph unless something reads it whole.
    table: str
    #: Tensors that say which elements; the row set can be read once they exist.
    indices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """An immutable value: one producer at most, any number of consumers.

    Attributes
    ----------
    name
        Unique in its graph.
    size_bytes
        True size; zero is allowed. May be given as text (``"16KiB"``).
    kind
        Graph input, constant, intermediate or graph output; may be given as text (``"input"``). An output may also
        have consumers.
    dtype
        Element type in ONNX's lower-case words (``float32``, ``int8``, ``bool`` ...), where known.
    shape
        Dimensions, where known; may be given as any sequence.
    rows
        For a weight that is a row set: the table and what selects from it.
    region
        For a part of a root that was cut: which box of the root it is.
    state
        For a graph output that is the next value of a state: the graph input that is its value before. The two have one
        place off-chip, so what the output shares with the input is stored already.

    Raises
    ------
    GraphError
        If a value is of the wrong type or out of range; the message names the tensor and the value.
    """

    __repr__ = short_repr

    name: str
    size_bytes: int
    kind: TensorKind = TensorKind.INTERMEDIATE
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    rows: Rows | None = None
    region: Region | None = None
    state: str | None = None

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self,
            name: str,
            size_bytes: door.Size,
            kind: TensorKind | str = ...,
            dtype: str | None = ...,
            shape: Iterable[SupportsIndex] | None = ...,
            rows: Rows | None = ...,
            region: Region | None = ...,
            state: str | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.name, str) or not self.name:
            raise GraphError(f"a tensor has the name {door.shown(self.name)}; give every tensor a unique name")
        name = door.text(self.name, "a tensor's name", error=GraphError)
        where = f"tensor {name!r}"
        put(self, "name", name)
        put(self, "size_bytes", door.size(self.size_bytes, f"{where}: size_bytes", error=GraphError))
        put(self, "kind", door.choice(TensorKind, self.kind, f"{where}: kind", error=GraphError))
        put(self, "state", door.optional_text(self.state, f"{where}: state", error=GraphError))
        if self.dtype is not None:
            put(self, "dtype", door.text(self.dtype, f"{where}: dtype", empty=False, error=GraphError))
        if self.shape is not None:
            put(self, "shape", door.integers(self.shape, f"{where}: shape", least=0, error=GraphError))

    @property
    def starts_off_chip(self) -> bool:
        """Whether a valid off-chip copy exists before the first operator runs."""
        return self.kind in (TensorKind.INPUT, TensorKind.WEIGHT)


#: Value of an attribute: a scalar or a flat list, so that operators stay small, hashable and writable as JSON.
AttributeValue: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
Attributes: TypeAlias = tuple[tuple[str, AttributeValue], ...]
#: Attributes as callers may write them.
GivenAttributes: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]


class _Checked(tuple[tuple[str, AttributeValue], ...]):
    """Attributes that were looked at: copies of an operator, such as its tiles, need not do so again."""

    __slots__ = ()


def _attributes(given: object, where: str) -> Attributes:
    """Take a mapping or pairs of names and values; return them sorted by name."""
    if given == () or isinstance(given, _Checked):
        return given
    pairs = list(given.items() if isinstance(given, Mapping) else door.items(given, where, error=GraphError))
    found: dict[str, AttributeValue] = {}
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise GraphError(f"{where}[{i}] must be a name and a value, not {door.shown(pair)}")
        name = door.text(pair[0], f"{where}[{i}]: name", error=GraphError)
        if name in found:
            raise GraphError(f"{where}: {name!r} is given twice")
        found[name] = _attribute_value(pair[1], f"{where}: {name!r}")
    return _Checked(sorted(found.items()))


def _attribute_value(value: object, where: str) -> AttributeValue:
    if isinstance(value, str):
        return door.text(value, where, error=GraphError)
    if hasattr(value, "__index__"):
        return door.integer(value, where, most=2**63, error=GraphError)
    if isinstance(value, Real):
        return float(value)  # infinite bounds and NaN are values of attributes too
    members = tuple(_attribute_value(one, where) for one in door.items(value, where, error=GraphError))
    if all(isinstance(one, str) for one in members) or all(isinstance(one, int) for one in members):
        return members  # type: ignore[return-value]  # all of one kind
    if all(isinstance(one, int | float) for one in members):
        return tuple(float(one) for one in members)  # type: ignore[arg-type]  # as the line above says
    raise GraphError(f"{where} must be a number, a text or a flat list of one of them, not {door.shown(value)}")


@dataclass(frozen=True, slots=True)
class Part:
    """One ONNX operator as its node states it."""

    #: ONNX operator type, with the domain before it unless it is ONNX's or ONNX Runtime's.
    type: str
    #: ONNX domain; empty for ONNX's own.
    domain: str = ""
    #: Scalars and flat lists by name, sorted by name. The importer adds what the opset or a constant operand decides:
    #: ``training_mode`` of BatchNormalization and Dropout.
    attributes: Attributes = ()

    if TYPE_CHECKING:  # as above

        def __init__(self, type: str, domain: str = ..., attributes: GivenAttributes = ...) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "type", door.text(self.type, "part: type", error=GraphError))
        put(self, "domain", door.text(self.domain, "part: domain", error=GraphError))
        put(self, "attributes", _attributes(self.attributes, f"part {self.type!r}: attributes"))

    def attribute(self, name: str) -> AttributeValue | None:
        """Value of an attribute; None where the node does not state it."""
        return next((value for key, value in self.attributes if key == name), None)


@dataclass(frozen=True, slots=True)
class Operator:
    """A unit of execution.

    Attributes
    ----------
    name
        Unique in its graph.
    type
        ONNX operator type; a fused operator's is the types of its parts joined with ``+``, as in ``Conv+Relu``. It is
        for display and for the plan file: what an operator means is for its parts to say.
    inputs
        Activations read, in operand order, each once. This and the following may be given as any sequence.
    outputs
        Tensors produced.
    weights
        Constants read, each once.
    covers
        First output name of every ONNX node this operator stands for, views and fused nodes included.
    macs
        Multiply-accumulates of one execution, where known (for time and energy estimates only).
    domain, attributes
        As in :class:`Part`, of an operator that is one ONNX node.
    fused
        Parts of an operator that stands for several, in the order they compute; empty for one of a single part.
    reads
        Boxes of operands outside of which the operator depends on nothing; of an operand without any, it may depend
        on all.
    tile
        For a tile, its region of the result of the untiled operator that the region's root names.
    modes
        Ways to run it where ``operands = stationary``, of which a plan's operators have one; without any, nothing is
        streamed.
    accumulation
        For a tile that is one step of a sum: its interval of the axis summed over, and what it adds to.
    joined
        Roots that it reads by their pieces, which are among its operands; see :class:`cosma.graph.join.Join`.

    Raises
    ------
    GraphError
        If a value is of the wrong type or out of range; the message names the operator and the value.
    """

    __repr__ = short_repr

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    macs: int | None = None
    domain: str = ""
    attributes: Attributes = ()
    fused: tuple[Part, ...] = ()
    reads: tuple[Region, ...] = ()
    tile: Region | None = None
    modes: tuple[Mode, ...] = ()
    accumulation: Accumulation | None = None
    joined: tuple[str, ...] = ()

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self,
            name: str,
            type: str,
            inputs: Iterable[str],
            outputs: Iterable[str],
            weights: Iterable[str] = ...,
            covers: Iterable[str] = ...,
            macs: SupportsIndex | None = ...,
            domain: str = ...,
            attributes: GivenAttributes = ...,
            fused: Iterable[Part] = ...,
            reads: Iterable[Region] = ...,
            tile: Region | None = ...,
            modes: Iterable[Mode] = ...,
            accumulation: Accumulation | None = ...,
            joined: Iterable[str] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.name, str) or not self.name:
            raise GraphError(f"an operator has the name {door.shown(self.name)}; give every operator a unique name")
        name = door.text(self.name, "an operator's name", error=GraphError)
        where = f"operator {name!r}"
        put(self, "name", name)
        put(self, "type", door.text(self.type, f"{where}: type", error=GraphError))
        for field in ("inputs", "outputs", "weights", "covers", "joined"):
            put(self, field, door.texts(getattr(self, field), f"{where}: {field}", error=GraphError))
        put(self, "domain", door.text(self.domain, f"{where}: domain", error=GraphError))
        put(self, "attributes", _attributes(self.attributes, f"{where}: attributes"))
        put(self, "reads", door.sequence(self.reads, Region, f"{where}: reads", error=GraphError))
        if self.tile is not None:
            door.instance(self.tile, Region, f"{where}: tile", error=GraphError)
        if self.accumulation is not None:
            door.instance(self.accumulation, Accumulation, f"{where}: accumulation", error=GraphError)
        put(self, "modes", door.sequence(self.modes, Mode, f"{where}: modes", error=GraphError))
        put(self, "fused", door.sequence(self.fused, Part, f"{where}: fused", error=GraphError))
        if self.macs is not None:
            put(self, "macs", door.integer(self.macs, f"{where}: macs", least=0, most=door.UNLIMITED, error=GraphError))

    @property
    def operands(self) -> tuple[str, ...]:
        """Activations and constants read, each once, activations first."""
        return self.inputs + self.weights

    @property
    def parts(self) -> tuple[Part, ...]:
        """ONNX operators this one stands for, in the order they compute."""
        return self.fused or (Part(self.type, self.domain, self.attributes),)


def joined_type(parts: Iterable[Part]) -> str:
    """Type of an operator of several parts, for display and for the plan file."""
    return "+".join(part.type for part in parts)
