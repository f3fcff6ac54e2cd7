"""The application: one command a module, errors turned into messages and exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from importlib import import_module
from typing import Annotated, Final

import typer

from cosma import __version__
from cosma.errors import CosmaError, UnboundDimensionError

#: Command -> module that defines a function of the same name (a trailing underscore where Python owns the name).
COMMANDS: Final = {
    "compile": "compile_",
    "check": "check",
    "inspect": "inspect_",
    "presets": "presets",
    "run": "run",
    "report": "report",
    "explain": "explain",
    "curve": "curve",
    "trace": "trace",
    "diff": "diff",
    "export": "export",
    "sweep": "sweep",
    "table": "table",
    "plot": "plot",
    "compare": "compare",
    "pack": "pack",
    "place": "place",
}

app = typer.Typer(
    name="cosma",
    help="Plan neural networks onto accelerators with a small software-managed scratchpad, with proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command, _module in COMMANDS.items():
    app.command(_command)(getattr(import_module(f"cosma.cli.{_module}"), _module))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cosma {__version__}")  # noqa: T201  # the answer itself
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one-line messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["COSMA_DEBUG"] = "1"


def _with_options(error: CosmaError) -> str:
    """The message of an error, with what would help written as options, quoted for a shell."""
    if isinstance(error, UnboundDimensionError) and error.example:
        options = " ".join(f"--dim {shlex.quote(symbol)}=1" for symbol in error.symbols)
        return str(error).removesuffix(error.example) + options
    return str(error)


def main() -> None:
    """Run the command line and exit: 0 done, 1 internal error, 2 bad input, 3 infeasible, 4 invalid plan."""
    try:
        app()
    except CosmaError as error:
        if os.environ.get("COSMA_DEBUG"):
            raise
        sys.stderr.write(f"error: {_with_options(error)}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone (as in `cosma ... | head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("COSMA_DEBUG"):
            raise
        sys.stderr.write(
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a defect of cosma, not of your input. Run again with `cosma --debug ...` for the traceback.\n"
        )
        sys.exit(1)
