"""Advice after a run that did not memorise: one line with a reason and one option to paste."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe import DEFAULT_LR, Recipe

STRONG_BETA = 0.1
"""On the scale of the evidence lower bound. Up to this beta the recipe memorises (measured on ARC-AGI-1 and 2)."""
LARGE_GAMMA = 10.0
SMALL_CLIP = 1e-4
"""Gradients clipped to this norm come near Adam's epsilon. Muon's updates do not depend on their size."""
HIGH_RATE, LOW_RATE = 5.0, 1 / 8
"""Multiples of the recipe's rate. Between them the check works, outside rarely."""
EVEN_RATIO = 1.01
SMALL_LATENT = 8
ENOUGH_STEPS = 200
"""Every measured run of the default recipe memorised within a third of these steps."""
STILL_FALLING = 0.9
"""A run is unfinished if its loss fell below this share of itself in the last quarter of the steps."""
LARGE_BATCH = 64


@dataclass(frozen=True)
class AdviceContext:
    """Measurements of a run beside its last reconstruction."""

    cells: int = 0
    """Cells of a grid, H * W."""
    batch_size: int = 0
    latent_dim: int | None = None
    """None if the model has no known latent vector."""
    weight_ratio: float = float("inf")
    unweighted: int | None = None
    """A class of the batch that is not learned and has weight 0; None if there is none."""
    behind: int | None = None
    """The worst class, if it misses the target and the pixel accuracy does not; else None."""
    weights_file: bool = False
    tail: float | None = None
    """Loss at the end divided by the loss after three quarters of the steps; None for a run of a few steps."""

    untrained: bool = False
    """The run ended before its first update."""


NO_CONTEXT = AdviceContext()


def after_divergence(recipe: Recipe, context: AdviceContext = NO_CONTEXT) -> str:
    """Return the advice after a loss or a gradient that is not finite."""
    beta = recipe.largest_beta
    if recipe.gamma > LARGE_GAMMA:
        return _lower_gamma(recipe)
    if beta >= 1:
        return f"The KL term (beta {beta:g}) may have grown too large: try {_no_beta(recipe)}."
    if context.untrained:
        return "No rate mends a loss that is not finite before the first update; to see the layer: try --diagnose."
    return f"The step was too large for this loss: try --lr {min(recipe.rate / 4, DEFAULT_LR):g}."


def after_failure(recipe: Recipe, context: AdviceContext) -> str:
    """Return the advice after COLLAPSED or LEARNING: of the rules that apply, the one with the largest effect."""
    per_cell = recipe.reduction == "mean"
    beta = recipe.largest_beta
    if context.unweighted is not None:
        instead = " instead of --weights-file" if context.weights_file else ""
        return f"The loss ignores class {context.unweighted}, whose weight is 0: try --weights global{instead}."
    if beta * (context.cells if per_cell else 1) >= STRONG_BETA:
        scale = f", {context.cells} times stronger on a per-cell mean" if per_cell else ""
        return f"The KL term (beta {beta:g}{scale}) works against memorising: try {_no_beta(recipe)}."
    if recipe.gamma > LARGE_GAMMA:
        return _lower_gamma(recipe)
    if recipe.optimizer == "adam" and 0 < recipe.clip < SMALL_CLIP:
        return f"The gradients are clipped to {recipe.clip:g}, which stops learning: try --clip {Recipe.clip:g}."
    if recipe.rate > HIGH_RATE * DEFAULT_LR:
        return f"A rate of {recipe.rate:g} makes units die or overshoots: try --lr {DEFAULT_LR:g}."
    if recipe.rate < LOW_RATE * DEFAULT_LR:
        return f"A rate of {recipe.rate:g} hardly changes the model: try --lr {DEFAULT_LR:g}."
    if recipe.warmup > max(recipe.iterations, ENOUGH_STEPS) // 2:
        return f"The warm-up of the rate takes {recipe.warmup} steps, too many: try --warmup {Recipe.warmup}."
    if recipe.init == "default":
        return "torch's own initialisation starts with hardly any signal from the input: try --init rescaled."
    if recipe.resample:
        return "The batch is resampled, so a step misses a third of the grids: try --no-resample."
    if recipe.z == "sample":
        return "z is sampled, so the decoder also fits noise: try --z mu."
    option = _other_weights(recipe, context)
    if context.behind is not None and context.weight_ratio < EVEN_RATIO and option is not None:
        return f"Class {context.behind} is behind, and every class has the same weight: try {option}."
    if recipe.iterations < ENOUGH_STEPS:
        return f"{recipe.iterations} steps are few: try --iterations {Recipe.iterations}."
    if context.latent_dim is not None and context.latent_dim < SMALL_LATENT:
        few = f"{context.latent_dim} latent dimensions can hardly distinguish {context.batch_size} grids"
        return f"{few}: try --latent-dim 32."
    if context.tail is not None and context.tail < STILL_FALLING:
        fell = f"The loss fell by {100 * (1 - context.tail):.0f} % in the last quarter, so the run is not finished"
        return f"{fell}: try --iterations {4 * recipe.iterations}."
    if context.batch_size > LARGE_BATCH:
        return f"{context.batch_size} grids may be more than the network can hold: try --batch-size 32."
    return f"The loss no longer falls, perhaps because units died early: try --lr {recipe.rate / 2:g}."


def _no_beta(recipe: Recipe) -> str:
    return "--beta 0" if recipe.beta_ramp is None else "--beta-ramp 0,0,0"


def _lower_gamma(recipe: Recipe) -> str:
    return f"gamma {recipe.gamma:g} removes the loss of every half-right cell: try --gamma {Recipe.gamma:g}."


def _other_weights(recipe: Recipe, context: AdviceContext) -> str | None:
    """Return the options that give uneven weights; None if the dataset's own counts are even."""
    if context.weights_file:
        return "--weights global instead of --weights-file"
    if recipe.weights != "global":
        return "--weights global"
    if recipe.scheme in ("none", "effective"):  # --smooth has no effect on these two
        return "--scheme sqrt_inverse"
    return f"--smooth {Recipe.smooth:g}" if recipe.smooth > Recipe.smooth else None
