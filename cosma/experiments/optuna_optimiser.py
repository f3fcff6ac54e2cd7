"""Optuna as the optimiser of a study."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cosma.errors import SolverUnavailableError
from cosma.experiments.study import Choice, Params, Space


class OptunaOptimiser:
    """Proposes what an Optuna sampler proposes; raises SolverUnavailableError if Optuna is not installed.

    Parameters
    ----------
    objectives
        How many there are; all are minimised.
    sampler
        An Optuna sampler; by default NSGA-II for several objectives and TPE for one, with the seed.
    """

    def __init__(self, space: Space, objectives: int = 2, *, sampler: Any = None, seed: int = 0) -> None:
        try:
            optuna: Any = import_module("optuna")
        except ImportError as error:
            raise SolverUnavailableError("this optimiser needs Optuna: pip install 'cosma[study]'") from error
        if sampler is None:
            kind = optuna.samplers.NSGAIISampler if objectives > 1 else optuna.samplers.TPESampler
            sampler = kind(seed=seed)
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study: Any = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        optuna.logging.set_verbosity(level)
        self._failed = optuna.trial.TrialState.FAIL
        self._domains = {name: self._distribution(optuna, domain) for name, domain in space.items()}
        self._open: list[tuple[Params, Any]] = []

    def ask(self) -> Params:
        """Propose the next point."""
        trial = self.study.ask(self._domains)
        params = dict(trial.params)
        self._open.append((params, trial))
        return params

    def tell(self, params: Params, values: tuple[float, ...] | None) -> None:
        """Pass a value on; points may be told in any order."""
        for i, (asked, trial) in enumerate(self._open):
            if asked == params:
                del self._open[i]
                if values is None:
                    self.study.tell(trial, state=self._failed)
                else:
                    self.study.tell(trial, list(values))
                return
        raise ValueError(f"{params} was not asked for, or has been told already")

    @staticmethod
    def _distribution(optuna: Any, domain: Any) -> Any:
        if isinstance(domain, Choice):
            return optuna.distributions.CategoricalDistribution(list(domain.values))
        # Optuna has no steps on a logarithmic scale.
        step = 1 if domain.log else domain.step
        high = domain.high if domain.log else domain.snap(domain.high)
        return optuna.distributions.IntDistribution(domain.low, high, log=domain.log, step=step)
