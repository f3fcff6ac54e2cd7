"""Ways to run an operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

import cosma.door as door
from cosma.errors import GraphError
from cosma.text import short_repr


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to run an operator: what may pass the scratchpad by, and the room that takes.

    Attributes
    ----------
    name
        What reports and plan files call it, such as ``weight-stationary``.
    may_stream
        Operands and results that may be streamed while the operator runs so, any of them or all.
    workspace_bytes
        Scratch space that the operator needs in the scratchpad while it runs so, at any address.
    """

    __repr__ = short_repr

    name: str
    may_stream: tuple[str, ...] = ()
    workspace_bytes: int = 0

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self, name: str, may_stream: Iterable[str] = ..., workspace_bytes: SupportsIndex = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        put, wrong = object.__setattr__, GraphError
        put(self, "name", door.text(self.name, "mode: name", empty=False, error=wrong))
        put(self, "may_stream", door.texts(self.may_stream, f"mode {self.name!r}: may_stream", error=wrong))
        size = door.integer(
            self.workspace_bytes, f"mode {self.name!r}: workspace_bytes", least=0, most=door.UNLIMITED, error=wrong
        )
        put(self, "workspace_bytes", size)

    def allows(self, streamed: Iterable[str]) -> bool:
        """Whether all of some operands and results may be streamed."""
        return set(streamed) <= set(self.may_stream)


#: Nothing is streamed.
RESIDENT = Mode("resident")
