"""The rules of the verdict at their edges, and that all but one come with advice."""

from __future__ import annotations

import numpy as np
import pytest

from vaefit.vae.metrics.accuracy import Accuracies
from vaefit.vae.metrics.verdict import Evidence, judge
from vaefit.vae.recipe import Recipe


def _evidence(
    pixel: float = 0.97,
    worst: float = 0.96,
    skill: float | None = 0.8,
    retrieval: float | None = 0.9,
    variation: float | None = 1.0,
    own_inputs: bool = False,
    predicted: tuple[int, ...] = (900, 100),
    held: tuple[int, ...] = (500, 500),
    diverged: str | None = None,
) -> Evidence:
    accuracies = Accuracies(pixel, (pixel, worst), (pixel + worst) / 2, worst, 1, np.array(predicted), np.array(held))
    return Evidence(accuracies, skill, retrieval, variation, own_inputs, diverged=diverged)


ONE_PICTURE = {"skill": None, "variation": None, "worst": 0.0, "predicted": (990, 10)}
"""One picture answers every grid: the measures of the output's dependence on the input are not defined."""


@pytest.mark.parametrize(
    ("change", "verdict", "missing"),
    [
        ({}, "MEMORISED", ""),
        ({"worst": 0.95}, "MEMORISED", ""),
        ({"worst": 0.949}, "LEARNING", "class 1 is at 0.949"),
        ({"pixel": 0.95}, "LEARNING", "pixel accuracy is 0.950"),
        ({"skill": 0.75}, "MEMORISED", ""),
        ({"skill": 0.74}, "LEARNING", "skill is 0.740"),
        ({"retrieval": 0.75}, "MEMORISED", ""),
        ({"retrieval": 0.74}, "LEARNING", "retrieval is 0.740"),
        ({"retrieval": None}, "MEMORISED", ""),
        ({"skill": None}, "LEARNING", "every cell must be right"),
        ({"skill": None, "pixel": 1.0, "worst": 1.0}, "MEMORISED", ""),
        ({"diverged": "the loss is nan after 3 updates"}, "DIVERGED", "nan"),
        ({"skill": None, "own_inputs": True, "worst": 0.99}, "MEMORISED", ""),
        ({"skill": None, "own_inputs": True, "worst": 0.989}, "LEARNING", "every class must be at 0.99"),
        (
            {"skill": 0.05, "variation": 0.1, "worst": 0.0},
            "COLLAPSED",
            "one picture for all inputs: skill 0.050, variation 0.100",
        ),
        ({"skill": 0.051, "variation": 0.0, "worst": 0.0}, "LEARNING", ""),
        ({"skill": 0.0, "variation": 0.101, "retrieval": 0.0, "worst": 0.0}, "LEARNING", ""),
        ({"skill": 0.0, "variation": 0.0, "retrieval": 0.9, "worst": 0.0}, "COLLAPSED", ""),
        (ONE_PICTURE, "COLLAPSED", "class 0 for nearly every cell: skill none"),
        (ONE_PICTURE | {"held": (990, 10)}, "LEARNING", ""),
        (ONE_PICTURE | {"held": (989, 11)}, "COLLAPSED", ""),
        (ONE_PICTURE | {"predicted": (989, 11)}, "LEARNING", ""),
    ],
)
def test_the_rules_at_their_edges(change: dict[str, object], verdict: str, missing: str) -> None:
    found = judge(_evidence(**change), Recipe())  # type: ignore[arg-type]
    assert found.verdict == verdict
    assert found.passed == (verdict == "MEMORISED")
    assert missing in found.reason
    assert bool(found.next) == (verdict != "MEMORISED")


@pytest.mark.parametrize(("predicted", "collapsed"), [((990, 10), 0), ((10, 990), 1), ((989, 11), None)])
def test_a_collapse_names_the_class_that_covers_99_percent(predicted: tuple[int, int], collapsed: int | None) -> None:
    found = judge(_evidence(worst=0.0, skill=0.0, variation=0.0, predicted=predicted), Recipe())
    assert found.verdict == "COLLAPSED"
    assert found.collapsed_class == collapsed


def test_the_target_moves_the_bar_for_the_worst_class() -> None:
    assert judge(_evidence(worst=0.9), Recipe(target=0.9)).passed
    assert not judge(_evidence(worst=0.96), Recipe(target=0.99)).passed
