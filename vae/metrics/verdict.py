"""Verdict on a run: MEMORISED, LEARNING, COLLAPSED or DIVERGED, with its reason and the next step."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..recipe import Recipe
from .accuracy import Accuracies
from .advice import NO_CONTEXT, AdviceContext, after_divergence, after_failure

Verdict = Literal["MEMORISED", "LEARNING", "COLLAPSED", "DIVERGED"]

PIXEL_ABOVE = 0.95
SKILL_AT_LEAST = 0.75
RETRIEVAL_AT_LEAST = 0.75
ALMOST_EXACT = 0.99
"""Worst class of a model with inputs of its own where one picture answers every grid, and there is no skill."""
COLLAPSE_SKILL = 0.05
COLLAPSE_VARIATION = 0.1
"""Constant outputs have 0, `--recipe classic` on its plateau 0.02 to 0.09, untrained and guessing models 1.1 to 4.7."""
ONE_CLASS = 0.99
REMAINS = 0.01
"""Running statistics have followed once this share of an earlier value is left in them."""


@dataclass(frozen=True)
class ModeGap:
    """Pixel accuracies of a model that memorises its batch in training mode, and does not in evaluation mode."""

    training: float
    """By the statistics of the batch, without dropout."""
    evaluation: float
    statistics: float | None = None
    """Smallest momentum of BatchNorm layers, which make the difference alone; None where other layers make it."""
    updates: int = 0
    """Updates done."""

    def __str__(self) -> str:
        """Return both numbers and their reason, in a sentence."""
        why = "the layers differ" if self.statistics is None else "BatchNorm statistics lag"
        training = f"in training mode {self.training:.3f} of the cells are right"
        return f"{training}, in evaluation mode {self.evaluation:.3f}: {why}"

    @property
    def fix(self) -> str:
        """Option that removes the gap, or a sentence if the model itself must change."""
        if self.statistics is None:
            return "Let the model compute the same in both modes: look for self.training in its forward."
        if self.statistics == 0:
            return "Give its BatchNorm layers a momentum, such as 0.1."
        followed = 1 if self.statistics >= 1 else math.ceil(math.log(REMAINS) / math.log(1 - self.statistics))
        return f"--iterations {max(followed, 2 * self.updates)}"

    @property
    def advice(self) -> str:
        """The fix as a sentence, with its reason."""
        if not self.statistics:
            return self.fix
        slow = f"BatchNorm follows its layers slowly at momentum {self.statistics:g}"
        return f"{slow}: give it a larger one in the model, such as 0.1, or try {self.fix}."


@dataclass(frozen=True)
class Evidence:
    """Measurements that decide the verdict: those of the fixed batch with z = mu, at the end of the run."""

    accuracies: Accuracies
    skill: float | None
    retrieval: float | None
    variation: float | None = None
    """Decides between COLLAPSED and LEARNING alone."""
    own_inputs: bool = False
    """The inputs are not the targets."""
    _: KW_ONLY
    gap: ModeGap | None = None
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

    def of_interrupted_run(self, updates: int, planned: int) -> Judgement:
        """Return the verdict on a run that was stopped before it ended."""
        reason = f"interrupted after {updates} of up to {planned} updates; {self.reason}"
        again = f"Let it run to its end, or end it here by itself: try --iterations {updates}."
        return replace(self, reason=reason, next=self.next and again)


def judge(evidence: Evidence, recipe: Recipe) -> Judgement:
    """Return the verdict by the first rule that applies: DIVERGED, MEMORISED, COLLAPSED, LEARNING.

    Pixel accuracy alone decides nothing: if 93 % of the cells are background, an all-background model scores 93 %.
    """
    if evidence.diverged is not None:
        return Judgement("DIVERGED", evidence.diverged, after_divergence(recipe, evidence.context))
    missing = _missing(evidence, recipe.target)
    a, skill = evidence.accuracies, f"skill {three_decimals(evidence.skill)}"
    if not missing:
        found = "every cell is right" if a.exact else f"worst class {a.worst:.3f}, pixel accuracy {a.pixel:.3f}"
        return Judgement("MEMORISED", f"{found}; {skill}, retrieval {three_decimals(evidence.retrieval)}", "")
    gap, one = evidence.gap, _one_class(a.predicted)
    advice = after_failure(recipe, evidence.context) if gap is None else gap.advice
    modes = "" if gap is None else f"{gap}; "
    if collapsed(evidence.skill, evidence.variation, one is not None and _one_class(a.held) != one):
        what = "one picture for all inputs" if one is None else f"class {one} for nearly every cell"
        reason = f"{what}: {skill}, variation {three_decimals(evidence.variation)}"
        return Judgement("COLLAPSED", modes + reason, advice, one)
    return Judgement("LEARNING", f"{modes}not there yet: {'; '.join(missing)}", advice)


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
    if evidence.skill is None and not (a.exact or (evidence.own_inputs and a.worst >= ALMOST_EXACT)):
        needed = f"class must be at {ALMOST_EXACT}" if evidence.own_inputs else "cell must be right"
        missing.append(f"one picture answers every grid, so every {needed}")
    if evidence.skill is not None and evidence.skill < SKILL_AT_LEAST:
        missing.append(f"skill is {evidence.skill:.3f}, {SKILL_AT_LEAST} is needed")
    if evidence.retrieval is not None and evidence.retrieval < RETRIEVAL_AT_LEAST:
        missing.append(f"retrieval is {evidence.retrieval:.3f}, {RETRIEVAL_AT_LEAST} is needed")
    return missing


def collapsed(skill: float | None, variation: float | None, one_class: bool) -> bool:
    """Return True if the output hardly depends on the input.

    Args:
        one_class: one class covers the predictions and not the targets; it decides where skill or variation is None.
    """
    if skill is None or variation is None:
        return one_class
    return skill <= COLLAPSE_SKILL and variation <= COLLAPSE_VARIATION


def _one_class(cells: NDArray[np.int64]) -> int | None:
    """Return the class that covers 99 % of the cells (C,) of each class; None if no class does."""
    top = int(np.argmax(cells))
    return top if cells[top] >= ONE_CLASS * cells.sum() else None
