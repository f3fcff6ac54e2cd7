"""A search environment: ask for an accelerator, plan on it, tell what came out.

The study is the environment; what proposes the next accelerator is an optimiser behind two methods, ``ask`` and
``tell``. One that draws at random is built in; :class:`~cosma.experiments.optuna_optimiser.OptunaOptimiser`
drives Optuna's samplers, and anyone's own needs no more than the two methods.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from cosma.errors import InfeasibleError, InputError
from cosma.units import align_up, parse_size

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.graph import Graph
    from cosma.plan import Plan

#: A point of the search space: a value for each searched field of the accelerator.
Params: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("a choice needs at least one value")


@dataclass(frozen=True, slots=True)
class SizeRange:
    """A size in bytes, both ends included."""

    #: Bytes, or text such as ``"64KiB"``.
    low: int
    high: int
    #: Sizes are ``low`` plus a multiple of it.
    step: int = 1
    #: Whether half of the range by ratio, not by bytes, is half of the proposals.
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            object.__setattr__(self, name, parse_size(getattr(self, name), f"range: {name}"))
        if not 0 < self.low <= self.high or self.step < 1:
            raise InputError(f"a range needs 0 < low <= high and a step, not {self.low}, {self.high}, {self.step}")

    def snap(self, size_bytes: float) -> int:
        """Return the nearest size of the range at or below, but not below ``low``."""
        steps = int((min(size_bytes, self.high) - self.low) // self.step)
        return self.low + max(0, steps) * self.step


#: What each searched field may be.
Space: TypeAlias = Mapping[str, Choice | SizeRange]


class Optimiser(Protocol):
    """What proposes points; all objectives are minimised."""

    def ask(self) -> Params:
        """Propose the next point."""
        ...

    def tell(self, params: Params, values: tuple[float, ...] | None) -> None:
        """Learn what a proposed point was worth; None where no plan exists there."""
        ...


class RandomOptimiser:
    """Proposes points at random, each field on its own; the same seed proposes the same points."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space = space
        self._random = random.Random(seed)

    def ask(self) -> Params:
        """Propose the next point."""
        return {name: self._draw(domain) for name, domain in self._space.items()}

    def tell(self, params: Params, values: tuple[float, ...] | None) -> None:
        """Take no notice: the next point is drawn regardless."""

    def _draw(self, domain: Choice | SizeRange) -> Any:
        if isinstance(domain, Choice):
            return self._random.choice(domain.values)
        if domain.log:
            return domain.snap(domain.low * (domain.high / domain.low) ** self._random.random())
        return domain.snap(self._random.uniform(domain.low, domain.high + domain.step))


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposed accelerator."""

    #: Counts the study's trials from 0.
    number: int
    #: As the optimiser proposed them.
    params: Params
    #: What they make.
    accelerator: Accelerator


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A trial and what came of it."""

    #: What was tried.
    trial: Trial
    #: None where the model does not fit.
    plan: Plan | None
    #: Objectives in the study's order, smaller is better; None without a plan.
    values: tuple[float, ...] | None
    #: Why there is no plan.
    reason: str | None = None


#: Objectives by name, each a function of the plan, all to be minimised.
OBJECTIVES: Final[dict[str, Callable[[Plan], float]]] = {
    "noncompulsory": lambda plan: plan.traffic.noncompulsory,
    "traffic": lambda plan: plan.traffic.total,
    "scratchpad": lambda plan: plan.accelerator.scratchpad,
    "peak": lambda plan: align_up(plan.peak_bytes, plan.accelerator.alignment),
    "gap": lambda plan: plan.certificate.gap,
}


class Study:
    """Searches accelerators for a model; usable step by step or as an iterator.

    Step by step: ``trial = study.ask()``, ``evaluation = study.evaluate(trial)``, ``study.tell(evaluation)``. As an
    iterator: ``for evaluation in study.run(40): ...``. Everything is reproducible where the optimiser is. Raises
    InputError if an objective or a field is unknown, or the scratchpad is neither searched nor given.

    Parameters
    ----------
    model
        A graph, or the path of an ONNX file or a graph in JSON.
    space
        Searched fields of the accelerator. An alignment applies to the scratchpad too: the capacity is rounded
        down to it, as the rest could never be used.
    objectives
        Names from :data:`OBJECTIVES`, or functions of a plan; all are minimised.
    optimiser
        What proposes points; by default at random with the study's seed.
    base
        Fields that are not searched, by name.
    strategy, effort, seed, dtype, dims
        As in :func:`cosma.compile`.
    """

    def __init__(
        self,
        model: Graph | Path | str,
        space: Space,
        *,
        objectives: Sequence[str | Callable[[Plan], float]] = ("noncompulsory", "scratchpad"),
        optimiser: Optimiser | None = None,
        base: Mapping[str, Any] | None = None,
        strategy: str = "auto",
        effort: float = 1.0,
        seed: int = 0,
        dtype: str | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> None:
        from cosma.compiler.request import read_model

        if not space or not objectives:
            raise InputError("a study needs at least one searched field and one objective")
        self.space = dict(space)
        self.objectives = tuple(_objective(objective) for objective in objectives)
        self.optimiser: Optimiser = optimiser if optimiser is not None else RandomOptimiser(space, seed)
        self._base = dict(base or {})
        self._check_fields()
        source = read_model(model, dims)
        self.model_name = source.name
        self._graph = source.graph if dtype is None else source.graph.with_dtype(dtype)
        self._strategy, self._effort, self._seed = strategy, effort, seed
        self._asked = 0
        self._known: dict[Accelerator, Evaluation] = {}
        self.evaluations: list[Evaluation] = []

    def ask(self) -> Trial:
        """Have the optimiser propose the next accelerator.

        Raises AcceleratorError if what it proposes is no accelerator.
        """
        params = self.optimiser.ask()
        trial = Trial(self._asked, params, self._accelerator(params))
        self._asked += 1
        return trial

    def evaluate(self, trial: Trial) -> Evaluation:
        """Plan on a trial's accelerator; an accelerator that was tried before is not planned on again."""
        known = self._known.get(trial.accelerator)
        if known is not None:
            return Evaluation(trial, known.plan, known.values, known.reason)
        from cosma.compiler import compile

        try:
            plan = compile(
                self._graph, trial.accelerator, strategy=self._strategy, effort=self._effort, seed=self._seed
            )
        except InfeasibleError as error:
            evaluation = Evaluation(trial, None, None, str(error))
        else:
            evaluation = Evaluation(trial, plan, tuple(float(objective(plan)) for objective in self.objectives))
        self._known[trial.accelerator] = evaluation
        return evaluation

    def tell(self, evaluation: Evaluation) -> None:
        """Pass an evaluation on to the optimiser and keep it."""
        self.evaluations.append(evaluation)
        self.optimiser.tell(evaluation.trial.params, evaluation.values)

    def run(self, trials: int) -> Iterator[Evaluation]:
        """Ask, evaluate and tell, ``trials`` times, yielding each evaluation as it is told."""
        for _ in range(trials):
            evaluation = self.evaluate(self.ask())
            self.tell(evaluation)
            yield evaluation

    def front(self) -> list[Evaluation]:
        """Evaluations that no other is as good as in every objective and better in one; equals once, by values."""
        valued = sorted((e for e in self.evaluations if e.values is not None), key=_values)
        kept: list[Evaluation] = []
        for candidate in valued:
            mine = _values(candidate)
            # Sorted by values: whatever dominates a candidate, or equals it, comes before it.
            if not any(all(a <= b for a, b in zip(_values(other), mine, strict=True)) for other in kept):
                kept.append(candidate)
        return kept

    def _accelerator(self, params: Params) -> Accelerator:
        from cosma.accelerator import Accelerator

        accelerator = Accelerator(**{**self._base, **params})
        usable = accelerator.scratchpad // accelerator.alignment * accelerator.alignment
        return accelerator.replace(scratchpad=usable) if usable else accelerator

    def _check_fields(self) -> None:
        from dataclasses import fields

        from cosma.accelerator import Accelerator

        known = {field.name for field in fields(Accelerator)}
        for name in (*self.space, *self._base):
            if name not in known:
                raise InputError(f"an accelerator has no field {name!r}; known are {', '.join(sorted(known))}")
        if "scratchpad" not in self.space and "scratchpad" not in self._base:
            raise InputError("scratchpad is neither searched nor given; there is no default capacity")


def _objective(objective: str | Callable[[Plan], float]) -> Callable[[Plan], float]:
    if callable(objective):
        return objective
    if objective not in OBJECTIVES:
        raise InputError(f"objective {objective!r} is unknown; choose from {', '.join(OBJECTIVES)} or give a function")
    return OBJECTIVES[objective]


def _values(evaluation: Evaluation) -> tuple[float, ...]:
    assert evaluation.values is not None
    return evaluation.values
