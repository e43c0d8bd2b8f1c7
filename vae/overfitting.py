"""The overfit loop: fit one fixed batch, measure every step, and judge the end."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vaefit.cache.errors import DataError
from vaefit.cache.histogram import outside_classes
from vaefit.kernels import Backend, choose_backend

from .adapter import outputs
from .advice import Clues
from .batch import Batch
from .errors import RunError
from .fit import Fit
from .init import initialise
from .model import BetaVAE
from .objective import NO_LABEL, Objective, check_objective
from .recipe import Recipe
from .result import OverfitResult, Reached, Record
from .signals import Accuracies, Labels, Shares, distinct, retrieval
from .step import Step
from .verdict import PIXEL_ABOVE, Evidence, judge
from .weighting import ClassWeights

TAIL_STEPS = 20
"""A shorter run has no tail to speak of."""


def overfit(
    model: nn.Module,
    batch: Batch | ArrayLike | Tensor,
    *,
    weights: ClassWeights | ArrayLike | None = None,
    recipe: Recipe | None = None,
    ignore_index: int | None = None,
    seed: int = 0,
    backend: Backend = "auto",
    on_step: Callable[[Record], None] | None = None,
) -> OverfitResult:
    """Fit `model` to one fixed batch and judge whether it memorised it. The model is trained in place.

    Args:
        model: takes labels (B, H, W) int64 and returns logits (B, C, H, W), or (logits, mu, logvar). It runs on the
            device of its parameters.
        batch: (B, H, W) integer labels.
        weights: (C,) class weights, best those of the whole dataset, `vaefit.cache.class_weights(path)`; None derives
            them from the batch by the recipe's scheme.
        recipe: every setting; None is the default recipe, which keeps the initialisation of a model that is not a
            BetaVAE.
        ignore_index: cells with this label count nowhere.
        seed: drives initialisation, sampled z and resampling.
        on_step: called with the record of every step.

    Raises:
        ValueError: labels or weights that do not fit the model's classes, or settings that are wrong by themselves.
        RunError: the model returns something else than logits, or the objective is not its closed form.
    """
    start = time.perf_counter()
    fixed = batch if isinstance(batch, Batch) else _as_batch(batch)
    if recipe is None:
        recipe = Recipe() if isinstance(model, BetaVAE) else Recipe(init=None)
    device = _device(model)
    targets = torch.from_numpy(fixed.grids).to(device)
    inputs = _inputs(model, targets)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if recipe.init is not None:
            initialise(model, recipe.init, lambda: model(inputs))

    classes = _check_logits(model, inputs, targets)
    check_labels(fixed.grids, classes, ignore_index)
    counts = fixed.counts(classes, ignore_index)
    if weights is None:
        weights = ClassWeights.derive(recipe, counts, "batch")
    elif not isinstance(weights, ClassWeights):
        weights = ClassWeights.given(weights, classes, "weights")
    ignored = NO_LABEL if ignore_index is None else ignore_index
    weight = torch.tensor(weights.values, dtype=torch.float32, device=device)
    objective = Objective(weight, recipe.gamma, recipe.reduction, ignored, backend)
    check_objective(objective, targets)

    shares = Shares.of(fixed.grids, classes, ignore_index)
    fit = Fit(Step.build(model, objective, recipe), recipe, inputs, targets, shares, generator)
    history: list[Record] = []
    for record in fit.records():
        history.append(record)
        if on_step is not None:
            on_step(record)

    predictions = fit.predictions()
    accuracies = Accuracies.of(_counts(predictions, fixed.grids, classes, ignore_index))
    evidence = Evidence(
        accuracies,
        shares.skill(accuracies.pixel),
        retrieval(predictions, fixed.grids, ignore_index),
        fixed.grids.shape[0],
        fit.diverged,
        _clues(model, fixed, accuracies, weights, recipe, history),
    )
    return OverfitResult(
        judgement=judge(evidence, recipe),
        iterations=fit.updates,
        reached=_reached(history),
        accuracies=accuracies,
        shares=shares,
        skill=evidence.skill,
        retrieval=evidence.retrieval,
        distinct_pictures=distinct(predictions),
        batch=fixed,
        weights=weights,
        recipe=recipe,
        backend=choose_backend(backend, device).name,
        seconds=time.perf_counter() - start,
        history=tuple(history),
        predictions=predictions,
        ignore_index=ignore_index,
    )


def _as_batch(batch: ArrayLike | Tensor) -> Batch:
    grids = np.asarray(batch.cpu() if isinstance(batch, Tensor) else batch)
    if grids.ndim != 3 or grids.size == 0 or grids.dtype.kind not in "iu":
        raise DataError(
            "a batch is (B, H, W) integer labels, at least one",
            "batch",
            got=f"shape {grids.shape}, dtype {grids.dtype}",
            do="Pass labels, not logits or one-hot vectors.",
        )
    return Batch(grids.astype(np.int64), ())


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    if parameter is None or not any(p.requires_grad for p in model.parameters()):
        do = "Pass a model with parameters that require a gradient."
        raise RunError("the model has no parameter that can learn", type(model).__name__, do=do)
    return parameter.device


def _inputs(model: nn.Module, targets: Tensor) -> Tensor:
    """What the model is fed at every step: our own network's one-hot form is made once."""
    if not isinstance(model, BetaVAE):
        return targets
    return model.one_hot(targets).contiguous(memory_format=torch.channels_last)


def _check_logits(model: nn.Module, inputs: Tensor, targets: Tensor) -> int:
    """The number of classes of the model's logits; RunError where they are not (B, C, H, W)."""
    with torch.no_grad():
        logits = outputs(model, inputs, None)[0]
    if logits.dim() != 4 or (logits.shape[0], *logits.shape[2:]) != tuple(targets.shape):
        b, h, w = targets.shape
        raise RunError(
            f"the model must return logits ({b}, C, {h}, {w}) for this batch",
            type(model).__name__,
            got=f"shape {tuple(logits.shape)}",
            do="Reshape or crop them in the model, or in a module around it.",
        )
    return int(logits.shape[1])


def check_labels(grids: Labels, classes: int, ignore_index: int | None) -> None:
    """Raise DataError for a label of the batch (B, H, W) outside the classes, and where every cell is ignored."""
    outside = outside_classes(grids, classes, ignore_index)
    if outside.any():
        where = tuple(map(int, np.argwhere(outside)[0]))
        raise DataError(
            f"a label is outside the model's {classes} classes at (grid, row, column) {where}",
            "batch",
            got=str(grids[where]),
            do="Mend the label, name it as ignore_index, or build the model with more classes.",
        )
    if ignore_index is not None and (grids == ignore_index).all():
        raise DataError(
            "every cell of the batch is ignored",
            "batch",
            got=f"--ignore-index {ignore_index}",
            do="Choose other grids with --batch-seed or --indices.",
        )


def _counts(
    predictions: Labels,
    targets: Labels,
    classes: int,
    ignore_index: int | None,
) -> Labels:
    kept = np.ones(targets.shape, dtype=bool) if ignore_index is None else targets != ignore_index
    pairs = targets[kept] * classes + predictions[kept]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _clues(
    model: nn.Module,
    batch: Batch,
    accuracies: Accuracies,
    weights: ClassWeights,
    recipe: Recipe,
    history: list[Record],
) -> Clues:
    """What the advice is drawn from."""
    size, height, width = batch.grids.shape
    missed = [c for c, a in enumerate(accuracies.classes) if a is not None and a < recipe.target]
    losses = [record.loss for record in history]
    before = losses[-1 - len(losses) // 4]
    return Clues(
        cells=height * width,
        batch_size=size,
        latent_dim=model.latent_dim if isinstance(model, BetaVAE) else None,
        weight_ratio=weights.ratio,
        unweighted=next((c for c in missed if weights.values[c] == 0), None),
        behind=accuracies.worst_class if missed and accuracies.pixel > PIXEL_ABOVE else None,
        weights_file=weights.source == "file",
        tail=losses[-1] / before if len(losses) > TAIL_STEPS and before > 0 else None,
    )


def _reached(history: list[Record]) -> Reached:
    def first(holds: Callable[[Accuracies], bool]) -> int | None:
        return next((r.step for r in history if holds(r.accuracies)), None)

    return Reached(
        pixel_95=first(lambda a: a.pixel >= 0.95),
        worst_class_95=first(lambda a: a.worst >= 0.95),
        exact=first(lambda a: a.exact),
    )
