"""The application: one command a module, errors turned into messages and exit codes."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from inspect import cleandoc
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from cosma.cli import interrupts, output
from cosma.cli.output import as_option
from cosma.errors import (
    CosmaError,
    CosmaWarning,
    InfeasibleError,
    InputError,
    Remedy,
    SolverUnavailableError,
    UnboundDimensionError,
    plain_interrupts,
)
from cosma.text import plain

#: Why standard output cannot be written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG)

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
    "place-front": "place_front",
    "place-windows": "place_windows",
    "trace-info": "trace_info",
    "cache": "cache",
}

#: Shells that complete commands, options and values.
_SHELLS: Final = ("bash", "zsh", "fish", "powershell", "pwsh")
#: What help says of the options on it.
_COMPLETION: Final = {
    "install_completion": f"Install completion for this shell, or for one that is named: {', '.join(_SHELLS)}.",
    "show_completion": "Print the script that completes, likewise.",
}
#: Commands as help lists them; all of ``COMMANDS``, each once.
_SECTIONS: Final = {
    "Plan": ("compile", "inspect", "curve", "pack", "presets"),
    "Look into a plan": ("report", "explain", "trace", "diff"),
    "Check, execute and hand on": ("check", "run", "export"),
    "Sweeps over models and accelerators": ("sweep", "table", "plot", "compare"),
    "Experts of Mixture-of-Experts models": ("trace-info", "place", "place-front", "place-windows", "cache"),
}


def _function(name: str) -> Callable[..., None]:
    module = COMMANDS[name]
    found: Callable[..., None] = getattr(import_module(f"cosma.cli.{module}"), module)
    return found


def _summary(name: str) -> str:
    """The first sentence of a command's help."""
    paragraph = " ".join(cleandoc(_function(name).__doc__ or "").partition("\n\n")[0].split())
    first, more, _ = paragraph.partition(". ")
    return f"{first}." if more else first


#: Letters of a line of help at the least, and of its first column in a terminal that is narrower than help usually
#: takes. At 40 columns no line but one with a longer name is broken by the terminal.
_NARROWEST, _FIRST_COLUMN = 30, 12


def _narrowly(write: Callable[[Any, Any], None], ctx: Any, formatter: Any) -> None:
    """Write help in lines of a terminal that is narrower than the writer's least width."""
    width = shutil.get_terminal_size().columns - 2
    if width < formatter.width:
        formatter.width = max(width, _NARROWEST)
        formatter.write_dl = partial(formatter.write_dl, col_max=_FIRST_COLUMN)
    write(ctx, formatter)


@cache
def _command(name: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name)(_function(name))
    command: Any = typer.main.get_command(alone)
    command.format_help = partial(_narrowly, command.format_help)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _no_type
    return command


class _OnDemand(Mapping[str, Any]):
    """The commands by name; each is read when it is asked for, as reading all would take longer than `--help` may."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(TyperGroup):
    """Lists commands by purpose, each with its whole first sentence; completion may be asked for by a shell's name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _OnDemand()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read arguments; the options on completion take the shell that they are called from, or the one named."""
        option = next((p for p in self.params if args and args[0] in p.opts and p.name in _COMPLETION), None)
        if option is not None and option.callback is not None:
            if len(args) > 2 or not set(args[1:]) <= set(_SHELLS):
                raise InputError(f"{args[0]}: {' '.join(args[1:])!r} is no shell; known are {', '.join(_SHELLS)}")
            try:
                option.callback(ctx, option, args[1] if len(args) > 1 else True)
            except OSError as error:
                raise InputError(f"{args[0]}: cannot write {error.filename}: {error.strerror}") from error
            except typer.Exit as unknown:
                raise InputError(f"{args[0]}: name the shell: {', '.join(_SHELLS)}") from unknown
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        _narrowly(super().format_help, ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each purpose; columns are as wide in all."""
        del ctx
        widest = max(map(len, COMMANDS))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), _summary(name)) for name in names])


app = typer.Typer(
    name="cosma",
    cls=_Commands,
    help="Plan neural networks onto accelerators with a small software-managed scratchpad, with proof.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cosma.cli.versions import version_lines

        print("\n".join(version_lines()))  # noqa: T201  # the answer itself
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one-line messages.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the versions that matter, for bug reports."
        ),
    ] = False,
) -> None:
    if debug:
        os.environ["COSMA_DEBUG"] = "1"


def _with_options(error: CosmaError) -> str:
    """The message of an error, with what would help written as options, quoted for a shell."""
    if isinstance(error, UnboundDimensionError) and error.example:
        options = " ".join(f"--dim {shlex.quote(symbol)}=1" for symbol in error.symbols)
        return str(error).removesuffix(error.example) + options
    return error.message if isinstance(error, InfeasibleError) else str(error)


def _details(error: CosmaError) -> tuple[str, ...]:
    """Further lines of an error; what helps is tried already and written as options."""
    if isinstance(error, InfeasibleError) and error.remedies:
        return (*error.details, f"  try: {', or '.join(map(_as_options, error.remedies))}")
    return error.details


def _as_options(remedy: Remedy) -> str:
    """What helps, written as options."""
    if remedy.setting == "scratchpad":
        return f"--scratchpad {remedy.value} (the smallest, with operators cut no further)"
    option = as_option(remedy.setting, remedy.value)
    return option if remedy.enough else f"{option} --scratchpad {remedy.smallest_scratchpad_bytes}"


def _note_warnings() -> None:
    """Write what the library warns of as a plain note; leave the warnings of others alone."""
    others = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if issubclass(category, CosmaWarning):
            output.note(f"note: {message}")
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    warnings.simplefilter("always", CosmaWarning)


def run() -> None:
    """Run the command line and exit; errors become one line and a code."""
    _note_warnings()
    _open_missing_streams()
    output.reset()
    interrupts.started()
    try:
        code = _guarded()
    except KeyboardInterrupt:
        # Between the end of the command and the end of the guard.
        code = interrupts.INTERRUPTED
    finally:
        interrupts.finished()
    sys.exit(code)


def _guarded() -> int:
    try:
        interrupts.guard(True)
        with plain_interrupts():
            code = _invoke()
        sys.stdout.flush()
        return code
    except CosmaError as error:
        if interrupts.received() and isinstance(error, SolverUnavailableError):
            # An import that is interrupted fails, so that a package seems to be missing.
            _complain("interrupted")
            return interrupts.INTERRUPTED
        if os.environ.get("COSMA_DEBUG"):
            raise
        _complain(f"error: {_with_options(error)}", _details(error))
        _flush_quietly()
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        _flush_quietly()
        _complain(str(interrupt) or "interrupted")
        return interrupts.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (as in `cosma ... | head`); there is nobody left to tell.
        _discard_output()
        return 0
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            _discard_output()
            _complain(f"error: cannot write standard output: {error.strerror}")
            return InputError.exit_code
        if error.errno == errno.ENAMETOOLONG:
            _complain(f"error: no file can have a name as long as {str(error.filename)[:40]!r}...")
            return InputError.exit_code
        return _defect(error)
    except Exception as error:  # any other is a defect: users get a line and an exit code, not a traceback
        if interrupts.received() and _in_compilation(error) and not os.environ.get("COSMA_DEBUG"):
            # An interrupt in the middle of a compilation leaves a kernel half made: what then fails on it is no defect.
            _complain("interrupted while kernels were compiled")
            return interrupts.INTERRUPTED
        return _defect(error)
    finally:
        interrupts.guard(False)


def _in_compilation(error: BaseException) -> bool:
    """Say whether an error was raised in what compiles kernels."""
    frame = error.__traceback__
    while frame is not None:
        if str(frame.tb_frame.f_globals.get("__name__")).partition(".")[0] in ("numba", "llvmlite"):
            return True
        frame = frame.tb_next
    return False


def _invoke() -> int:
    """Run the command that was asked for; an error in how it was asked for is printed here."""
    command: Any = typer.main.get_command(app)
    for parameter in command.params:
        if parameter.name in _COMPLETION:
            parameter.help = _COMPLETION[parameter.name]
    if "_COSMA_COMPLETE" in os.environ:
        # A shell asks what may come next, through the command's own `main`.
        command(prog_name="cosma")
    try:
        # Not by the command's own `main`, which turns a closed pipe and Ctrl-C into exit codes of its own.
        with command.make_context("cosma", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except typer.Abort as aborted:
        raise KeyboardInterrupt from aborted
    except Exception as error:  # whatever it is, it is raised again unless it is one of usage
        # Typer brings click along, in some versions as a part of itself, so that its errors have no one class to catch:
        # they are known by what they can do.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _usage(error)
        raise
    return 0


def _no_type(ctx: Any) -> str:
    """Keep help from showing Python's types behind the names of arguments."""
    del ctx
    return ""


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        usage = [] if error.ctx is None else [error.ctx.get_usage(), f"Try '{error.ctx.command_path} --help' for help."]
        _complain(f"error: {error.format_message()}", usage)
    return int(error.exit_code)


def _defect(error: Exception) -> int:
    if os.environ.get("COSMA_DEBUG"):
        raise error
    _complain(
        f"internal error: {type(error).__name__}: {error}",
        ("This is a defect of cosma, not of your input. Run again with `cosma --debug ...` for the traceback.",),
    )
    _flush_quietly()
    return 1


def _complain(message: str, details: Sequence[str] = ()) -> None:
    with suppress(OSError):
        sys.stderr.write("".join(plain(line) + "\n" for line in (message, *details)))
        sys.stderr.flush()


def _flush_quietly() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    """Let the interpreter flush what it still holds into nothing when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_missing_streams() -> None:
    """Fill closed standard streams, so that no file of ours gets the number of one and is printed into."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))
