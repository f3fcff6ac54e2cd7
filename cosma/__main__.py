"""Run the command line as ``python -m cosma``."""

from cosma.cli.app import main

main()
