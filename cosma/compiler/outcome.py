"""A compile with an account of how it went: progress on the way, cancellation, and the state in the end."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import cosma.door as door
from cosma.compiler.compile import run_compile
from cosma.compiler.limits import Limits
from cosma.compiler.request import RequestOptions
from cosma.compiler.result import CompileResult
from cosma.errors import CancelledError, InputError

if TYPE_CHECKING:
    from typing import Unpack

    from cosma.accelerator import Accelerator
    from cosma.accelerator.files import Preset
    from cosma.compiler.limits import ProgressSink
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph


#: Options that say when a compile may stop.
_LIMITS = ("effort", "time_limit_s", "gap", "trade_off")


class CompileOptions(RequestOptions, total=False):
    """Options of :func:`cosma.compile`, where they are explained."""

    effort: float
    time_limit_s: float | None
    gap: float
    trade_off: float
    off_chip: bool
    on_interrupt: Literal["raise", "best"]


class Cancellation:
    """A request to end a compile, made from any thread; it can be made once, and is not taken back."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = Event()

    def cancel(self) -> None:
        """End the compile soon, with the best plan found so far."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the request was made."""
        return self._event.is_set()


def compile_outcome(
    model: Graph | LoadedModel | Path | str,
    accelerator: Accelerator | Preset | Path | str,
    *,
    progress: ProgressSink | None = None,
    cancel: Cancellation | None = None,
    **options: Unpack[CompileOptions],
) -> CompileResult:
    """Like :func:`cosma.compile`, with an account of how the run ended and of its plan.

    Compiles may run in several threads at a time: they share nothing that changes, and each gives the plan that it
    gives alone.

    Parameters
    ----------
    model, accelerator
        As for :func:`cosma.compile`.
    progress
        Called often, in the thread that compiles, with a :class:`cosma.Progress` once there is a plan. An error that
        it raises ends the compile.
    cancel
        Polled: once it is cancelled, the run ends with the best plan so far, which says so (``stopped_by``).
    options
        Those of :func:`cosma.compile`.

    Raises
    ------
    CancelledError
        If it was cancelled before there was a plan.
    CosmaError
        As :func:`cosma.compile` does.
    """
    if cancel is not None:
        door.instance(cancel, Cancellation, "cancel")
    unknown = sorted(set(options) - CompileOptions.__annotations__.keys())
    if unknown:
        raise InputError(
            f"compile_outcome has no option {unknown[0]!r}; it has {', '.join(CompileOptions.__annotations__)}"
        )
    limits = Limits(
        effort=options.get("effort", 10.0), time_limit_s=options.get("time_limit_s"), gap=options.get("gap", 0.0),
        trade_off=options.get("trade_off", 0.0),
    )  # fmt: skip
    rest: dict[str, Any] = {name: value for name, value in options.items() if name not in _LIMITS}
    token = Cancellation() if cancel is None else cancel
    try:
        return run_compile(
            model, accelerator, limits=limits, sink=progress, interrupted=lambda: token.cancelled, **rest
        )
    except KeyboardInterrupt:
        if token.cancelled:
            raise CancelledError("cancelled before the first plan was found") from None
        raise
