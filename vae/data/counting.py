"""Class counts of the dataset of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaefit.cache import ShardCounts, count_shards
from vaefit.cache.communicator import Communicator
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import DataError
from vaefit.cache.hdf5.blocks import MAX_CLASSES
from vaefit.cache.label_notes import RENUMBER
from vaefit.cache.shards import Data

if TYPE_CHECKING:
    from ..settings import RunSettings


def counted(
    settings: RunSettings, progress: Progress | None, data: Data | None = None, ranks: Communicator | None = None
) -> ShardCounts:
    """Return the counts of the whole dataset, from the cache where it is valid.

    `data` replaces the data of the settings; all `ranks` count together, and prove that they will all read the same
    bytes. Raises DataError as `count_shards`, and for a dataset of fewer than two classes, or more than a loss takes.
    """
    data = settings.data if data is None else data
    dataset = count_shards(
        data,
        classes=settings.classes,
        ignore_index=settings.ignore_index,
        cache_dir=settings.cache_dir,
        may_scan=settings.may_scan,
        progress=progress,
        ranks=ranks,
    )
    if ranks is not None:
        from vaefit.cache.distributed.copies import require_same_copies

        require_same_copies(ranks, data, dataset.shards, settings.cache_dir)
    given = settings.classes or any(shard.described.declared_classes for shard in dataset.shards)
    if dataset.classes < 2 or (not given and np.count_nonzero(dataset.counts) < 2):
        what = "every counted cell holds one class, so there is nothing to learn"
        raise DataError(what, dataset.name, do="Check --ignore-index, or pass --classes.")
    if dataset.classes > MAX_CLASSES:
        present = np.flatnonzero(dataset.counts)
        what = f"the dataset has {present.size} labels up to {present[-1]}, and the loss takes {MAX_CLASSES} classes"
        raise DataError(what, dataset.name, f"{dataset.classes} classes", RENUMBER)
    return dataset
