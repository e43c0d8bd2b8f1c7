"""What a training run has come to, as people read it: its signals, and what to think of them."""

from __future__ import annotations

from .overfit_signals import Reading, optional
from .training_summary import TrainSummary

AFTER_DIVERGENCE = "lower --lr, or set --clip 1"
"""What to do next."""


def headline(run: TrainSummary) -> tuple[Reading, ...]:
    """The signals that stand first."""
    return (
        _share("macro_accuracy", "macro accuracy", run.macro_accuracy, "mean over the classes"),
        _share("worst_class_accuracy", "worst class", run.worst_class_accuracy, f"class {run.worst_class}"),
        _share("pixel_accuracy", "pixel accuracy", run.pixel_accuracy, "cells whose class is right"),
        _share("skill", "skill", run.skill, "from the background share to perfect"),
    )


def training_readings(run: TrainSummary) -> tuple[Reading, ...]:
    """The other signals, in the order in which they are read; those that the model has not are left out."""
    found = [
        _share(
            "background_share", "background share", run.background_share, "what the best single picture would score"
        ),
        _share("majority_share", "majority share", run.majority_share, "what one class everywhere would score"),
        _loss("loss", "loss", run.loss, "the objective"),
        _loss("focal", "focal loss", run.focal, "its first part"),
        _loss("kl", "KL", run.kl, "nats a grid"),
        Reading(
            "active_dimensions",
            "active dimensions",
            run.active_dimensions,
            str(run.active_dimensions),
            f"of {len(run.kl_dimensions or ())} latent ones",
        ),
    ]
    return tuple(reading for reading in found if reading.value is not None)


def pixel_meaning(run: TrainSummary) -> str:
    """What the pixel accuracy says, held against the best answer that ignores the input."""
    pixel, share = f"{run.pixel_accuracy:.4f}", f"{run.background_share:.4f}"
    if run.skill is None:
        return "One picture for every grid gets every cell right: pixel accuracy says nothing about this model."
    if run.pixel_accuracy < run.background_share:
        return (
            f"Pixel accuracy, {pixel}, is below the background share, {share}: one picture for every grid, whatever "
            f"the input, would get more cells right."
        )
    return (
        f"Pixel accuracy, {pixel}, is to be held against the background share, {share}: that much one picture for "
        f"every grid would get, whatever the input. The model went {100 * run.skill:.1f} % of the way from there to "
        f"perfect."
    )


LEARNED = 2.0
"""Times the macro accuracy of one class everywhere, below which nothing was bought with pixel accuracy."""


def recall_trade(run: TrainSummary) -> str | None:
    """Why weights push pixel accuracy below the background share; None where they do not, or recall is low as well."""
    ratio, held = run.setup.weights.ratio, sum(accuracy is not None for accuracy in run.class_accuracy)
    bought = run.macro_accuracy * held >= LEARNED
    if ratio is None or ratio <= 1 or not bought or run.pixel_accuracy >= run.background_share:
        return None
    return (
        f"class weights of {ratio:.1f} to 1 trade pixel accuracy for the recall of rare classes: "
        f"pixel {run.pixel_accuracy:.4f} is below the {run.background_share:.4f} of the best answer that ignores "
        f"the input. `--weights none` shows the other side, and `--recipe soft` lies between the two."
    )


def _share(key: str, name: str, value: float | None, meaning: str) -> Reading:
    return Reading(key, name, value, optional(value), meaning)


def _loss(key: str, name: str, value: float | None, meaning: str) -> Reading:
    return Reading(key, name, value, "none" if value is None else f"{value:.4g}", meaning)
