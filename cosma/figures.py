"""Figures of matplotlib as bytes: the same figure gives the same bytes with the same version of matplotlib."""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

from cosma.errors import InputError, SolverUnavailableError

#: Forms a figure can be written in, which are also the endings of files.
KINDS: Final = ("png", "svg", "pdf")
#: Neither dates nor versions, which would make two equal figures differ.
_UNDATED: Final[dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def new_figure(width_inches: float, height_inches: float) -> Any:
    """Make a figure of matplotlib, without a display and without touching anyone's settings.

    Raises
    ------
    SolverUnavailableError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SolverUnavailableError(
            "figures need matplotlib, which is not installed: pip install 'cosma[report]'"
        ) from error
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def figure_bytes(figure: Any, kind: str, dpi: int = 160) -> bytes:
    """Write a figure as one of ``KINDS``.

    Raises
    ------
    InputError
        If the kind is unknown.
    """
    import matplotlib

    if kind not in KINDS:
        raise InputError(f"figure of kind {kind!r}: expected one of {', '.join(KINDS)}")
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "cosma", "svg.fonttype": "none"}), warnings.catch_warnings():
        # A name may hold characters that the font lacks; the figure shows a box for each.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format=kind, dpi=dpi, metadata=_UNDATED[kind])
    return stream.getvalue()
