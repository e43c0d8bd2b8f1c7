"""Verdict on a run: MEMORISED, LEARNING, COLLAPSED or DIVERGED, with its reason and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..recipe import Recipe
from .accuracy import Accuracies
from .advice import NO_CONTEXT, AdviceContext, after_divergence, after_failure

Verdict = Literal["MEMORISED", "LEARNING", "COLLAPSED", "DIVERGED"]

PIXEL_ABOVE = 0.95
SKILL_AT_LEAST = 0.75
RETRIEVAL_AT_LEAST = 0.75
COLLAPSE_SKILL = 0.05
COLLAPSE_RETRIEVAL = 1 / 8
ONE_CLASS = 0.99


@dataclass(frozen=True)
class Evidence:
    """Measurements that decide the verdict: those of the fixed batch with z = mu, at the end of the run."""

    accuracies: Accuracies
    skill: float | None
    retrieval: float | None
    batch_size: int
    diverged: str | None = None
    """Names the value that is not finite, and its step; None if all values are finite."""
    context: AdviceContext = NO_CONTEXT
    """Further measurements for the advice; they do not change the verdict."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, its reason in one sentence, and the next step (empty for MEMORISED)."""

    verdict: Verdict
    reason: str
    next: str
    collapsed_class: int | None = None

    @property
    def passed(self) -> bool:
        """True for the verdict MEMORISED."""
        return self.verdict == "MEMORISED"


def judge(evidence: Evidence, recipe: Recipe) -> Judgement:
    """Return the verdict by the first rule that applies: DIVERGED, MEMORISED, COLLAPSED, LEARNING.

    Pixel accuracy alone decides nothing: if 93 % of the cells are background, an all-background model scores 93 %.
    """
    if evidence.diverged is not None:
        return Judgement("DIVERGED", evidence.diverged, after_divergence(recipe))
    missing = _missing(evidence, recipe.target)
    numbers = f"skill {three_decimals(evidence.skill)}, retrieval {three_decimals(evidence.retrieval)}"
    if not missing:
        a = evidence.accuracies
        found = "every cell is right" if a.exact else f"worst class {a.worst:.3f}, pixel accuracy {a.pixel:.3f}"
        return Judgement("MEMORISED", f"{found}; {numbers}", "")
    if _collapsed(evidence):
        one = _one_class(evidence.accuracies)
        what = "one picture for all inputs, or as good as one" if one is None else f"class {one} for nearly every cell"
        return Judgement("COLLAPSED", f"{what}: {numbers}", after_failure(recipe, evidence.context), one)
    return Judgement("LEARNING", "not there yet: " + "; ".join(missing), after_failure(recipe, evidence.context))


def three_decimals(value: float | None) -> str:
    """Return the value with three decimals; `none` for None."""
    return "none" if value is None else f"{value:.3f}"


def memorised(evidence: Evidence, target: float) -> bool:
    """Return True if every condition of MEMORISED holds."""
    return not _missing(evidence, target)


def _missing(evidence: Evidence, target: float) -> list[str]:
    """Return the conditions of MEMORISED that do not hold, as text."""
    a = evidence.accuracies
    missing = []
    if a.worst < target:
        missing.append(f"class {a.worst_class} is at {a.worst:.3f}, {target:g} is needed")
    if a.pixel <= PIXEL_ABOVE:
        missing.append(f"pixel accuracy is {a.pixel:.3f}, more than {PIXEL_ABOVE} is needed")
    if evidence.skill is None and not a.exact:
        missing.append("one picture answers every grid, so every cell must be right")
    if evidence.skill is not None and evidence.skill < SKILL_AT_LEAST:
        missing.append(f"skill is {evidence.skill:.3f}, {SKILL_AT_LEAST} is needed")
    if evidence.retrieval is not None and evidence.retrieval < RETRIEVAL_AT_LEAST:
        missing.append(f"retrieval is {evidence.retrieval:.3f}, {RETRIEVAL_AT_LEAST} is needed")
    return missing


def _collapsed(evidence: Evidence) -> bool:
    if evidence.skill is None or evidence.retrieval is None:
        return False
    blind = evidence.retrieval <= max(COLLAPSE_RETRIEVAL, 1 / evidence.batch_size)
    return blind and evidence.skill <= COLLAPSE_SKILL


def _one_class(accuracies: Accuracies) -> int | None:
    """Return the class that covers 99 % of the predictions; None if no class does."""
    predicted = accuracies.predicted
    top = int(np.argmax(predicted))
    return top if predicted[top] >= ONE_CLASS * predicted.sum() else None
