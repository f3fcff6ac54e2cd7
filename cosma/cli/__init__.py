"""The command line: a thin shell over the library. Results on stdout, progress and messages on stderr."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 internal error, 2 bad input, 3 infeasible, 4 invalid plan."""
    from cosma.cli import interrupts

    # Before anything that takes time to import: Ctrl-C may come at once.
    interrupts.listen()
    from cosma.cli.app import run

    run()


__all__ = ["main"]
