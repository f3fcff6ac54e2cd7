"""The command line: a thin shell over the library. Results on stdout, progress and messages on stderr."""

from cosma.cli.app import main

__all__ = ["main"]
