"""Run the command line as ``python -m cosma``."""

from cosma.cli import main

if __name__ == "__main__":
    main()
