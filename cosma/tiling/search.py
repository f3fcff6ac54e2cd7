"""Better segmentations by small changes, each judged by a quick plan of the whole graph of tiles."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from cosma.tiling.choose import LADDER, Segment, Segmentation

#: Cost of a segmentation, lower is better; None where it does not fit.
Judge = Callable[[Segmentation], "tuple[int, int] | None"]
#: Shares of the capacity that the weights of one tile may take.
WEIGHT_SHARES = (0.03, 0.06, 0.125, 0.25, 0.5)


def improve(
    starts: Sequence[Segmentation], heights: Sequence[int], judge: Judge, trials: int, seed: int,
    stop: Callable[[], bool] = bool,
) -> list[Segmentation]:  # fmt: skip
    """Rank segmentations and improve the best by changes that lower its cost.

    Parameters
    ----------
    starts
        Where to begin.
    heights
        Rows of each operator's result; 1 where it cannot be cut.
    judge
        Gives the cost of a segmentation, or None where it does not fit.
    trials
        Changes tried.
    seed
        Same arguments give the same result.
    stop
        Polled between trials.

    Returns
    -------
    list
        Segmentations that fit, the best first.
    """
    known: dict[Segmentation, tuple[int, int] | None] = {}

    def cost(one: Segmentation) -> tuple[int, int] | None:
        if one not in known:
            known[one] = judge(one)
        return known[one]

    def best_first() -> list[Segmentation]:
        fitting = [(price, i, one) for i, (one, price) in enumerate(known.items()) if price is not None]
        return [one for _, _, one in sorted(fitting, key=lambda entry: entry[:2])]

    for start in starts:
        price = cost(start)
        if stop() or (price is not None and price[0] == 0):
            return best_first()
    ranked = best_first()
    if not ranked:
        return []
    rng = random.Random(seed)
    best = ranked[0]
    for _ in range(trials):
        price = cost(best)
        if stop() or (price is not None and price[0] == 0):
            break
        changed = _change(best, heights, rng)
        found = cost(changed)
        if found is not None and price is not None and found < price:
            best = changed
    return best_first()


def _change(segments: Segmentation, heights: Sequence[int], rng: random.Random) -> Segmentation:
    """Change stripes, boundaries, or the room for weights of a segment or two."""
    found = list(segments)
    i = rng.randrange(len(found))
    move = rng.choice(("stripes", "stripes", "boundary", "boundary", "merge", "split", "weights"))
    if move == "stripes":
        found[i] = _other_stripes(found[i], heights, rng)
    elif move == "boundary" and i + 1 < len(found):
        left, right = found[i], found[i + 1]
        shift = rng.choice((-3, -2, -1, 1, 2, 3))
        cut = min(max(left.begin + 1, left.end + shift), right.end - 1)
        if left.begin < cut < right.end:
            found[i], found[i + 1] = replace(left, end=cut), replace(right, begin=cut)
    elif move == "merge" and i + 1 < len(found):
        left, right = found[i], found[i + 1]
        found[i : i + 2] = [replace(rng.choice((left, right)), begin=left.begin, end=right.end)]
    elif move == "split" and found[i].end - found[i].begin > 1:
        cut = rng.randrange(found[i].begin + 1, found[i].end)
        parts = [replace(found[i], end=cut), replace(found[i], begin=cut)]
        side = rng.randrange(2)
        parts[side] = _other_stripes(parts[side], heights, rng)
        found[i : i + 1] = parts
    elif move == "weights":
        found[i] = replace(found[i], weight_share=rng.choice(WEIGHT_SHARES))
    return tuple(found)


def _other_stripes(segment: Segment, heights: Sequence[int], rng: random.Random) -> Segment:
    """A neighbour on the ladder, as far as the segment's rows go."""
    tallest = max(heights[segment.begin : segment.end], default=1)
    ladder = [n for n in LADDER if n <= tallest] or [1]
    near = min(range(len(ladder)), key=lambda k: abs(ladder[k] - segment.stripes))
    step = rng.choice((-2, -1, 1, 2))
    return replace(segment, stripes=ladder[min(max(near + step, 0), len(ladder) - 1)])
