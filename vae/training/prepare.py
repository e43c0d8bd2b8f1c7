"""What is known before a training run's first update: counts, weights, split, and where it computes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vaefit.cache import ShardCounts
from vaefit.cache.communicator import Communicator
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import require_range
from vaefit.cache.location import Location
from vaefit.cache.schemes import format_labels
from vaefit.kernels import BackendChoice

from ..data.class_weights import ClassWeights
from ..data.counting import counted
from ..loader.augment import Augmentation
from ..loader.split import SeededSplit, Split, find_named_splits, named_split
from ..recipe import STEPS_PER_EPOCH, BetaCycles, BetaRamp, Recipe
from .settings import TrainSettings

WARMUP_PART = 10
"""A short run must not be over before its rate has risen."""

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class PreparedTraining:
    """What is known before the first update."""

    dataset: ShardCounts
    """The whole dataset, all of its splits."""
    data: str | Path | Sequence[Location]
    """What the loaders open."""
    split: Split
    split_words: str
    """How it was made, for people."""
    weights: ClassWeights
    backend: BackendChoice
    device: torch.device
    augment: Augmentation | None

    @classmethod
    def from_settings(
        cls,
        settings: TrainSettings,
        device: torch.device,
        backend: BackendChoice,
        progress: Progress | None,
        ranks: Communicator | None = None,
    ) -> PreparedTraining:
        """Count, split and derive the weights; errors as `counted`, `SeededSplit` and `ClassWeights.from_recipe`."""
        named = find_named_splits(settings.data)
        data = settings.data if named is None else named
        dataset = counted(settings, progress, data, ranks)
        split: Split
        if named is None:
            split, words = seeded_split(settings, dataset.grids)
        else:
            split, words = named_split(named), named_words(named)
            drawn = ("val_share", "test_share", "split_seed", "limit")
            default = TrainSettings("")
            unused = [f"--{n.replace('_', '-')}" for n in drawn if getattr(settings, n) != getattr(default, n)]
            if unused:
                _log.warning(f"{', '.join(unused)} not used: the file comes with its own splits")
        absent = dataset.counts == 0
        if settings.ignore_index in range(dataset.classes):
            absent[settings.ignore_index] = False  # nobody expects it
        if absent.any():
            _log.warning(f"the dataset never holds class {format_labels(absent)}: it cannot be learned")
        weights = ClassWeights.from_recipe(settings.recipe, settings.weights_file, dataset.counts)
        background = int(np.argmax(dataset.counts))
        augment = Augmentation.parse(settings.augment, background, dataset.classes, settings.ignore_index)
        active = augment.rotate or augment.flip or augment.colours
        return cls(dataset, data, split, words, weights, backend, device, augment if active else None)


def seeded_split(settings: TrainSettings, grids: int) -> tuple[SeededSplit, str]:
    """The split of a dataset of so many grids, and how it was made, for people; SettingError as `SeededSplit`."""
    split = SeededSplit(grids, settings.val_share, settings.test_share, settings.split_seed, settings.limit)
    return split, f"drawn by --split-seed {settings.split_seed}"


def named_words(named: Sequence[Location]) -> str:
    """How the split came about that the data come with, for people."""
    return f"the datasets {', '.join(str(location.dataset) for location in named)} of the file"


def recipe_for(settings: TrainSettings, updates: int, epoch: int) -> Recipe:
    """The recipe of so many updates, of which an epoch has `epoch`: its warm-up is at most a tenth of them."""
    recipe, ramp = settings.recipe, settings.recipe.beta_ramp
    if settings.beta_cycles:
        most = max(updates // 2, 1)  # a cycle of one update would be at 0 throughout
        require_range("--beta-cycles", settings.beta_cycles, 1, most)
        ramp = BetaCycles(updates, settings.beta_cycles, recipe.beta)
    elif settings.beta_warmup:
        ramp = BetaRamp(0.0, settings.beta_warmup * epoch / STEPS_PER_EPOCH, recipe.beta)
    warmup = min(recipe.warmup, updates // WARMUP_PART)
    return replace(recipe, iterations=updates, beta_ramp=ramp, warmup=warmup)
