"""Signals of a training run as text, and sentences that interpret them."""

from __future__ import annotations

from .overfit_signals import BEST_CLASS, BEST_PICTURE, Reading, share
from .training_summary import TrainSummary

AFTER_DIVERGENCE = "lower --lr, or set --clip 1"
"""Advice for the next run."""


def headline(run: TrainSummary) -> tuple[Reading, ...]:
    """Return the signals at the head of the page."""
    return (
        share("macro_accuracy", "macro accuracy", run.macro_accuracy, "mean over the classes"),
        share("worst_class_accuracy", "worst class", run.worst_class_accuracy, f"class {run.worst_class}"),
        share("pixel_accuracy", "pixel accuracy", run.pixel_accuracy, "cells whose class is right"),
        share("skill", "skill", run.skill, "from the background share to perfect"),
    )


def training_readings(run: TrainSummary) -> tuple[Reading, ...]:
    """Return the other signals in the order of the tables; signals that the model lacks are left out."""
    found = [
        share("background_share", "background share", run.background_share, BEST_PICTURE),
        share("majority_share", "majority share", run.majority_share, BEST_CLASS),
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


LEARNED = 2.0
"""Smallest macro accuracy, in units of that of one class everywhere, at which recall of rare classes was gained."""


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


def _loss(key: str, name: str, value: float | None, meaning: str) -> Reading:
    return Reading(key, name, value, "none" if value is None else f"{value:.4g}", meaning)
