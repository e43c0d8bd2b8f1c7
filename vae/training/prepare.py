"""Preparation of a training run before its first update: counts, split, class weights, and the recipe's schedule."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vaefit.cache import ShardCounts
from vaefit.cache.communicator import Communicator
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import require_range
from vaefit.cache.location import Location
from vaefit.cache.shards import Data
from vaefit.kernels import BackendChoice

from ..data.class_weights import ClassWeights
from ..fitting.setup import Compute, RunData
from ..loader.augment import Augmentation
from ..loader.split import SeededSplit, Split, named_split
from ..recipe import STEPS_PER_EPOCH, BetaCycles, BetaRamp, Recipe
from .settings import TrainSettings

WARMUP_SHARE = 10
"""The warm-up takes at most one in this many updates, so that a short run reaches its full rate."""

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class PreparedTraining:
    """Inputs of a training run before its network is built."""

    dataset: ShardCounts
    """Counts of the whole dataset, all splits included."""
    data: Data
    """The data that the loaders open."""
    split: Split
    split_words: str
    """Origin of the split, in words."""
    weights: ClassWeights
    backend: BackendChoice
    device: torch.device
    augment: Augmentation | None

    @classmethod
    def from_settings(
        cls, settings: TrainSettings, compute: Compute, progress: Progress | None, ranks: Communicator | None = None
    ) -> PreparedTraining:
        """Count, split and derive the weights; errors as `counted`, `SeededSplit` and `ClassWeights.from_recipe`."""
        data = RunData.from_settings(settings, progress, ranks)
        dataset, named = data.counts, data.splits
        split: Split
        if named is None:
            split, words = seeded_split(settings, dataset.grids)
        else:
            split, words = named_split(named), named_words(named)
            default = TrainSettings("")
            fields = ("val_share", "test_share", "split_seed", "limit")
            unused = [f"--{n.replace('_', '-')}" for n in fields if getattr(settings, n) != getattr(default, n)]
            if unused:
                _log.warning(f"{', '.join(unused)} not used: the file comes with its own splits")
        weights = ClassWeights.from_recipe(settings.recipe, settings.weights_file, dataset.counts)
        background = int(np.argmax(dataset.counts))
        augment = Augmentation.parse(settings.augment, background, dataset.classes, dataset.ignore_index)
        active = augment if augment.rotate or augment.flip or augment.colours else None
        return cls(dataset, data.source, split, words, weights, compute.backend, compute.device, active)


def seeded_split(settings: TrainSettings, grids: int) -> tuple[SeededSplit, str]:
    """Return the split of a dataset of `grids` grids, and its origin in words; SettingError as `SeededSplit`."""
    split = SeededSplit(grids, settings.val_share, settings.test_share, settings.split_seed, settings.limit)
    return split, f"drawn by --split-seed {settings.split_seed}"


def named_words(named: Sequence[Location]) -> str:
    """Return the origin of the splits that the file names, in words."""
    return f"the datasets {', '.join(str(location.dataset) for location in named)} of the file"


def recipe_for(settings: TrainSettings, updates: int, epoch: int) -> Recipe:
    """Return the recipe for a run of `updates` updates, `epoch` an epoch; its warm-up is at most a tenth of them."""
    recipe, ramp = settings.recipe, settings.recipe.beta_ramp
    if settings.beta_cycles:
        most = max(updates // 2, 1)  # a cycle of one update would stay at 0
        require_range("--beta-cycles", settings.beta_cycles, 1, most)
        ramp = BetaCycles(updates, settings.beta_cycles, recipe.beta)
    elif settings.beta_warmup:
        ramp = BetaRamp(0.0, settings.beta_warmup * epoch / STEPS_PER_EPOCH, recipe.beta)
    warmup = min(recipe.warmup, updates // WARMUP_SHARE)
    return replace(recipe, iterations=updates, beta_ramp=ramp, warmup=warmup)
