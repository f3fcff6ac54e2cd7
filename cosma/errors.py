"""Every exception cosma raises on purpose, each with the exit code the command line gives it.

A message says what went wrong, where, what was needed against what is available, and what to try.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

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


class ConstraintError(InputError):
    """A constraint on a plan is malformed, or names what the model does not have."""


class FormatError(InputError):
    """A plan, graph, buffer, trace or profile file does not follow its format."""


class CancelledError(CosmaError):
    """A compile was cancelled before it had a plan."""

    exit_code: ClassVar[int] = 130


class TimeLimitError(CosmaError):
    """A time limit ended a compile before it had a plan; with more time there may be one."""

    exit_code: ClassVar[int] = 124  # that of the command timeout


class SolverUnavailableError(InputError):
    """A solver back end or an optional library is not installed here."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of one setting that helps what does not fit; it was tried."""

    #: Field of the accelerator, or ``tiling`` of :func:`cosma.compile`, and what to set it to.
    setting: str
    value: str | int | bool
    #: Smallest scratchpad that works with it.
    smallest_scratchpad_bytes: int
    #: Whether the scratchpad there is suffices then; otherwise it must grow as well.
    enough: bool

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        more = "" if self.enough else f" with a scratchpad of {self.smallest_scratchpad_bytes} bytes"
        return f"{self.setting} = {value}{more}"


class InfeasibleError(CosmaError):
    """No valid plan exists; the message carries the reason and what would help.

    Parameters
    ----------
    message
        What does not fit and where.
    operator, operator_type
        The operator that needs most, where one is to blame.
    needed_bytes, available_bytes
        What it needs at once, and the capacity there is, without what is reserved.
    smallest_capacity_bytes
        Least capacity at which a plan exists, without what is reserved.
    remedies
        What helps, each tried.
    conflict
        Constraints that cannot hold together, each as a text; without any one of them the rest can.
    """

    exit_code: ClassVar[int] = 3

    def __init__(
        self,
        message: str,
        *,
        operator: str | None = None,
        operator_type: str | None = None,
        needed_bytes: int | None = None,
        available_bytes: int | None = None,
        smallest_capacity_bytes: int | None = None,
        remedies: tuple[Remedy, ...] = (),
        conflict: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operator = operator
        self.operator_type = operator_type
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.smallest_capacity_bytes = smallest_capacity_bytes
        self.remedies = remedies
        self.conflict = conflict

    def __str__(self) -> str:
        helps = [f"  what helps: {', or '.join(map(str, self.remedies))}"] if self.remedies else []
        return "\n".join([self.message, *self.details, *helps])

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are rebuilt from their positional arguments alone; the fields must not get lost between processes.
        fields = {name: getattr(self, name) for name in _INFEASIBLE_FIELDS}
        return _rebuild_infeasible, (self.message, self.details, fields)


_INFEASIBLE_FIELDS = (
    "operator", "operator_type", "needed_bytes", "available_bytes", "smallest_capacity_bytes", "remedies",
    "conflict",
)  # fmt: skip


def _rebuild_infeasible(message: str, details: tuple[str, ...], fields: dict[str, Any]) -> InfeasibleError:
    return InfeasibleError(message, **fields).with_details(details)


class PlanInvalidError(CosmaError):
    """A plan failed its replay."""

    exit_code: ClassVar[int] = 4


class CosmaWarning(UserWarning):
    """What was asked for makes sense to cosma, but hardly to anyone: nothing fits, everything is streamed."""


def warn(message: str) -> None:
    """Warn with the line that called the library, however deep within it the reason was found."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "cosma":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, CosmaWarning, stacklevel=level)


class plain_interrupts:
    """Within it, an interrupt that compiled code turned into a SystemError ("... an exception set") is one again."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        cause = error
        while isinstance(cause, SystemError):
            # Compiled code that was called by compiled code wraps it again.
            cause = cause.__cause__ or cause.__context__
        if cause is not error and isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
