"""The overfit loop: fit one fixed batch, measure every step, and judge the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vaefit.cache.errors import require_range
from vaefit.cache.scan.histogram import MAX_CLASSES
from vaefit.kernels import Backend, choose_backend

from .data.batch import Batch, as_batch, check_labels
from .data.class_weights import ClassWeights
from .diagnosis.failed_run import FailedRun
from .diagnosis.find_cause import find_cause
from .diagnosis.reruns import OnControl
from .environment.device import reproducible
from .environment.seeds import seeded
from .fitting.cuda_graph import choose_steps
from .fitting.eager_stepper import EagerStepper
from .fitting.graph_stepper import GraphStepper
from .fitting.loop import Fit
from .fitting.lr_range_test import range_test
from .fitting.result import OverfitResult, Reached, Record
from .fitting.run_setup import RunHeader
from .fitting.stepper import Stepper
from .metrics.accuracy import Accuracies, BaselineShares, Labels, distinct, retrieval
from .metrics.advice import AdviceContext
from .metrics.verdict import PIXEL_ABOVE, Evidence, judge
from .model.beta_vae import BetaVAE
from .model.inspection import ModelInspection, described_model, device_of
from .objective.objective import Objective, check_objective
from .objective.preflight import preflight
from .optim.train_step import Step
from .recipe import Recipe

_log = logging.getLogger("vaefit")

FOREIGN = Recipe(init=None, lr="auto")
"""The default for a model that is not ours: its initialisation is part of it, and 2e-3 does not suit all."""
TAIL_STEPS = 20
"""A shorter run has no tail to speak of."""


def overfit(
    model: nn.Module,
    batch: Batch | ArrayLike | Tensor,
    *,
    targets: ArrayLike | Tensor | None = None,
    classes: int | None = None,
    weights: ClassWeights | ArrayLike | None = None,
    recipe: Recipe | None = None,
    ignore_index: int | None = None,
    seed: int = 0,
    backend: Backend = "auto",
    graph: bool | None = None,
    diagnose: bool = False,
    on_start: Callable[[RunHeader], None] | None = None,
    on_step: Callable[[Record], None] | None = None,
    on_control: OnControl | None = None,
) -> OverfitResult:
    """Fit `model` to one fixed batch and judge whether it memorised it. The model is trained in place.

    Args:
        model: takes labels (B, H, W) int64, or their one-hot form (B, C, H, W) in floats, and returns logits
            (B, C, H, W), or a tuple, mapping or dataclass with logits, mu and logvar; which, is found by trying the
            batch. It runs on the device of its parameters.
        batch: (B, H, W) integer labels.
        targets: (B, H, W) integer labels that the model is to give; None asks for the batch itself.
        classes: C; None takes the channels of the model's logits.
        weights: (C,) class weights, best those of the whole dataset, `vaefit.cache.class_weights(path)`; None derives
            them from the batch by the recipe's scheme.
        recipe: every setting; None is the default recipe. For a model that is not a BetaVAE that keeps its own
            initialisation and chooses the learning rate by a range test.
        ignore_index: cells with this label count nowhere.
        seed: drives initialisation, sampled z and resampling.
        graph: replay each step as a CUDA graph; None does so where it gives the numbers of the loop.
        diagnose: after a run that does not memorise, find out why by short reruns from the same start; see
            `OverfitResult.diagnosis`. The model keeps what the run itself has made of it.
        on_start: called once, when the loss was found to agree with its reference.
        on_step: called with the record of every step, a window of steps at a time where they are a graph.
        on_control: called, while a failure is diagnosed, with what is changed in a rerun and the record of its step.

    Raises:
        ValueError: labels or weights that do not fit the model's classes, or settings that are wrong by themselves.
        RunError: the model returns something else than logits, a graph was asked for where none can run, the objective
            is not its closed form, or the loss, its gradient or the counts are not those of the reference.
    """
    start = time.perf_counter()
    fixed = as_batch(batch, targets)
    if recipe is None:
        recipe = Recipe() if isinstance(model, BetaVAE) else FOREIGN
    device = device_of(model)
    steps = choose_steps(graph, device, recipe, choose_backend(backend, device).name, type(model) is BetaVAE)
    labels = torch.from_numpy(fixed.grids).to(device)
    wanted = torch.from_numpy(fixed.targets).to(device)
    generator = torch.Generator().manual_seed(seed)
    look = ModelInspection.from_model(
        model, labels, recipe, seed, classes, _count_of(weights), ignore_index, keep=diagnose
    )
    adapter, inputs, before = look.adapter, look.inputs, look.before

    classes = adapter.classes
    require_range("classes", classes, 2, MAX_CLASSES)
    check_labels(fixed.grids, classes, ignore_index)
    check_labels(fixed.targets, classes, ignore_index)
    counts = fixed.counts(classes, ignore_index)
    if (counts > 0).sum() == 1:
        _log.warning(f"every cell that counts holds class {counts.argmax()}: whatever the verdict, it shows nothing")
    if weights is None:
        weights = ClassWeights.from_counts(recipe, counts, "batch")
    elif not isinstance(weights, ClassWeights):
        weights = ClassWeights.from_values(weights, classes, "weights")
    objective = Objective.build(weights.values, recipe, ignore_index, backend, device)
    check_objective(objective, wanted)
    agreement = preflight(objective, look.logits, wanted)
    del look

    def motion(of: Recipe) -> tuple[Step, Stepper]:
        step = Step.build(model, adapter, objective, of)
        if steps.name == "graph":
            return step, GraphStepper(step, of, inputs, wanted)
        return step, EagerStepper(step, of, inputs, wanted, generator)

    with reproducible(), seeded(seed, device):
        tested = None
        if recipe.lr == "auto":

            def reseed() -> None:
                torch.manual_seed(seed)
                generator.manual_seed(seed)

            tested = range_test(model, recipe, lambda of: motion(of)[1], reseed)
            recipe = replace(recipe, lr=tested.rate)
        started = RunHeader(agreement, steps, described_model(model), adapter, tested)
        if on_start is not None:
            on_start(started)
        shares = BaselineShares.from_targets(fixed.targets, classes, ignore_index)
        step, moving = motion(recipe)
        fit = Fit(moving, step, recipe, inputs, wanted, shares)
        history: list[Record] = []
        for record in fit.records():
            history.append(record)
            if on_step is not None:
                on_step(record)
        predictions = fit.predictions()
    fit.camera.take(fit.updates, predictions)
    confusion = _counts(predictions, fixed.targets, classes, ignore_index)
    accuracies = Accuracies.from_confusion(confusion)
    evidence = Evidence(
        accuracies,
        shares.skill(accuracies.pixel),
        retrieval(predictions, fixed.targets, ignore_index),
        fixed.grids.shape[0],
        fit.diverged,
        _clues(model, fixed, accuracies, weights, recipe, history),
    )
    result = OverfitResult(
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
    if before is None or result.passed:
        return result
    patient = FailedRun(model, adapter, fixed, weights, recipe, ignore_index, seed, backend, before, result)
    told: list[Exception] = []

    def on_rerun(change: str, record: Record) -> None:
        try:
            if on_control is not None:
                on_control(change, record)
        except Exception as error:
            told.append(error)
            raise

    try:
        with reproducible(), seeded(seed, device):
            diagnosis = find_cause(patient, overfit, on_rerun)
    except Exception as error:
        if adapter.ours or told:
            raise
        # a model of one's own may raise wherever it is looked at; the run itself must not be lost by it
        _log.warning(f"the cause could not be looked for: {type(error).__name__}: {error}")
        return result
    judgement = replace(result.judgement, next=diagnosis.advice)
    return replace(result, judgement=judgement, diagnosis=diagnosis, seconds=time.perf_counter() - start)


def _count_of(weights: ClassWeights | ArrayLike | None) -> int | None:
    """How many classes the weights are for."""
    if weights is None:
        return None
    return np.asarray(weights.values if isinstance(weights, ClassWeights) else weights).size


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
) -> AdviceContext:
    """What the advice is drawn from."""
    size, height, width = batch.grids.shape
    missed = [c for c, a in enumerate(accuracies.classes) if a is not None and a < recipe.target]
    losses = [record.loss for record in history]
    before = losses[-1 - len(losses) // 4]
    return AdviceContext(
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


def assert_memorises(model: nn.Module, batch: Any, *, diagnose: bool = True, **settings: Any) -> OverfitResult:
    """Run `overfit(model, batch, **settings)` and return its result; AssertionError unless the verdict is MEMORISED.

    The message carries the verdict and its reason, the cause with its evidence, and the next step. A failing assertion
    costs up to six times a check, for the reruns that find the cause; `diagnose=False` leaves them out. Other errors
    are those of `overfit`.
    """
    result = overfit(model, batch, diagnose=diagnose, **settings)
    if not result.passed:
        cause = "" if result.diagnosis is None else f"Cause: {result.diagnosis}. "
        raise AssertionError(f"{result.verdict}: {result.judgement.reason}. {cause}{result.judgement.next}")
    return result
