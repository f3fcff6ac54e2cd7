"""Colours and words that all figures share. The colours are Okabe and Ito's, told apart by the colour-blind."""

from __future__ import annotations

from cosma.plan.timeline import Ending, Origin, Stay

#: Fill by how a tensor came to lie in the scratchpad.
FILL = {
    Origin.PRODUCED: "#0072B2",
    Origin.TAKEOVER: "#009E73",
    Origin.LOADED: "#56B4E9",
    Origin.RELOADED: "#D55E00",
}

WORDS = {
    Origin.PRODUCED: "produced by the operator of its first step",
    Origin.TAKEOVER: "took over the space of an operand (in place)",
    Origin.LOADED: "loaded from off-chip memory, for the first time",
    Origin.RELOADED: "loaded once more, after it had left or gone past the scratchpad",
}

#: Bars of the traffic figure, bottom to top.
TRAFFIC = {
    "compulsory": "#BBBBBB",
    "loaded": "#D55E00",
    "stored": "#E69F00",
    "streamed": "#CC79A7",
}

#: Mark of a stay by origin where there is no colour.
LETTER = {Origin.PRODUCED: "#", Origin.TAKEOVER: "=", Origin.LOADED: "+", Origin.RELOADED: "R"}

OCCUPANCY, CAPACITY, BOUND = "#0072B2", "#000000", "#009E73"


def hues(count: int) -> list[str]:
    """Colours for operators in the order of a schedule, neighbours far apart: steps of the golden angle."""
    from colorsys import hls_to_rgb

    found = []
    for i in range(count):
        red, green, blue = hls_to_rgb((0.58 + 0.381966 * i) % 1.0, 0.38 + 0.12 * (i % 3 == 1), 0.55)
        found.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return found


def is_spilled(stay: Stay) -> bool:
    """Whether a stay ends although the tensor is read again."""
    return stay.ending is Ending.SPILLED
