"""Signals of an overfit run as text: name, value and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from .overfit_summary import RunSummary

BEST_PICTURE, BEST_CLASS = "what the best single picture would score", "what one class everywhere would score"


@dataclass(frozen=True)
class Reading:
    """One signal of a finished run."""

    key: str
    """Name of the value in `result.json`."""
    name: str
    value: float | int | None
    text: str
    """The printed value."""
    meaning: str = ""


def readings(run: RunSummary) -> tuple[Reading, ...]:
    """Return every signal in the order of the tables."""
    return (
        share("pixel_accuracy", "pixel accuracy", run.pixel_accuracy, "cells whose class is right"),
        share("majority_share", "majority share", run.majority_share, BEST_CLASS),
        share("background_share", "background share", run.background_share, BEST_PICTURE),
        share("skill", "skill", run.skill, "share of the way from there to perfect"),
        share("macro_accuracy", "macro accuracy", run.macro_accuracy, "mean over the classes in the batch"),
        share("worst_class_accuracy", "worst class", run.worst_class_accuracy, f"class {run.worst_class}"),
        share("retrieval", "retrieval", run.retrieval, "reconstructions nearest to their own target"),
        Reading(
            "distinct_pictures",
            "distinct pictures",
            run.distinct_pictures,
            str(run.distinct_pictures),
            f"of {len(run.setup.batch.indices)} reconstructions",
        ),
        _step("pixel_95", "95 % pixel accuracy", run.reached.pixel_95),
        _step("worst_class_95", "95 % in every class", run.reached.worst_class_95),
        _step("exact", "every cell right", run.reached.exact),
    )


def optional(value: float | None) -> str:
    """Return a share with four digits, or `none`."""
    return "none" if value is None else f"{value:.4f}"


def share(key: str, name: str, value: float | None, meaning: str) -> Reading:
    """Return the signal of a share."""
    return Reading(key, name, value, optional(value), meaning)


def _step(key: str, name: str, step: int | None) -> Reading:
    return Reading(f"reached.{key}", name, step, "never" if step is None else f"step {step}")
