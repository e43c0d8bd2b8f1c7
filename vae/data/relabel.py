"""Copy of a dataset with other labels: named ones replaced, or all numbered from 0 without gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError
from vaefit.cache.hdf5.blocks import MAX_CLASSES, MAX_LABELS
from vaefit.cache.hdf5.dataset import declared_ignore, open_grids
from vaefit.cache.hdf5.grids import Grids, opened
from vaefit.cache.shards import Data, find_shards

from .hdf5_writer import DatasetSpec, refuse_existing, write_blocks


@dataclass(frozen=True)
class Relabelled:
    """The copy, and the new label of each label that the dataset holds."""

    shape: tuple[int, int, int]
    labels: dict[int, int]
    ignore_index: int | None
    """The label to ignore in the copy, which its attribute declares."""


def relabel(
    data: Data,
    out: Path,
    mapping: Mapping[int, int],
    renumber: bool = False,
    ignore_index: int | None = None,
    overwrite: bool = False,
) -> Relabelled:
    """Write the dataset with each label in `mapping` replaced, and then, with `renumber`, numbered from 0 in order.

    The label to ignore, `ignore_index` or else what an attribute declares, gets no number: it becomes 255 in the copy,
    and the attribute `ignore_index` there says so. Raises DataError for more than 65,536 different labels, or for a
    new label that no class can have, and RunError as `write_blocks`.
    """
    refuse_existing(out, overwrite)
    for shard in find_shards(data) if ignore_index is None else ():
        with open_grids(shard) as dataset:
            declared = declared_ignore(dataset)
            ignore_index = declared[0] if declared else ignore_index
    with opened(data) as grids:
        old = _labels(grids)
        new = {label: mapping.get(label, label) for label in old}
        void = ignore_index if ignore_index in new and ignore_index not in mapping else None
        classes = sorted({now for label, now in new.items() if label != void})
        if renumber:
            new = {label: classes.index(now) for label, now in new.items() if label != void}
            classes = sorted(new.values())
        ignored = None
        if void is not None:
            ignored = new[void] = MAX_CLASSES - 1 if (classes or [0])[-1] < MAX_CLASSES - 1 else MAX_LABELS - 1
        outside = [label for label in new.values() if not 0 <= label < MAX_LABELS]
        if outside:
            do = f"Map it to 0 to {MAX_LABELS - 1}, or pass --renumber."
            raise DataError("no class has such a number", grids.name, str(outside[0]), do)
        dtype = np.dtype(np.uint8 if max(new.values()) < MAX_CLASSES else np.uint16)
        spec = DatasetSpec(grids.shape, dtype, None, f"{grids.name}, with other labels", ignored)
        write_blocks(out, _mapped(grids, old, np.array([new[label] for label in old], dtype)), spec, overwrite)
        return Relabelled(grids.shape, dict(sorted(new.items())), ignored)


def _labels(grids: Grids) -> list[int]:
    """Return the labels that occur, in order; DataError for too many."""
    found: set[int] = set()
    for _, block in grids.blocks():
        found.update(np.unique(block).tolist())
        if len(found) > MAX_LABELS:
            do = "These hardly are classes: check which dataset holds the labels."
            raise DataError(f"there are more than {MAX_LABELS:,} different labels", grids.name, do=do)
    return sorted(found)


def _mapped(grids: Grids, old: list[int], new: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
    """Yield the blocks of the dataset with other labels."""
    keys = np.array(old, grids.dtype)
    for _, block in grids.blocks():
        yield new[np.searchsorted(keys, block)]
