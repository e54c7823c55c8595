"""What a sampler proposes, and when a trial that promises nothing is stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from ablations.plan import Objective, Plan
from ablations.trials import Trial
from ablations.tuning import Dimension


def sampler(plan: Plan, trial: Trial) -> BaseSampler:
    """The plan's sampler. Its random numbers are the trial's own, so that workers do not propose the same."""
    kinds: Mapping[str, type[TPESampler] | type[NSGAIISampler] | type[RandomSampler]] = {
        "tpe": TPESampler,
        "nsga2": NSGAIISampler,
        "random": RandomSampler,
    }
    if plan.sampler == "nsga2":
        return NSGAIISampler(seed=trial.number, population_size=max(4, min(20, plan.trials // 4)))
    return kinds[plan.sampler](seed=trial.number)


def pruner(plan: Plan) -> BasePruner:
    """The plan's pruner: `median` stops what, after the first validation, is worse than the median of others."""
    return MedianPruner(n_startup_trials=4, n_warmup_steps=1) if plan.pruner == "median" else NopPruner()


def suggest(trial: optuna.trial.Trial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """A value for each key of the space."""
    return {key: _suggest(trial, key, dimension) for key, dimension in space.items()}


def _suggest(trial: optuna.trial.Trial, key: str, dimension: Dimension) -> Any:
    if dimension.choices:
        return trial.suggest_categorical(key, dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.int:
        return trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)


class Pruning(Callback):
    """Reports each validation, and ends the run where the pruner says so.

    optuna-integration's callback raises, which the run would record as a failure; this one lets the run end early and
    properly, with its scores and checkpoints.

    Attributes:
        pruned: whether it has ended the run.
    """

    def __init__(self, trial: optuna.trial.Trial, select: Objective) -> None:
        self._trial, self._select = trial, select
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the score, at the number of validations so far."""
        score = trainer.callback_metrics.get(self._select.metric)
        if trainer.state.fn != "fit" or score is None:
            return
        self._trial.report(float(score), trainer.current_epoch)
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs > 0
        if not last and not self.pruned and self._trial.should_prune():
            self.pruned = trainer.should_stop = True
