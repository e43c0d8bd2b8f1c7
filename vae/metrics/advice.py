"""What to try next after a run that did not memorise: one line of why, and one option to paste."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..recipe import DEFAULT_LR, Recipe

STRONG_BETA = 0.1
"""On the scale of the evidence lower bound; up to this beta the recipe memorised (measured on ARC-AGI-1 and 2)."""
LARGE_GAMMA = 10.0
SMALL_CLIP = 1e-4
"""Clipped to this, Adam's gradients come near its epsilon; Muon's updates do not depend on their size."""
HIGH_RATE, LOW_RATE = 5.0, 1 / 8
"""Times the recipe's own rate; the check works between them, and rarely outside."""
EVEN_RATIO = 1.01
SMALL_LATENT = 8
ENOUGH_STEPS = 200
"""No run of the default recipe was seen to need a third of it (ARC-AGI-1, the embedded corpus and other sizes)."""
STILL_FALLING = 0.9
"""A loss that fell below this share of itself over the last quarter of the steps was not done."""
LARGE_BATCH = 64


@dataclass(frozen=True)
class AdviceContext:
    """What a run shows beside its last reconstruction."""

    cells: int = 0
    """Cells of a grid, H * W."""
    batch_size: int = 0
    latent_dim: int | None = None
    """None where the model has no latent vector that is known."""
    weight_ratio: float = float("inf")
    unweighted: int | None = None
    """A class of the batch that is not learned and whose weight is 0; None where there is none."""
    behind: int | None = None
    """The worst class, where it misses the target while the pixel accuracy does not; None elsewhere."""
    weights_file: bool = False
    tail: float | None = None
    """The loss at the end over the loss at three quarters of the steps; None for a run of a few steps."""


NO_CLUES = AdviceContext()

Rule = Callable[[Recipe, AdviceContext], "str | None"]


def after_divergence(recipe: Recipe, clues: AdviceContext) -> str:
    """The next step after a loss or a gradient that was not finite."""
    return _first((_gamma, _huge_beta, _diverged), recipe, clues)


def after_failure(recipe: Recipe, clues: AdviceContext) -> str:
    """The next step after a run that ended COLLAPSED or LEARNING: what was measured to matter most comes first."""
    return _first(_RULES, recipe, clues)


def _first(rules: Iterable[Rule], recipe: Recipe, clues: AdviceContext) -> str:
    return next(found for rule in rules if (found := rule(recipe, clues)) is not None)


def _unweighted(_: Recipe, clues: AdviceContext) -> str | None:
    if clues.unweighted is None:
        return None
    instead = " instead of --weights-file" if clues.weights_file else ""
    return f"The loss does not see class {clues.unweighted}, whose weight is 0: try --weights global{instead}."


def _beta(recipe: Recipe, clues: AdviceContext) -> str | None:
    beta = largest_beta(recipe)
    per_cell = recipe.reduction == "mean"
    if beta * (clues.cells if per_cell else 1) < STRONG_BETA:
        return None
    scale = f", {clues.cells} times stronger on a per-cell mean" if per_cell else ""
    return f"The KL term (beta {beta:g}{scale}) works against memorising: try {_no_beta(recipe)}."


def _huge_beta(recipe: Recipe, _: AdviceContext) -> str | None:
    beta = largest_beta(recipe)
    return f"The KL term (beta {beta:g}) may be what grew: try {_no_beta(recipe)}." if beta >= 1 else None


def _no_beta(recipe: Recipe) -> str:
    return "--beta 0" if recipe.beta_ramp is None else "--beta-ramp 0,0,0"


def _gamma(recipe: Recipe, _: AdviceContext) -> str | None:
    if recipe.gamma <= LARGE_GAMMA:
        return None
    return f"gamma {recipe.gamma:g} takes the loss from every cell that is half right: try --gamma {Recipe.gamma:g}."


def _clip(recipe: Recipe, _: AdviceContext) -> str | None:
    if recipe.optimizer != "adam" or not 0 < recipe.clip < SMALL_CLIP:
        return None
    return f"Gradients are clipped to {recipe.clip:g}, next to nothing: try --clip {Recipe.clip:g}."


def _rate(recipe: Recipe, _: AdviceContext) -> str | None:
    if recipe.rate > HIGH_RATE * DEFAULT_LR:
        return f"A rate of {recipe.rate:g} kills units or overshoots: try --lr {DEFAULT_LR:g}."
    if recipe.rate < LOW_RATE * DEFAULT_LR:
        return f"A rate of {recipe.rate:g} hardly moves the model: try --lr {DEFAULT_LR:g}."
    return None


def _warmup(recipe: Recipe, _: AdviceContext) -> str | None:
    if recipe.warmup <= max(recipe.iterations, ENOUGH_STEPS) // 2:
        return None
    return f"The rate was still warming up, over {recipe.warmup} steps: try --warmup {Recipe.warmup}."


def _init(recipe: Recipe, _: AdviceContext) -> str | None:
    if recipe.init != "default":
        return None
    return "torch's own initialisation starts with hardly any signal from the input: try --init rescaled."


def _resample(recipe: Recipe, _: AdviceContext) -> str | None:
    if not recipe.resample:
        return None
    return "The batch is resampled, so a step misses a third of the grids: try --no-resample."


def _sampled_z(recipe: Recipe, _: AdviceContext) -> str | None:
    return "z is sampled, so the decoder fits noise as well: try --z mu." if recipe.z == "sample" else None


def _even_weights(recipe: Recipe, clues: AdviceContext) -> str | None:
    if clues.behind is None or clues.weight_ratio >= EVEN_RATIO:
        return None
    why = f"Class {clues.behind} is behind where every class weighs the same"
    if clues.weights_file:
        return f"{why}: try --weights global instead of --weights-file."
    if recipe.weights != "global":
        return f"{why}: try --weights global."
    if recipe.scheme in ("none", "effective"):  # with which --smooth does nothing
        return f"{why}: try --scheme sqrt_inverse."
    # below that the dataset's own counts are even
    return f"{why}: try --smooth {Recipe.smooth:g}." if recipe.smooth > Recipe.smooth else None


def _short(recipe: Recipe, _: AdviceContext) -> str | None:
    if recipe.iterations >= ENOUGH_STEPS:
        return None
    return f"{recipe.iterations} steps are few: try --iterations {Recipe.iterations}."


def _latent(_: Recipe, clues: AdviceContext) -> str | None:
    if clues.latent_dim is None or clues.latent_dim >= SMALL_LATENT:
        return None
    return f"{clues.latent_dim} latent dimensions hardly tell {clues.batch_size} grids apart: try --latent-dim 32."


def _unfinished(recipe: Recipe, clues: AdviceContext) -> str | None:
    if clues.tail is None or clues.tail >= STILL_FALLING:
        return None
    fell = f"{100 * (1 - clues.tail):.0f} %"
    return f"The loss fell by {fell} in the last quarter, it is not done: try --iterations {4 * recipe.iterations}."


def _large_batch(_: Recipe, clues: AdviceContext) -> str | None:
    if clues.batch_size <= LARGE_BATCH:
        return None
    return f"{clues.batch_size} grids may be more than the network holds: try --batch-size 32."


def _lower_rate(recipe: Recipe, _: AdviceContext) -> str:
    return f"It has come to rest short of the goal, as units that die early make it: try --lr {recipe.rate / 2:g}."


def _diverged(recipe: Recipe, _: AdviceContext) -> str:
    return f"The step was too large for this loss: try --lr {min(recipe.rate / 4, DEFAULT_LR):g}."


def largest_beta(recipe: Recipe) -> float:
    """The largest beta of a run."""
    return recipe.beta if recipe.beta_ramp is None else recipe.beta_ramp.maximum


_RULES: tuple[Rule, ...] = (
    _unweighted,
    _beta,
    _gamma,
    _clip,
    _rate,
    _warmup,
    _init,
    _resample,
    _sampled_z,
    _even_weights,
    _short,
    _latent,
    _unfinished,
    _large_batch,
    _lower_rate,
)
