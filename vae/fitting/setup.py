"""Setup of a run before its first update, in one order for `overfit` and `train`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vaefit.cache import ShardCounts
from vaefit.cache.communicator import Communicator
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import require_range
from vaefit.cache.location import Location
from vaefit.cache.scan.histogram import MAX_CLASSES
from vaefit.cache.schemes import format_labels
from vaefit.cache.shards import Data
from vaefit.kernels import Backend, BackendChoice

from ..data.batch import Batch, check_labels
from ..data.class_weights import ClassWeights
from ..data.counting import counted
from ..environment.determinism import seeded
from ..environment.device import choose_device, preferred_backend
from ..errors import RunError, UserCodeError
from ..loader.split import find_named_splits
from ..model.adapter import Adapter, find_adapter
from ..model.initialisation import initialise
from ..model.network import device_of
from ..model.state import Snapshot
from ..model.user_model import LoadedModel
from ..objective.objective import Objective, check_objective
from ..objective.preflight import Agreement, preflight
from ..optim.train_step import Step
from ..recipe import Recipe
from ..settings import RunSettings
from .eager_stepper import EagerStepper
from .graph_stepper import GraphStepper
from .stepper import Stepper

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class Compute:
    """Device, focal loss backend and network source of a run."""

    device: torch.device
    requested: Backend
    backend: BackendChoice
    """The backend that runs."""
    loaded: LoadedModel | None
    """The user's network; None for a BetaVAE."""

    @classmethod
    def from_settings(cls, settings: RunSettings) -> Compute:
        """Choose device and backend and import the network, before any data is read.

        Raises RunError where one of them is not available.
        """
        device = choose_device(settings.device)
        requested, backend = preferred_backend(settings.backend, device)
        return cls(device, requested, backend, None if settings.model is None else settings.model.load())


@dataclass(frozen=True)
class RunData:
    """Counted dataset of a run."""

    counts: ShardCounts
    """Counts of the whole dataset, all splits included."""
    splits: Sequence[Location] | None
    """Datasets of the file named `train`, `val` and so on; None where it has none."""
    source: Data
    """The data to open."""

    @classmethod
    def from_settings(
        cls, settings: RunSettings, progress: Progress | None, ranks: Communicator | None = None
    ) -> RunData:
        """Find the splits, count the dataset, and warn about classes that it does not hold; errors as `counted`."""
        splits = find_named_splits(settings.data)
        source = settings.data if splits is None else splits
        counts = counted(settings, progress, source, ranks)
        absent = counts.counts == 0
        if counts.ignore_index is not None and 0 <= counts.ignore_index < counts.classes:
            absent[counts.ignore_index] = False  # ignored cells are never counted
        if absent.any():
            what = f"the dataset never holds class {format_labels(absent)}"
            _log.warning(f"{what}: no model can learn it from these data")
        return cls(counts, splits, source)


@dataclass(frozen=True)
class ReadyModel:
    """Initialised model with class weights and an objective that agrees with its references."""

    model: nn.Module
    adapter: Adapter
    inputs: Tensor
    """The batch in the form that the model takes."""
    targets: Tensor
    """(B, H, W) int64 labels on the model's device."""
    target_counts: NDArray[np.int64]
    """(C,) cells of each class in the targets; ignored cells are not counted."""
    weights: ClassWeights
    objective: Objective
    agreement: Agreement | None
    """Result of the preflight; None where no gradient is finite."""
    uninitialised: Snapshot | None
    """The model before its initialisation; None unless requested."""

    @classmethod
    def from_batch(
        cls,
        model: nn.Module,
        batch: Batch,
        recipe: Recipe,
        seed: int,
        backend: Backend,
        classes: int | None = None,
        weights: ClassWeights | ArrayLike | None = None,
        ignore_index: int | None = None,
        keep_uninitialised: bool = False,
    ) -> ReadyModel:
        """Inspect and initialise the model in place on a batch, then build and check its objective.

        Args:
            classes: C; None takes the channels of the model's logits.
            weights: (C,) class weights; None derives them from the batch by the recipe's scheme.

        Raises:
            DataError: a label is outside the classes, or every cell is ignored.
            SettingError: the weights are not (C,).
            RunError: the model returns no logits of these classes, or the objective differs from its closed form or
                from the float64 reference.
        """
        device = device_of(model)
        labels = torch.from_numpy(batch.grids).to(device)
        targets = torch.from_numpy(batch.targets).to(device)
        given = weights.values if isinstance(weights, ClassWeights) else weights
        expected = None if given is None else np.asarray(given).size
        with seeded(seed, device), _before_the_first_update():
            adapter = find_adapter(model, labels, classes, expected, ignore_index)
            if adapter.gives.latent is None and (recipe.largest_beta > 0 or recipe.free_bits > 0):
                do = "Return (logits, mu, logvar) or a mapping with these names, or leave beta and free bits at 0."
                what = "beta and free bits need mu and logvar, which were not found in what the model returns"
                raise RunError(what, type(model).__name__, str(adapter.gives), do)
            if not model.training:
                model.train()  # of a model in training mode, frozen parts stay in evaluation mode
            uninitialised = Snapshot.from_model(model) if keep_uninitialised else None
            inputs = adapter.inputs(labels, model)
            if recipe.init is not None:
                initialise(model, recipe.init, lambda: adapter.outputs(model, inputs), seed)
            logits = adapter.first_logits(model, inputs)
        classes = adapter.classes
        require_range("classes", classes, 2, MAX_CLASSES)
        check_labels(batch.grids, classes, ignore_index)
        if batch.other_targets is not None:
            check_labels(batch.targets, classes, ignore_index)
        counts = batch.counts(classes, ignore_index)
        if weights is None:
            weights = ClassWeights.from_counts(recipe, counts, "batch")
        elif not isinstance(weights, ClassWeights):
            weights = ClassWeights.from_values(weights, classes, "weights")
        objective = Objective.build(weights.values, recipe, ignore_index, backend, device)
        check_objective(objective, targets)
        agreement = preflight(objective, logits, targets)
        return cls(model, adapter, inputs, targets, counts, weights, objective, agreement, uninitialised)

    def build_stepper(self, recipe: Recipe, generator: torch.Generator, graph: bool = False) -> tuple[Step, Stepper]:
        """Build the step of a recipe and the stepper on the batch; `generator` draws noise and resampled rows."""
        step = Step.build(self.model, self.adapter, self.objective, recipe)
        if graph:
            return step, GraphStepper(step, recipe, self.inputs, self.targets)
        return step, EagerStepper(step, recipe, self.inputs, self.targets, generator)


@contextmanager
def _before_the_first_update() -> Iterator[None]:
    """Context manager: add this moment to an exception of the user's model."""
    try:
        yield
    except UserCodeError as error:
        raise error.at("before the first update") from error.__cause__
