"""Plans made visible: figures, pages, tables, explanations, curves, comparisons and traces."""

from cosma.report.timeline import Stay, Step, Timeline, Transfer, timeline_of

__all__ = ["Stay", "Step", "Timeline", "Transfer", "timeline_of"]
