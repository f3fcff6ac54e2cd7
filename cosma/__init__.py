"""cosma: plans neural networks onto accelerators with a small software-managed scratchpad."""

__version__ = "0.1.0"
