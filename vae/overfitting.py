"""The overfit loop: fit one fixed batch, measure every step, and judge the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vaefit.kernels import Backend, choose_backend

from .advice import Clues
from .batch import Batch
from .compatibility import as_batch, check_labels, device_of, first_logits, inputs_of
from .fit import Fit
from .graph import choose_steps
from .init import initialise
from .model import BetaVAE
from .motion import Motion
from .objective import NO_LABEL, Objective, check_objective
from .preflight import preflight
from .recipe import Recipe
from .result import OverfitResult, Reached, Record
from .signals import Accuracies, Labels, Shares, distinct, retrieval
from .start import Start
from .step import Step
from .stepwise import Stepwise
from .verdict import PIXEL_ABOVE, Evidence, judge
from .weighting import ClassWeights
from .windowed import Windowed

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
    graph: bool | None = None,
    on_start: Callable[[Start], None] | None = None,
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
        graph: replay each step as a CUDA graph; None does so where it gives the numbers of the loop.
        on_start: called once, when the loss was found to agree with its reference.
        on_step: called with the record of every step, a window of steps at a time where they are a graph.

    Raises:
        ValueError: labels or weights that do not fit the model's classes, or settings that are wrong by themselves.
        RunError: the model returns something else than logits, a graph was asked for where none can run, the objective
            is not its closed form, or the loss, its gradient or the counts are not those of the reference.
    """
    start = time.perf_counter()
    fixed = batch if isinstance(batch, Batch) else as_batch(batch)
    if recipe is None:
        recipe = Recipe() if isinstance(model, BetaVAE) else Recipe(init=None)
    device = device_of(model)
    steps = choose_steps(graph, device, recipe, choose_backend(backend, device).name, type(model) is BetaVAE)
    targets = torch.from_numpy(fixed.grids).to(device)
    inputs = inputs_of(model, targets)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if recipe.init is not None:
            initialise(model, recipe.init, lambda: model(inputs))

    logits = first_logits(model, inputs, targets)
    classes = logits.shape[1]
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
    started = Start(preflight(objective, logits, targets), steps)
    del logits
    if on_start is not None:
        on_start(started)

    shares = Shares.of(fixed.grids, classes, ignore_index)
    step = Step.build(model, objective, recipe)
    motion: Motion = (
        Windowed(step, recipe, inputs, targets)
        if steps.name == "graph"
        else Stepwise(step, recipe, inputs, targets, generator)
    )
    fit = Fit(motion, step, recipe, inputs, targets, shares)
    history: list[Record] = []
    with _reproducible():
        for record in fit.records():
            history.append(record)
            if on_step is not None:
                on_step(record)
        predictions = fit.predictions()
    fit.camera.take(fit.updates, predictions)
    confusion = _counts(predictions, fixed.grids, classes, ignore_index)
    accuracies = Accuracies.of(confusion)
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
        confusion=confusion,
        shares=shares,
        skill=evidence.skill,
        retrieval=evidence.retrieval,
        distinct_pictures=distinct(predictions),
        batch=fixed,
        weights=weights,
        recipe=recipe,
        backend=choose_backend(backend, device).name,
        start=started,
        seconds=time.perf_counter() - start,
        history=tuple(history),
        predictions=predictions,
        film=fit.camera.film(),
        ignore_index=ignore_index,
    )


@contextmanager
def _reproducible() -> Iterator[None]:
    """Have cuDNN choose no algorithm by its time, and none that adds up in another order at each call."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


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
