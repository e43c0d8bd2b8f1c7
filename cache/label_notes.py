"""Notes on the labels of a dataset: what its files say of them, and labels that hardly are classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

if TYPE_CHECKING:
    from .dataset_counts import DatasetCounts

RENUMBER = "`vaefit-cli data relabel DATA NEW.h5 --renumber` numbers the labels from 0."
"""Advice for labels with gaps."""
_VOID = (127, 255, 32767, 65535)
"""Largest labels of the integer types, which mark cells without a class in many datasets."""
_SPARE = 8
"""A dataset may lack so many classes more than half of them before its labels are said to have gaps."""


def agreed_ignore(shards: Sequence[DatasetCounts]) -> int | None:
    """Return the ignored label of all shards; DataError where their attributes declare different ones."""
    first = shards[0]
    for shard in shards:
        if shard.ignore_index != first.ignore_index:
            got = f"{shard.ignore_index}, where {first.location} has {first.ignore_index}"
            do = f"Pass --ignore-index {first.ignore_index if shard.ignore_index is None else shard.ignore_index}."
            raise DataError("the shards of one dataset ignore one label", str(shard.location), got, do)
    return first.ignore_index


def label_notes(shards: Sequence[DatasetCounts], counts: NDArray[np.int64], where: str, chosen: bool) -> Iterator[str]:
    """Yield the notes on counted shards; `chosen` where the caller gave the ignored label.

    `counts` are those of all shards, (C,).
    """
    for shard in shards[:1]:  # the others are stored alike, or else their counts differ
        found = shard.described
        if found.stored_shape != found.shape:
            yield f"{where}: shape {found.stored_shape} is read as {found.shape}, without the axis of length 1"
    if not chosen and shards[0].ignore_index is not None:
        label = shards[0].ignore_index
        cells = sum(int(np.prod(shard.shape)) - shard.cells for shard in shards)
        name = shards[0].described.ignore_attribute
        said = f"the attribute `{name}` says that label {label} is ignored, {cells:,} cells"
        yield f"{where}: {said}; --ignore-index replaces it"
    if not any(shard.described.declared_classes for shard in shards):
        yield from _gaps(np.flatnonzero(counts), counts.size, where)


def _gaps(labels: NDArray[np.intp], classes: int, where: str) -> Iterator[str]:
    """Yield a note where most classes never occur, or the largest label lies far above the others."""
    if labels.size < 2 or labels[-1] + 1 < classes:
        return
    below, largest = (int(label) for label in labels[-2:])
    far = largest - below > 1 and (largest in _VOID or largest - below > labels.size)
    scattered = below + 1 > 2 * (labels.size - 1) + _SPARE
    if far and labels.size == 2:
        yield f"{where}: the labels are {below} and {largest} only, which makes {classes} classes. {RENUMBER}"
    elif far and not scattered:
        what = f"label {largest} lies far above the others, 0 to {below}, which makes {classes} classes"
        yield f"{where}: {what}; if it marks cells without a class, pass --ignore-index {largest}"
    elif scattered or classes > 2 * labels.size + _SPARE:
        yield f"{where}: {labels.size} labels up to {largest} make {classes} classes. {RENUMBER}"
