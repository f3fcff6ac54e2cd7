"""One run of the search kernel: its working memory and its call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.tables import OFFSET, SAVED
from cosma.packing.tree import run

if TYPE_CHECKING:

    from cosma.arrays import Floats, Ints
    from cosma.packing.tables import Shape


class Workspace:
    """Memory for the search of one problem, reused by its restarts.

    A path has at most one placement per buffer. It may have more parts than that, because a part is narrowed each
    time a placement in it fails: the kernel enlarges `part` and `keys` where these do not suffice.
    """

    def __init__(self, shape: Shape) -> None:
        count, sections = shape.buffer_count, shape.section_count
        self.memory = np.zeros((2, 1 << (15 if count < 64 else 17)), np.uint64)
        self.saved_buffers = np.empty((count + 1, SAVED, count), np.int32)
        self.saved_sections = np.empty((count + 1, SAVED, sections), np.int32)
        # Per decision on the path: buffer, its part, the address beyond which it goes next, what was pending then
        # and how many parts there were.
        self.level = np.empty((count + 1, 5), np.int64)
        # Per part on the path: sections, creating level (or -1), the part it was narrowed from (or -1), and the
        # next pending part. Keys are hashes of the state at creation.
        self.part = np.empty((2 * count + 2, 5), np.int64)
        self.keys = np.empty((2 * count + 2, 2), np.uint64)
        self.scratch = np.empty((2, count + 1), np.int64)


def search(
    shape: Shape, capacity: int, priority: Floats, space: Workspace, node_limit: int, step_limit: int, blame: Floats
) -> tuple[int, Ints, Ints]:
    """Search until a packing is found, all are excluded, or a limit is met. Deterministic.

    Parameters
    ----------
    shape
        The problem; its state and the order of its items change.
    capacity
        Height available, in the units of `shape`.
    priority
        Which of several buffers with equally low addresses to branch on first (highest wins).
    space
        Working memory, with the failed parts of earlier calls on the same problem.
    node_limit, step_limit
        Propagations, and buffers and sections looked at, before giving up.
    blame
        Per section, how often it was where a branch failed; added to.

    Returns
    -------
    (answer, offsets, tally)
        `FOUND`, `EXHAUSTED` or `LIMIT`; addresses when found; `NODES`, `REMEMBERED` and `STEPS` of this call.
    """
    tally = np.zeros(3, np.int64)
    answer = run(  # type: ignore[no-untyped-call]
        *shape, capacity, priority, space.memory, node_limit, step_limit, blame, tally, space.saved_buffers,
        space.saved_sections, space.level, space.part, space.keys, space.scratch,
    )  # fmt: skip
    return int(answer), shape.buffers[OFFSET, : shape.buffer_count].copy(), tally
