"""Every exception cosma raises on purpose, each with the exit code the command line gives it.

A message says what went wrong, where, what was needed against what is available, and what to try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class CosmaError(Exception):
    """Base of all errors raised on purpose.

    Attributes
    ----------
    exit_code
        Exit status of the command line when this error ends it.
    details
        Further lines, where there is more to say than the message has room for.
    """

    exit_code: ClassVar[int] = 1
    details: tuple[str, ...] = ()

    def with_details(self, lines: Sequence[str]) -> Self:
        """Return the error with further lines."""
        self.details = tuple(lines)
        return self


class InputError(CosmaError):
    """Something the user gave is wrong: a file, an option, a value."""

    exit_code: ClassVar[int] = 2


class ModelLoadError(InputError):
    """An ONNX model cannot be read, or its tensors cannot be sized."""


class UnboundDimensionError(ModelLoadError):
    """Dynamic dimensions of a model have no size.

    Parameters
    ----------
    message
        What is open and where; it ends with :attr:`example`.
    symbols
        Names to bind so that every dimension has a size.
    """

    def __init__(self, message: str, symbols: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.symbols = symbols

    @property
    def example(self) -> str:
        """Bindings that would size every dimension."""
        return ", ".join(f"{symbol}=1" for symbol in self.symbols)


class GraphError(InputError):
    """A graph breaks an invariant: a cycle, two producers, an undefined tensor, a negative size."""


class AcceleratorError(InputError):
    """An accelerator description is incomplete, contradictory or unknown."""


class FormatError(InputError):
    """A plan, graph, buffer, trace or profile file does not follow its format."""


class SolverUnavailableError(InputError):
    """A solver back end or an optional library is not installed here."""


class InfeasibleError(CosmaError):
    """No valid plan exists; the message carries the reason and what would help."""

    exit_code: ClassVar[int] = 3


class PlanInvalidError(CosmaError):
    """A plan failed its replay."""

    exit_code: ClassVar[int] = 4


class CosmaWarning(UserWarning):
    """What was asked for makes sense to cosma, but hardly to anyone: nothing fits, everything is streamed."""
