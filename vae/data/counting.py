"""The dataset of a run, counted: the one way in which every run comes to its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaefit.cache import ShardCounts, count_shards
from vaefit.cache.communicator import Communicator
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import DataError
from vaefit.cache.shards import Data

if TYPE_CHECKING:
    from ..settings import RunSettings


def counted(
    settings: RunSettings, progress: Progress | None, data: Data | None = None, ranks: Communicator | None = None
) -> ShardCounts:
    """Counts of the whole dataset, cached ones where they are true; DataError as `count_shards`, and for one class.

    `data` takes the place of the settings' own; `ranks` count together.
    """
    dataset = count_shards(
        settings.data if data is None else data,
        classes=settings.classes,
        ignore_index=settings.ignore_index,
        cache_dir=settings.cache_dir,
        may_scan=settings.may_scan,
        progress=progress,
        ranks=ranks,
    )
    if dataset.classes < 2:
        raise DataError(
            "every counted cell holds one class, so there is nothing to learn",
            dataset.name,
            do="Check --ignore-index, or pass --classes.",
        )
    return dataset
