"""Reruns of the failed run with changes, within a budget of updates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import RunError
from ..fitting.lr_range_test import RATES, STEPS
from ..fitting.result import OverfitResult, Record
from ..metrics.diagnosis import Control
from ..model.beta_vae import BetaVAE
from .changes import Change
from .failed_run import FailedRun

TIMES = 4.5
"""Updates of all reruns together, in multiples of the check's updates. With the probes a check and its diagnosis then
take less time than six checks."""
SHORT = 200
"""A check with fewer updates has the budget of one with this number."""
LEAST = 40
"""Least updates of a rerun: the default recipe needs 20 to 60."""
OVERHEAD = 10
"""Cost of initialisation, preflight and final measurement of a rerun, in updates."""
RESERVED = 2
"""Shares of the budget for the reruns on one grid, which come last and are cheap."""

Overfit = Callable[..., OverfitResult]
OnControl = Callable[[str, Record], None]
_log = logging.getLogger("vaefit")


def _key(changes: tuple[Change, ...]) -> tuple[str, ...]:
    return tuple(change.name for change in changes)


class _AsEvaluated(nn.Module):
    """A model that stays in evaluation mode during training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


class Reruns:
    """Reruns with changes: their results, and the changes that the budget did not allow.

    `planned` is the largest number of changes. Each has an equal share of the budget.
    """

    def __init__(self, failed: FailedRun, overfit: Overfit, planned: int, on_control: OnControl | None) -> None:
        self.failed, self.overfit, self.on_control = failed, overfit, on_control
        self.controls: list[Control] = []
        self.skipped: list[str] = []
        left = int(TIMES * max(failed.recipe.iterations, SHORT))
        self._share = max(LEAST, left // (max(planned, 1) + RESERVED))
        self._reserved = RESERVED * self._share
        self._left = left - self._reserved
        self._known: dict[tuple[str, ...], Control] = {}

    def known(self, *changes: Change) -> Control | None:
        """Return the result of these changes together; None if they were not run."""
        return self._known.get(_key(changes))

    def run_last(self, *changes: Change) -> Control | None:
        """Run the changes with the reserved budget too."""
        self._left, self._reserved = self._left + self._reserved, 0
        return self.run(*changes)

    def run_on(self, *changes: Change) -> Control | None:
        """Run changes for as many updates as the failed run, after a shorter rerun has shown that they help."""
        shorter = self._known.pop(_key(changes), None)
        control = self.run(*changes, share=max(self._share, self.failed.recipe.iterations))
        if control is None and shorter is not None:
            self._known[_key(changes)] = shorter  # the shorter rerun stays valid
        return control

    def run(self, *changes: Change, share: int | None = None) -> Control | None:
        """Return the result of the changes together, cached; None if the budget is spent or they cannot run."""
        key = _key(changes)
        if key not in self._known:
            control = self._run(changes, share or self._share)
            if control is None:
                self.skipped.append(", ".join(key))
                return None
            self._known[key] = control
            self.controls.append(control)
        return self._known[key]

    def _run(self, changes: tuple[Change, ...], share: int) -> Control | None:
        failed, name = self.failed, ", ".join(_key(changes))
        settings = {name: value for change in changes for name, value in change.settings.items()}
        recipe = replace(failed.recipe, **settings)
        overhead = OVERHEAD + (len(RATES) * STEPS if recipe.lr == "auto" else 0)
        limit = min(recipe.iterations, share, self._left)
        if limit < min(LEAST, recipe.iterations):
            return None
        failed.before.restore(failed.model)
        model: nn.Module = failed.model
        latent = next((change.latent_dim for change in changes if change.latent_dim is not None), None)
        if latent is not None:
            assert isinstance(model, BetaVAE)  # the only model whose latent can be made larger
            with failed.device:  # whatever the caller's default is
                larger = BetaVAE(model.num_classes, model.height, model.width, latent)
            model = larger.to(model.mu.weight.dtype)
            recipe = replace(recipe, init=recipe.init or "default")
        if any(change.as_evaluated for change in changes):
            model = _AsEvaluated(model)
        raised: list[Exception] = []

        def on_step(record: Record) -> None:
            try:
                if self.on_control is not None:
                    self.on_control(name, record)
            except Exception as error:  # an error of the caller, not of the model, must reach the caller
                raised.append(error)
                raise

        try:
            result = self.overfit(
                model,
                next((change.batch for change in changes if change.batch is not None), failed.batch),
                classes=failed.adapter.classes,
                weights=next((change.weights for change in changes if change.weights is not None), failed.weights),
                recipe=replace(recipe, iterations=limit, stop_when="target"),
                ignore_index=failed.ignore_index,
                seed=failed.seed,
                backend=failed.backend,
                on_step=on_step,
            )
        except Exception as error:  # a user's model may raise anything; the failed run must keep its result
            if raised or (failed.adapter.ours and not isinstance(error, RunError)):
                raise
            _log.warning(f"the rerun with {name} failed: {error}")
            return None
        self._left -= result.iterations + overhead
        return Control(
            name=name,
            option=" ".join(change.option for change in changes),
            verdict=result.verdict,
            updates=result.iterations,
            worst_class=result.accuracies.worst,
            skill=result.skill,
            retrieval=result.retrieval,
        )
