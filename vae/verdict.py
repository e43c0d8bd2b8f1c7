"""What is concluded at the end of a run, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .recipe import Recipe
from .signals import Accuracies

Verdict = Literal["MEMORISED", "LEARNING", "COLLAPSED", "DIVERGED"]

PIXEL_ABOVE = 0.95
SKILL_AT_LEAST = 0.75
RETRIEVAL_AT_LEAST = 0.75
COLLAPSE_SKILL = 0.05
COLLAPSE_RETRIEVAL = 1 / 8
ONE_CLASS = 0.99
LARGE_GAMMA = 10
ENOUGH_STEPS = 200
"""No healthy run of the default recipe was seen to need more (ARC-AGI-1 and the embedded corpus, 40 batches)."""


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made from: the reconstruction of the fixed batch with z = mu, at the end of the run."""

    accuracies: Accuracies
    skill: float | None
    retrieval: float | None
    batch_size: int
    diverged: str | None = None
    """What was not finite, and when; None where all was."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, its reason in one sentence, and the next step (empty for MEMORISED)."""

    verdict: Verdict
    reason: str
    next: str
    collapsed_class: int | None = None

    @property
    def passed(self) -> bool:
        """True for MEMORISED alone."""
        return self.verdict == "MEMORISED"


def judge(evidence: Evidence, recipe: Recipe) -> Judgement:
    """Apply the rules in their order: DIVERGED, MEMORISED, COLLAPSED, LEARNING.

    Pixel accuracy alone decides nothing: where 93 % of the cells are background, an all-background model scores 93 %.
    """
    if evidence.diverged is not None:
        return Judgement("DIVERGED", evidence.diverged, _next_diverged(recipe))
    missing = _missing(evidence, recipe.target)
    if not missing:
        a = evidence.accuracies
        found = "every cell is right" if a.exact else f"worst class {a.worst:.3f}, pixel accuracy {a.pixel:.3f}"
        return Judgement("MEMORISED", f"{found}; {_numbers(evidence)}", "")
    if _collapsed(evidence):
        one = _one_class(evidence.accuracies)
        what = "one picture for all inputs, or as good as one" if one is None else f"class {one} for nearly every cell"
        reason = f"{what}: {_numbers(evidence)}"
        return Judgement("COLLAPSED", reason, _next_collapsed(recipe), one)
    return Judgement("LEARNING", "not there yet: " + "; ".join(missing), _next_learning(evidence, recipe))


def memorised(evidence: Evidence, target: float) -> bool:
    """True where every condition of MEMORISED holds."""
    return not _missing(evidence, target)


def _missing(evidence: Evidence, target: float) -> list[str]:
    """The conditions of MEMORISED that do not hold, in words."""
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
    """The class that covers 99 % of the predictions, if one does."""
    predicted = accuracies.predicted
    top = int(np.argmax(predicted))
    return top if predicted[top] >= ONE_CLASS * predicted.sum() else None


def _numbers(evidence: Evidence) -> str:
    return f"skill {_number(evidence.skill)}, retrieval {_number(evidence.retrieval)}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _largest_beta(recipe: Recipe) -> float:
    return recipe.beta if recipe.beta_ramp is None else recipe.beta_ramp.maximum


def _rate_or_steps(what: str, recipe: Recipe) -> str:
    """Steps for a short run; where steps were not lacking, a rate that kills units of the encoder is usual."""
    if recipe.iterations < ENOUGH_STEPS:
        return f"{what} yet: try --iterations {Recipe.iterations}."
    return f"{what} in {recipe.iterations} steps: try --lr {recipe.lr / 2:g}."


def _next_diverged(recipe: Recipe) -> str:
    if recipe.gamma > LARGE_GAMMA:
        return f"gamma {recipe.gamma:g} leaves nothing of the loss, or too much: try --gamma 2."
    if _largest_beta(recipe) >= 1:
        return f"The KL term (beta {_largest_beta(recipe):g}) may be what grew: try --beta 0."
    return f"The step was too large for this loss: try --lr {min(recipe.lr / 4, Recipe.lr):g}."


def _next_collapsed(recipe: Recipe) -> str:
    beta = _largest_beta(recipe)
    if beta > 0:
        scale = ", H*W times stronger on a per-cell mean" if recipe.reduction == "mean" else ""
        return f"The KL term (beta {beta:g}{scale}) outweighs the reconstruction: try --beta 0."
    if recipe.init == "default":
        return "torch's own initialisation starts with hardly any signal from the input: try --init rescaled."
    if recipe.resample:
        return "The batch is resampled, so a step misses a third of the grids: try --no-resample."
    return _rate_or_steps("The output does not depend on the input", recipe)


def _next_learning(evidence: Evidence, recipe: Recipe) -> str:
    beta = _largest_beta(recipe)
    if beta > 0:
        return f"The KL term (beta {beta:g}) works against memorising: try --beta 0."
    if recipe.resample:
        return "The batch is resampled, so a step misses a third of the grids: try --no-resample."
    if recipe.z == "sample":
        return "z is sampled, so the decoder fits noise as well: try --z mu."
    if recipe.init == "default":
        return "torch's own initialisation starts slowly: try --init rescaled."
    if recipe.weights == "none" and evidence.accuracies.worst < recipe.target:
        return f"Class {evidence.accuracies.worst_class} is behind without class weights: try --weights global."
    return _rate_or_steps("It has not got there", recipe)
