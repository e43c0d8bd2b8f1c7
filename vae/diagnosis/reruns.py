"""The failed run again with something changed, within a budget of updates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import RunError
from ..fitting.lr_range_test import RATES, STEPS
from ..fitting.result import OverfitResult, Record
from ..metrics.diagnosis import Control
from ..model.beta_vae import BetaVAE
from .changes import Change
from .failed_run import FailedRun

if TYPE_CHECKING:
    from typing_extensions import Self

TIMES = 4.5
"""All controls together make at most so many times the updates of the check itself, if that was not a short one. With
what is measured beside them, a check and its diagnosis stay below six checks."""
SHORT = 200
"""The budget of a shorter check is that of one of so many updates."""
LEAST = 40
"""Fewer updates say nothing: the default recipe needs some 20 to 60."""
OVERHEAD = 10
"""What a rerun costs beside its updates, in updates: initialisation, preflight, the last look."""
RESERVED = 2
"""Shares of the budget that are kept for the reruns on one grid, which come last and are cheap."""

Overfit = Callable[..., OverfitResult]
OnControl = Callable[[str, Record], None]
_log = logging.getLogger("vaefit")


def _key(changes: tuple[Change, ...]) -> tuple[str, ...]:
    return tuple(change.name for change in changes)


class _AsEvaluated(nn.Module):
    """A model that learns in the mode of evaluation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


@dataclass
class Reruns:
    """Runs changes, and remembers what came of them and what the budget did not reach."""

    patient: FailedRun
    overfit: Overfit
    planned: int
    """How many changes there may be; each has an equal share of the budget."""
    on_control: OnControl | None = None
    controls: list[Control] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        left = int(TIMES * max(self.patient.recipe.iterations, SHORT))
        self._share = max(LEAST, left // (max(self.planned, 1) + RESERVED))
        self._kept = RESERVED * self._share
        self._left = left - self._kept
        self._known: dict[tuple[str, ...], Control] = {}

    def known(self, *changes: Change) -> Control | None:
        """How the changes ran together; None where they have not."""
        return self._known.get(_key(changes))

    def run_last(self, *changes: Change) -> Control | None:
        """As `run`, with what was kept of the budget as well."""
        self._left, self._kept = self._left + self._kept, 0
        return self.run(*changes)

    def run_on(self, *changes: Change) -> Control | None:
        """Run changes, which a shorter rerun has shown to help, for as long as the run itself was."""
        shorter = self._known.pop(_key(changes), None)
        control = self.run(*changes, share=max(self._share, self.patient.recipe.iterations))
        if control is None and shorter is not None:
            self._known[_key(changes)] = shorter  # what it showed stays true
        return control

    def run(self, *changes: Change, share: int | None = None) -> Control | None:
        """Run the changes together, or remember how they ran; None where the budget is spent or they cannot run."""
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
        patient, name = self.patient, ", ".join(change.name for change in changes)
        knobs = {name: value for change in changes for name, value in change.knobs.items()}
        recipe = replace(patient.recipe, **knobs)
        overhead = OVERHEAD + (len(RATES) * STEPS if recipe.lr == "auto" else 0)
        limit = min(recipe.iterations, share, self._left)
        if limit < min(LEAST, recipe.iterations):
            return None
        patient.before.restore(patient.model)
        model: nn.Module = patient.model
        latent = next((change.latent_dim for change in changes if change.latent_dim is not None), None)
        if latent is not None:
            assert isinstance(model, BetaVAE)  # the only one whose latent can be made larger
            model = BetaVAE(model.num_classes, model.height, model.width, latent).to(patient.device)
            recipe = replace(recipe, init=recipe.init or "default")
        if any(change.as_evaluated for change in changes):
            model = _AsEvaluated(model)
        raised: list[Exception] = []

        def on_step(record: Record) -> None:
            try:
                if self.on_control is not None:
                    self.on_control(name, record)
            except Exception as error:  # the caller's own, not the model's: it goes on to the caller
                raised.append(error)
                raise

        try:
            result = self.overfit(
                model,
                next((change.batch for change in changes if change.batch is not None), patient.batch),
                classes=patient.adapter.classes,
                weights=next((change.weights for change in changes if change.weights is not None), patient.weights),
                recipe=replace(recipe, iterations=limit, stop_when="target"),
                ignore_index=patient.ignore_index,
                seed=patient.seed,
                backend=patient.backend,
                on_step=on_step,
            )
        except Exception as error:  # a model of one's own may raise anything; the run itself must not be lost by it
            if raised or (patient.adapter.ours and not isinstance(error, RunError)):
                raise
            _log.warning(f"the rerun with {name} could not be made: {error}")
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
