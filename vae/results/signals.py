"""Signals of a run as text, and sentences that interpret them."""

from __future__ import annotations

from dataclasses import dataclass

from .metrics import Metrics
from .overfit_summary import RunSummary
from .training_summary import TrainSummary

AFTER_DIVERGENCE = "lower --lr, or set --clip 1"
"""Advice for the next training run."""
LEARNED = 2.0
"""Smallest macro accuracy, in units of that of one class everywhere, at which recall of rare classes was gained."""
BEST_PICTURE, BEST_CLASS = "what the best single picture would score", "what one class everywhere would score"
_NAMES = {"worst_class_accuracy": "worst class", "focal": "focal loss", "kl": "KL"}
"""Names that differ from the key."""


@dataclass(frozen=True)
class Reading:
    """A signal of a finished run."""

    key: str
    """Name of the value in `result.json`."""
    name: str
    value: float | int | None
    text: str
    """The printed value."""
    meaning: str = ""


def readings(run: RunSummary) -> tuple[Reading, ...]:
    """Return every signal of an overfit run in the order of the tables."""
    return (
        _reading(run, "pixel_accuracy", "cells whose class is right"),
        _reading(run, "majority_share", BEST_CLASS),
        _reading(run, "background_share", BEST_PICTURE),
        _reading(run, "skill", "share of the way from there to perfect"),
        _reading(run, "macro_accuracy", "mean over the classes in the batch"),
        _reading(run, "worst_class_accuracy", f"class {run.worst_class}"),
        _reading(run, "retrieval", "reconstructions nearest to their own target"),
        _reading(run, "variation", "how much reconstructions differ; targets have 1"),
        _reading(run, "distinct_pictures", f"of {len(run.setup.batch.indices)} reconstructions", "d"),
        _step("pixel_95", "95 % pixel accuracy", run.reached.pixel_95),
        _step("worst_class_95", "95 % in every class", run.reached.worst_class_95),
        _step("exact", "every cell right", run.reached.exact),
    )


def headline(run: TrainSummary) -> tuple[Reading, ...]:
    """Return the signals at the head of the page of a training run."""
    return (
        _reading(run, "macro_accuracy", "mean over the classes"),
        _reading(run, "worst_class_accuracy", f"class {run.worst_class}"),
        _reading(run, "pixel_accuracy", "cells whose class is right"),
        _reading(run, "skill", "from the background share to perfect"),
    )


def training_readings(run: TrainSummary) -> tuple[Reading, ...]:
    """Return the other signals of training in the order of the tables; signals that the model lacks are left out."""
    found = (
        _reading(run, "background_share", BEST_PICTURE),
        _reading(run, "majority_share", BEST_CLASS),
        _reading(run, "loss", "the objective", ".4g"),
        _reading(run, "focal", "its first part", ".4g"),
        _reading(run, "kl", "nats a grid", ".4g"),
        _reading(run, "active_dimensions", f"of {len(run.kl_dimensions or ())} latent ones", "d"),
    )
    return tuple(reading for reading in found if reading.value is not None)


def optional(value: float | None, form: str = ".4f") -> str:
    """Return a number in the format, or `none`."""
    return "none" if value is None else format(value, form)


def _reading(run: Metrics, key: str, meaning: str, form: str = ".4f") -> Reading:
    value = getattr(run, key)
    return Reading(key, _NAMES.get(key, key.replace("_", " ")), value, optional(value, form), meaning)


def _step(key: str, name: str, step: int | None) -> Reading:
    return Reading(f"reached.{key}", name, step, "never" if step is None else f"step {step}")


def pixel_meaning(run: TrainSummary) -> str:
    """Compare the pixel accuracy with the best answer that ignores the input, in a sentence."""
    pixel, background = f"{run.pixel_accuracy:.4f}", f"{run.background_share:.4f}"
    if run.skill is None:
        return "One picture for every grid gets every cell right: pixel accuracy says nothing about this model."
    if run.pixel_accuracy < run.background_share:
        return (
            f"Pixel accuracy, {pixel}, is below the background share, {background}: one picture for every grid, "
            f"whatever the input, would get more cells right."
        )
    return (
        f"Pixel accuracy, {pixel}, is to be held against the background share, {background}: that much one picture for "
        f"every grid would get, whatever the input. The model went {100 * run.skill:.1f} % of the way from there to "
        f"perfect."
    )


def recall_trade(run: TrainSummary) -> str | None:
    """Explain a pixel accuracy below the background share by the class weights; None where they are not the reason."""
    ratio, present = run.setup.weights.ratio, sum(accuracy is not None for accuracy in run.class_accuracy)
    gained = run.macro_accuracy * present >= LEARNED
    if ratio is None or ratio <= 1 or not gained or run.pixel_accuracy >= run.background_share:
        return None
    return (
        f"class weights of {ratio:.1f} to 1 trade pixel accuracy for the recall of rare classes: "
        f"pixel {run.pixel_accuracy:.4f} is below the {run.background_share:.4f} of the best answer that ignores "
        f"the input. `--weights none` shows the other side, and `--recipe soft` lies between the two."
    )
