"""ExFlow's integer program (arXiv 2401.08383), faithful but for what does not change its optimum, and its bipartition.

Binary ``x[e, c]`` says that expert e (of some layer) goes to part c; each expert goes to one part, each part takes the
same number of a layer's experts. ExFlow has one binary per token and step that is 1 where the step leaves its part.
Steps with the same pair of experts share their two constraints word for word, so one binary per *distinct* pair,
weighted by how often it occurs, has the same optimum and the same relaxation.

The released solver splits into nodes and then each node into devices, or halves repeatedly (``bipartition``), and
feeds a growing prefix of the trace, each solution starting the next solve. Its released bipartition compares parts at
a capacity that is halved once per level *after* use and numbers parts two by two; the same here. Splits see only the
experts of their own part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError, SolverUnavailableError
from cosma.solvers import Profile, Status, solve
from cosma.solvers.model import Model, ModelBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology


@dataclass(frozen=True, slots=True, eq=False)
class SplitResult:
    """Outcome of one integer program: part of every expert, steps that leave their part, a bound on them."""

    part: NDArray[np.int64]
    crossings: int
    bound: float
    optimal: bool


@dataclass(frozen=True, slots=True, eq=False)
class ExflowResult:
    """A placement by ExFlow's scheme."""

    #: ``[layers, experts]``.
    devices: NDArray[np.int64]
    #: The outermost program; its bound is on crossings between its parts only.
    first_split: SplitResult
    #: Process time spent, a measurement and never part of a placement file.
    cpu_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """ExFlow's program for one split, and what its variables mean."""

    #: The program; its objective counts steps that leave their part.
    model: Model
    #: ``(layer, expert, part)`` of each of the first variables.
    experts: tuple[tuple[int, int, int], ...]
    #: ``(layer, expert, next expert)`` of each of the variables after those.
    steps: tuple[tuple[int, int, int], ...]

    def assignment(self, part: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the values of all variables for parts ``[layers, experts]``."""
        chosen = [int(part[layer, e] == c) for layer, e, c in self.experts]
        leaves = [int(part[layer, i] != part[layer + 1, j]) for layer, i, j in self.steps]
        return np.array(chosen + leaves, dtype=np.int64)


def build_split(
    steps: Iterable[tuple[int, int, int, int]], members: Sequence[NDArray[np.integer]], parts: int, per_part: int
) -> Split:
    """Build ExFlow's program; raises InputError if a layer's experts do not fill the parts exactly.

    Parameters
    ----------
    steps
        ``(layer, expert, expert of the next layer, weight)``. Weighted distinct pairs give the aggregated program; one
        entry of weight 1 per token and step gives the original.
    members
        Per layer, the experts to split; steps of other experts are left out, as ExFlow does.
    parts, per_part
        Number of parts, and how many of a layer's experts each takes.
    """
    for layer, experts in enumerate(members):
        if len(experts) != parts * per_part:
            raise InputError(
                f"exflow: layer {layer} has {len(experts)} experts to split into {parts} parts of {per_part}; "
                "ExFlow's program needs equal parts"
            )
    builder = ModelBuilder("exflow")
    x = {
        (layer, int(e), c): builder.variable("expert on part")
        for layer, experts in enumerate(members)
        for e in experts
        for c in range(parts)
    }
    for layer, experts in enumerate(members):
        for e in experts:
            columns = [x[layer, int(e), c] for c in range(parts)]
            builder.row("one part per expert", columns, [1] * parts, lower=1, upper=1)
        for c in range(parts):
            columns = [x[layer, int(e), c] for e in experts]
            builder.row("equal parts", columns, [1] * len(columns), lower=per_part, upper=per_part)
    kept = []
    for layer, i, j, weight in steps:
        if (layer, i, 0) not in x or (layer + 1, j, 0) not in x:
            continue
        leaves = builder.variable("step leaves its part")
        builder.cost(leaves, weight)
        kept.append((layer, i, j))
        for c in range(parts):
            here, there = x[layer, i, c], x[layer + 1, j, c]
            builder.row("leaving forwards", (leaves, here, there), (1, -1, 1), lower=0)
            builder.row("leaving backwards", (leaves, here, there), (1, 1, -1), lower=0)
    return Split(builder.build(), tuple(x), tuple(kept))


def weighted_steps(transitions: NDArray[np.integer]) -> list[tuple[int, int, int, int]]:
    """Return every distinct step with how often it occurs."""
    return [(int(layer), int(i), int(j), int(transitions[layer, i, j])) for layer, i, j in np.argwhere(transitions > 0)]


def solve_split(
    transitions: NDArray[np.integer],
    members: Sequence[NDArray[np.integer]],
    parts: int,
    *,
    per_part: int,
    profile: Profile,
    work: float = 30.0,
    start: NDArray[np.integer] | None = None,
) -> SplitResult:
    """Solve the aggregated program for the given experts of every layer.

    ``start`` is a part per expert to begin from, as the released solver warm-starts; without it experts in order are
    one, so that there is always an answer. ``work`` is the back end's own unit (deterministic seconds of CP-SAT,
    nodes of the others).
    """
    split = build_split(weighted_steps(transitions), members, parts, per_part)
    if start is None:
        start = np.full((len(members), transitions.shape[1]), -1, dtype=np.int64)
        for layer, experts in enumerate(members):
            start[layer, experts] = np.arange(len(experts)) // per_part
    result = solve(split.model, profile, warm_start=split.assignment(start), work_limit=work)
    part = np.full((len(members), transitions.shape[1]), -1, dtype=np.int64)
    if result.values is None:
        raise SolverUnavailableError(f"exflow: {profile.back_end} gave no answer: {result.message or result.status}")
    for (layer, e, c), value in zip(split.experts, result.values[: len(split.experts)].tolist(), strict=True):
        if value:
            part[layer, e] = c
    return SplitResult(part, crossings(transitions, part), float(result.bound or 0), result.status is Status.OPTIMAL)


def crossings(transitions: NDArray[np.integer], part: NDArray[np.integer]) -> int:
    """Count the steps between experts of different parts; experts of no part (-1) do not count."""
    total = 0
    for layer in range(transitions.shape[0]):
        now, then = part[layer][:, None], part[layer + 1][None, :]
        total += int(transitions[layer][(now != then) & (now >= 0) & (then >= 0)].sum())
    return total


def one_shot(
    affinity: Affinity, topology: Topology, *, work: float = 30.0, seed: int = 0, profile: Profile | None = None
) -> ExflowResult:
    """Split into nodes, then each node into its devices: ExFlow without bipartition."""
    nodes, per_node = _equal(affinity, topology)
    plan = [(nodes, affinity.experts // nodes)] if nodes > 1 else []
    plan += [(per_node, affinity.experts // (nodes * per_node))] if per_node > 1 else []
    return _by_levels([affinity.transitions], affinity, plan, work, profile or _profile(seed))


def bipartition(
    affinity: Affinity,
    topology: Topology,
    *,
    batches: Sequence[NDArray[np.integer]] | None = None,
    work: float = 30.0,
    seed: int = 0,
    profile: Profile | None = None,
) -> ExflowResult:
    """Halve repeatedly; ``batches`` are the growing prefixes of the trace as counts, the last one all of it.

    Raises InputError if the number of devices is not a power of two, or shares are unequal.
    """
    _equal(affinity, topology)
    devices = topology.devices
    if devices & (devices - 1):
        raise InputError(
            f"exflow: bipartition needs a power of two of devices, not {devices}; use its one-shot program"
        )
    levels = devices.bit_length() - 1
    plan = [(2, affinity.experts >> (level + 1)) for level in range(levels)]
    return _by_levels(batches or [affinity.transitions], affinity, plan, work, profile or _profile(seed))


def incremental_counts(tokens: NDArray[np.integer], experts: int, batch: int = 5000) -> list[NDArray[np.int64]]:
    """Return the counts of growing prefixes of a trace, ``batch`` tokens more each, as the released solver does."""
    from cosma.placement.affinity import Affinity

    ends = [*range(batch, tokens.shape[0], batch), tokens.shape[0]]
    return [Affinity.from_tokens(tokens[:end], experts).transitions for end in ends]


def _by_levels(
    batches: Sequence[NDArray[np.integer]],
    affinity: Affinity,
    plan: list[tuple[int, int]],
    work: float,
    profile: Profile,
) -> ExflowResult:
    begin = time.process_time()
    homes = np.zeros((affinity.layers, affinity.experts), dtype=np.int64)
    programs = sum(int(np.prod([parts for parts, _ in plan[:level]])) for level in range(len(plan)))
    share = work / max(1, programs * len(batches))
    first: SplitResult | None = None
    for parts, per_part in plan:
        finer = homes.copy()
        for group in range(int(homes.max()) + 1):
            members = [np.flatnonzero(homes[layer] == group) for layer in range(affinity.layers)]
            found: SplitResult | None = None
            for counts in batches:
                found = solve_split(
                    counts, members, parts, per_part=per_part, profile=profile, work=share,
                    start=None if found is None else found.part,
                )  # fmt: skip
            assert found is not None
            first = first or found
            inside = homes == group
            finer[inside] = group * parts + found.part[inside]
        homes = finer
    if first is None:
        first = SplitResult(homes.copy(), 0, 0.0, True)
    return ExflowResult(homes, first, time.process_time() - begin)


def _profile(seed: int) -> Profile:
    return Profile(name="exflow", back_end="cp-sat", threads=1, seed=seed)


def _equal(affinity: Affinity, topology: Topology) -> tuple[int, int]:
    if not topology.is_equal(affinity.experts):
        raise InputError(
            f"exflow: {affinity.experts} experts on {topology.devices} devices are not equal shares of equal nodes, "
            "which its program needs; use the strategy search"
        )
    return topology.devices // topology.devices_per_node, topology.devices_per_node
