"""The signals of a run as people read them: name, value and what it means."""

from __future__ import annotations

from dataclasses import dataclass

from .overfit_summary import RunSummary


@dataclass(frozen=True)
class Reading:
    """One signal of a finished run."""

    key: str
    """Its name in `result.json`."""
    name: str
    value: float | int | None
    text: str
    """The value as it is printed."""
    meaning: str = ""


def readings(run: RunSummary) -> tuple[Reading, ...]:
    """Every signal, in the order in which they are read."""
    return (
        _share("pixel_accuracy", "pixel accuracy", run.pixel_accuracy, "cells whose class is right"),
        _share("majority_share", "majority share", run.majority_share, "what one class everywhere would score"),
        _share(
            "background_share", "background share", run.background_share, "what the best single picture would score"
        ),
        _share("skill", "skill", run.skill, "share of the way from there to perfect"),
        _share("macro_accuracy", "macro accuracy", run.macro_accuracy, "mean over the classes in the batch"),
        _share("worst_class_accuracy", "worst class", run.worst_class_accuracy, f"class {run.worst_class}"),
        _share("retrieval", "retrieval", run.retrieval, "reconstructions nearest to their own target"),
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
    """A share with four digits, `none` where there is none."""
    return "none" if value is None else f"{value:.4f}"


def _share(key: str, name: str, value: float | None, meaning: str) -> Reading:
    return Reading(key, name, value, optional(value), meaning)


def _step(key: str, name: str, step: int | None) -> Reading:
    return Reading(f"reached.{key}", name, step, "never" if step is None else f"step {step}")
