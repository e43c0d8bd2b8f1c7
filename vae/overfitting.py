"""The overfit check: fit one fixed batch, measure every step, and judge the final reconstruction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from inspect import signature, unwrap
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vaefit.cache.errors import SettingError
from vaefit.kernels import Backend, choose_backend, confusion_counts

from .data.batch import Batch, as_batch
from .data.class_weights import ClassWeights
from .diagnosis.failed_run import FailedRun
from .diagnosis.find_cause import find_cause
from .diagnosis.reruns import OnControl
from .environment.determinism import reproducible, unseeded
from .errors import no_argument
from .fitting.cuda_graph import choose_steps
from .fitting.loop import Fit
from .fitting.lr_range_test import range_test
from .fitting.mode_gap import find_gap
from .fitting.result import OverfitResult, Reached, Record, RunHeader
from .fitting.setup import ReadyModel
from .metrics.accuracy import Accuracies, BaselineShares, Labels, distinct, retrieval, variation
from .metrics.advice import AdviceContext
from .metrics.verdict import PIXEL_ABOVE, Evidence, judge
from .model.beta_vae import BetaVAE
from .model.network import described_model, device_of
from .python_words import python_words, speaks_python
from .recipe import RECIPES, Recipe

_log = logging.getLogger("vaefit")

FOREIGN = Recipe(init=None, lr="auto")
"""The default for a model that is not a BetaVAE: it keeps its own initialisation, and 2e-3 does not suit all models."""
TAIL_STEPS = 20
"""Longest run whose advice does not consider the fall of the loss over its last quarter."""


@speaks_python
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
    stop: Callable[[], bool] | None = None,
    **unknown: NoReturn,
) -> OverfitResult:
    """Fit `model` to one fixed batch and judge whether it memorised it. The model is trained in place.

    The result does not depend on the caller's context: gradients are on and autocast is off during the fit, a model in
    evaluation mode is trained in training mode, and the context is restored afterwards. The model is left in evaluation
    mode. Fits in threads of one process take turns, because models draw from torch's global generators: a callback must
    not wait for a fit in another thread.

    Args:
        model: takes labels (B, H, W) int64, or their one-hot form (B, C, H, W) in floats, and returns logits
            (B, C, H, W), or a tuple, mapping or dataclass with logits, mu and logvar; the forms are found by trying the
            batch. It runs on the device of its parameters.
        batch: (B, H, W) integer labels.
        targets: (B, H, W) integer labels that the model must return; None takes the batch itself.
        classes: C; None takes the channels of the model's logits.
        weights: (C,) class weights, best those of the whole dataset, `vaefit.cache.class_weights(path)`; None derives
            them from the batch by the recipe's scheme.
        recipe: every setting; None is the default recipe. A model that is not a BetaVAE then keeps its own
            initialisation, and a range test chooses its learning rate.
        ignore_index: cells with this label count nowhere.
        seed: drives initialisation, sampled z and resampling.
        graph: replay each step as a CUDA graph; None does so where it gives the numbers of the loop.
        diagnose: after a run that does not memorise, find the cause by short reruns from the same start; see
            `OverfitResult.diagnosis`. The model keeps the parameters of the run itself.
        on_start: called once, after the loss agreed with its reference.
        on_step: called with the record of every step, for one window of steps at a time where they are a graph.
        on_control: called during the diagnosis with the change of a rerun and the record of its step.
        stop: called before each update, and at each step of the diagnosis; where it returns True, the run ends there,
            and its result is marked as interrupted. Ctrl-C raises KeyboardInterrupt instead, as everywhere: the model
            then keeps the parameters of its last update.

    Raises:
        ValueError: labels or weights do not fit the model's classes, or a setting is wrong by itself.
        RunError: the model returns no logits, a graph was requested but cannot run, the objective is not its closed
            form, or the loss, its gradient or the counts are not those of the reference.
        TypeError: an argument is unknown; the message says where a field of the recipe belongs.
    """
    start = time.perf_counter()
    if unknown:
        raise TypeError(_unknown_argument(*next(iter(unknown.items()))))
    fixed = as_batch(batch, targets)
    recipe = _checked_recipe(recipe, model)
    device = device_of(model)
    implementation = choose_backend(backend, device).name
    steps = choose_steps(graph, device, recipe, implementation, type(model) is BetaVAE)
    as_graph = steps.name == "graph"
    with reproducible(seed, device):
        ready = ReadyModel.from_batch(
            model, fixed, recipe, seed, backend, classes, weights, ignore_index, keep_uninitialised=diagnose
        )
        adapter, weights, counts = ready.adapter, ready.weights, ready.target_counts
        if (counts > 0).sum() == 1:
            what = f"every cell of the batch that counts holds class {counts.argmax()}"
            _log.warning(f"{what}: the verdict of this run is meaningless")
        tested = range_test(ready, recipe, seed, as_graph)
        if tested is not None:
            recipe = replace(recipe, lr=tested.rate)
        step, stepper = ready.build_stepper(recipe, torch.Generator().manual_seed(seed), as_graph)
        header = RunHeader(ready.agreement, steps, described_model(model), adapter, tested)
        if on_start is not None:
            with unseeded(device):
                on_start(header)
        shares = BaselineShares.from_targets(fixed.targets, adapter.classes, ignore_index)
        fit = Fit(stepper, step, recipe, ready.targets, shares, fixed.other_targets is not None, stop or _never)
        history: list[Record] = []
        for record in fit.records():
            history.append(record)
            if on_step is not None:
                with unseeded(device):
                    on_step(record)
        predictions = fit.final_predictions()

        def measured(predictions: Labels) -> tuple[NDArray[np.int64], Evidence]:
            found, wanted = torch.from_numpy(predictions), ready.targets.cpu()
            ignored, size = ready.objective.ignore_index, adapter.classes
            confusion = confusion_counts(found, wanted, ignored, num_classes=size).numpy()
            accuracies = Accuracies.from_confusion(confusion)
            return confusion, Evidence(
                accuracies,
                shares.skill(accuracies.pixel),
                retrieval(predictions, fixed.targets, ignore_index),
                variation(predictions, fixed.targets, adapter.classes, ignore_index),
                fixed.other_targets is not None,
                diverged=fit.diverged,
            )

        confusion, evidence = measured(predictions)
        gap = find_gap(
            model, adapter, ready.inputs, evidence, lambda found: measured(found)[1], recipe.target, fit.updates
        )
        not_updated = fit.reach.not_updated(adapter, ready.inputs)
    accuracies = evidence.accuracies
    context = _advice_context(model, fixed, accuracies, weights, recipe, history)
    evidence = replace(evidence, gap=gap, context=context)
    judgement = judge(evidence, recipe)
    if fit.interrupted:
        judgement = judgement.of_interrupted_run(fit.updates, recipe.iterations)
    result = OverfitResult(
        judgement=judgement,
        iterations=fit.updates,
        reached=_reached(history),
        accuracies=accuracies,
        confusion=confusion,
        shares=shares,
        skill=evidence.skill,
        retrieval=evidence.retrieval,
        variation=evidence.variation,
        distinct_pictures=distinct(predictions),
        batch=fixed,
        weights=weights,
        recipe=recipe,
        backend=implementation,
        start=header,
        seconds=time.perf_counter() - start,
        history=tuple(history),
        predictions=predictions,
        film=fit.frames.frames(),
        ignore_index=ignore_index,
        not_updated=not_updated,
        interrupted=fit.interrupted,
        gap=gap,
    )
    if ready.uninitialised is None or result.passed or result.interrupted:
        return result
    failed = FailedRun(model, adapter, fixed, weights, recipe, ignore_index, seed, backend, ready.uninitialised, result)
    caller_errors: list[Exception] = []

    def on_rerun(change: str, record: Record) -> None:
        if stop is not None and stop():
            raise _DiagnosisStopped
        try:
            if on_control is not None:
                on_control(change, record)
        except Exception as error:
            caller_errors.append(error)
            raise

    try:
        with reproducible(seed, device):
            diagnosis = find_cause(failed, unwrap(overfit), on_rerun)
    except _DiagnosisStopped:
        return replace(result, interrupted=True)
    except Exception as error:
        if adapter.ours or caller_errors:
            raise
        # a user's model may raise in any probe; the run itself must not be lost by it
        _log.warning(f"the diagnosis failed: {type(error).__name__}: {error}")
        return result
    judgement = replace(result.judgement, next=diagnosis.advice)
    return replace(result, judgement=judgement, diagnosis=diagnosis, seconds=time.perf_counter() - start)


class _DiagnosisStopped(BaseException):
    """`stop` returned True in a rerun; no Exception, which a rerun of a user's model would take for its own."""


def _never() -> bool:
    return False


def _unknown_argument(name: str, value: object) -> str:
    if name == "optimiser" or name in Recipe.__dataclass_fields__:
        return f"overfit() has no argument {name!r}: it belongs to the recipe. Pass recipe=Recipe({name}={value!r})."
    return no_argument("overfit()", name, signature(overfit).parameters)


def _checked_recipe(recipe: object, model: nn.Module) -> Recipe:
    """Return the recipe, or the default one for the model; SettingError for anything but a Recipe."""
    if recipe is None:
        return Recipe() if isinstance(model, BetaVAE) else FOREIGN
    if isinstance(recipe, Recipe):
        return recipe
    do = f"Pass RECIPES[{recipe!r}]." if recipe in tuple(RECIPES) else "Pass a vaefit.vae.Recipe, or one of RECIPES."
    raise SettingError("the recipe must be a Recipe", "recipe", repr(recipe), do)


def _advice_context(
    model: nn.Module,
    batch: Batch,
    accuracies: Accuracies,
    weights: ClassWeights,
    recipe: Recipe,
    history: list[Record],
) -> AdviceContext:
    """Return the facts that the advice depends on."""
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
        untrained=history[-1].step == 0,
    )


def _reached(history: list[Record]) -> Reached:
    return Reached(
        pixel_95=next((r.step for r in history if r.accuracies.pixel >= 0.95), None),
        worst_class_95=next((r.step for r in history if r.accuracies.worst >= 0.95), None),
        exact=next((r.step for r in history if r.accuracies.exact), None),
    )


def assert_memorises(model: nn.Module, batch: Any, *, diagnose: bool = True, **settings: Any) -> OverfitResult:
    """Run `overfit(model, batch, **settings)` and return its result; AssertionError unless the verdict is MEMORISED.

    The message contains the verdict and its reason, the cause with its evidence, and the next step. A failing assertion
    costs up to six times a check, because reruns find the cause; `diagnose=False` leaves them out. Other errors are
    those of `overfit`.
    """
    result = overfit(model, batch, diagnose=diagnose, **settings)
    if not result.passed:
        cause = "" if result.diagnosis is None else f"Cause: {result.diagnosis}. "
        notes = "".join(f"Note: {note}. " for note in result.not_updated.notes)
        told = f"{result.verdict}: {result.judgement.reason}. {notes}{cause}{result.judgement.next}"
        raise AssertionError(python_words(told, own_init=result.recipe.init is None))
    return result
