"""Random networks of any size, to measure how cost grows: ``python models/make/synthetic.py OPERATORS FILE``.

Each operator reads one or two of the most recent results, as the wiring of networks from architecture search does;
what nobody has read in the end is added up.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from builder import Builder


def build(
    name: str, operators: int, seed: int, *, channels: int = 16, image: int = 16, window: int = 12
) -> tuple[Builder, str]:
    """Build a network of exactly ``operators`` operators.

    Parameters
    ----------
    name
        Name of the graph.
    operators
        At least 2.
    seed
        Of the wiring; the same seed gives the same network on every machine.
    channels, image
        Shape of every tensor but the input's.
    window
        How many results back an operator may reach.
    """
    rng = random.Random(seed)
    b = Builder(name, image)
    recent = [b.conv("image", channels, 3, "stem", bias=False)]
    unread = set(recent)
    while len(b) + len(unread) - 1 < operators:
        first = recent[int(rng.random() * len(recent))]
        draw = rng.random()
        if len(b) + len(unread) == operators:
            first, draw = min(unread), 0.5  # one operator is missing: any that leaves no more to add up
        second = recent[int(rng.random() * len(recent))]
        if draw < 0.35 and second != first:
            result, read = b.add(first, second, "add"), {first, second}
        elif draw < 0.7:
            result, read = b.relu(first, "relu"), {first}
        else:
            result, read = b.conv(first, channels, 3, "conv", groups=channels, bias=False), {first}
        unread -= read
        unread.add(result)
        recent = [*recent, result][-window:]
    left = sorted(unread)
    total = left[0]
    for other in left[1:]:
        total = b.add(total, other, "total")
    return b, total


def main() -> None:
    """Write one network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operators", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.operators < 2:
        parser.error("a network has at least 2 operators")
    builder, output = build(options.file.stem, options.operators, options.seed)
    builder.save(output, options.file)
    print(f"{options.file}: {len(builder)} operators")


if __name__ == "__main__":
    main()
