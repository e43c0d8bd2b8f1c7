"""The fixed batch of a run: a uniform sample of distinct grids, then greedy swaps that bring in missing classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaefit.cache.errors import DataError, SettingError
from vaefit.cache.hdf5.grids import Grids, opened
from vaefit.cache.scan.histogram import outside_classes
from vaefit.cache.shards import Data

from ..metrics.accuracy import Labels

CANDIDATES_PER_GRID = 8
"""Random grids that are read for each grid of the batch before the whole dataset is searched for distinct ones."""
MAX_CANDIDATES = 4096
"""Most grids with different sets of classes that are considered for swaps; as many as there are sets of 12 classes."""


@dataclass(frozen=True)
class Batch:
    """The grids that a run tries to memorise."""

    grids: NDArray[np.int64]
    """(B, H, W) labels."""
    indices: tuple[int, ...]
    """Position of each grid in the dataset, counted through all its shards; empty for grids from no dataset."""
    swapped: int = 0
    """Number of grids of the uniform sample that were replaced to bring in missing classes."""
    other_targets: NDArray[np.int64] | None = None
    """(B, H, W) labels that the model must return, where they are not the grids themselves."""

    @property
    def targets(self) -> NDArray[np.int64]:
        """(B, H, W) labels that the model must return."""
        return self.grids if self.other_targets is None else self.other_targets

    def counts(self, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
        """Return the cells of each class in the targets (C,), without ignored cells."""
        kept = self.targets if ignore_index is None else self.targets[self.targets != ignore_index]
        return np.bincount(kept.reshape(-1), minlength=num_classes)

    @property
    def digest(self) -> str:
        """sha256 of the shape, as text "(B, H, W)", and of the row-major cells as uint8; 64 hex digits.

        Targets that are not the grids are appended in the same form, without a shape.
        """
        digest = hashlib.sha256(str(self.grids.shape).encode())
        for labels in (self.grids, self.other_targets):
            if labels is not None:
                digest.update(labels.astype(np.uint8).tobytes())
        return digest.hexdigest()


def choose_batch(
    data: Data,
    dataset_counts: NDArray[np.int64],
    size: int = 32,
    seed: int = 0,
    ignore_index: int | None = None,
    allow_duplicates: bool = False,
) -> Batch:
    """Choose `size` grids: a seeded uniform sample of distinct ones, then greedy swaps that bring in missing classes.

    A class is missing if the dataset holds it and the sample does not. Each swap shows at least one missing class and
    hides none, so there are at most as many swaps as missing classes. Classes that no such swap can show stay missing.

    Args:
        dataset_counts: (C,), cells of each class in the whole dataset.
        allow_duplicates: equal grids may be drawn, and one grid twice where the dataset holds fewer than `size`.

    Raises DataError where the dataset has fewer distinct grids than `size` and duplicates are not allowed.
    """
    if size < 1:
        raise SettingError("a batch holds at least one grid", "--batch-size", str(size), "Pass 1 or more.")
    rng = np.random.default_rng(seed)
    with opened(data) as dataset:
        if allow_duplicates:
            n = dataset.shape[0]
            indices = rng.choice(n, size, replace=n < size).tolist()
            grids = dataset.at(indices).astype(np.int64)
        else:
            indices, grids = _distinct_sample(dataset, size, rng)
        shown = _classes_of(grids, np.arange(dataset_counts.size), ignore_index)
        missing = (dataset_counts > 0) & ~shown.any(axis=0)
        candidates = _candidates(dataset, shown, missing, rng, ignore_index) if missing.any() else {}
        swaps = _greedy_swaps(shown, candidates)
        for place, index in swaps.items():
            indices[place], grids[place] = index, dataset[index]
    return Batch(grids, tuple(indices), len(swaps))


def batch_at(data: Data, indices: Sequence[int], allow_duplicates: bool = False) -> Batch:
    """Return the grids at the caller's own indices, in the given order.

    Raises DataError for an index outside the dataset, and for equal grids unless `allow_duplicates`.
    """
    with opened(data) as dataset:
        n, name = dataset.shape[0], dataset.name
        for index in indices:
            if not 0 <= index < n:
                raise DataError("there is no such grid", name, f"index {index}", f"Use indices 0 to {n - 1}.")
        grids = dataset.at(indices).astype(np.int64)
    if not allow_duplicates and len({grid.tobytes() for grid in grids}) < len(indices):
        raise DataError("some grids at these indices are equal", name, do="Drop them, or pass --allow-duplicates.")
    return Batch(grids, tuple(indices))


def _distinct_sample(dataset: Grids, size: int, rng: np.random.Generator) -> tuple[list[int], NDArray[np.int64]]:
    """Draw `size` grids with different cells in random order; return their indices and the grids (B, H, W)."""
    n = dataset.shape[0]
    drawn = rng.choice(n, min(n, CANDIDATES_PER_GRID * size), replace=False).tolist()
    chosen: dict[bytes, int] = {}
    grids: list[NDArray[np.integer]] = []
    for first in range(0, len(drawn), size):
        piece = drawn[first : first + size]
        for index, grid in zip(piece, dataset.at(piece), strict=True):
            if grid.tobytes() not in chosen:
                chosen[grid.tobytes()] = index
                grids.append(grid)
            if len(chosen) == size:
                return list(chosen.values()), np.stack(grids).astype(np.int64)
    # many equal grids: keep the `size` distinct ones whose salted digests are smallest, a uniform choice in one scan
    salt = rng.bytes(16)
    smallest: dict[bytes, int] = {}
    for first, block in dataset.blocks():
        for offset, grid in enumerate(block):
            smallest.setdefault(hashlib.blake2b(grid.tobytes(), key=salt, digest_size=16).digest(), first + offset)
        smallest = dict(sorted(smallest.items())[:size])
    if len(smallest) < size:
        what = f"the dataset has {len(smallest)} distinct grids, fewer than the batch"
        do = f"Pass --batch-size {len(smallest)}, or --allow-duplicates."
        raise DataError(what, dataset.name, f"--batch-size {size}", do)
    indices = list(smallest.values())
    return indices, dataset.at(indices).astype(np.int64)


def _candidates(
    dataset: Grids,
    shown: NDArray[np.bool_],
    missing: NDArray[np.bool_],
    rng: np.random.Generator,
    ignore_index: int | None,
) -> dict[int, NDArray[np.bool_]]:
    """Return grids that show a missing class: the classes (C,) of each by its index in the dataset.

    One grid, random in its block, stands for all grids with the same classes. The scan ends early at a grid that shows
    all missing classes in one swap. `shown` is (B, C), `missing` is (C,).
    """
    found: dict[bytes, tuple[int, NDArray[np.bool_]]] = {}
    covered = np.zeros_like(missing)
    for first, block in dataset.blocks():
        # missing classes lie in few grids, so all classes are looked up in those grids alone
        holders = np.flatnonzero(_classes_of(block, np.flatnonzero(missing), ignore_index).any(axis=1))
        rows = _classes_of(block[holders], np.arange(missing.size), ignore_index)
        for place in rng.permutation(holders.size).tolist():
            row = rows[place]
            if row.tobytes() in found or (len(found) >= MAX_CANDIDATES and not (row & missing & ~covered).any()):
                continue
            index = first + int(holders[place])
            if row[missing].all() and _free_place(shown, row) is not None:
                return {index: row}
            found[row.tobytes()] = index, row
            covered |= row
    return dict(found.values())


def _greedy_swaps(shown: NDArray[np.bool_], candidates: dict[int, NDArray[np.bool_]]) -> dict[int, int]:
    """Choose swaps, each time the one that shows most new classes; return the index of the new grid for each place.

    A swap is possible if it hides no class. `shown` (B, C) is updated in place.
    """
    swaps: dict[int, int] = {}
    while True:
        gains = {index: int((row & ~shown.any(axis=0)).sum()) for index, row in candidates.items()}
        for index in sorted((index for index, gain in gains.items() if gain), key=gains.__getitem__, reverse=True):
            place = _free_place(shown, candidates[index])
            if place is not None:
                shown[place] = candidates[index]
                swaps[place] = index
                break
        else:
            return swaps


def _free_place(shown: NDArray[np.bool_], row: NDArray[np.bool_]) -> int | None:
    """Return the first place of the batch that a grid with these classes can take without hiding a class, or None."""
    only_here = shown & (shown.sum(axis=0) == 1)
    free = np.flatnonzero(~(only_here & ~row).any(axis=1))
    return int(free[0]) if free.size else None


def _classes_of(
    grids: NDArray[np.integer], classes: NDArray[np.integer], ignore_index: int | None
) -> NDArray[np.bool_]:
    """Return (N, M): which of M classes each grid holds, without ignored cells."""
    cells = grids.reshape(len(grids), grids.shape[1] * grids.shape[2])
    shown = np.zeros((cells.shape[0], classes.size), dtype=bool)
    for column, c in enumerate(classes.tolist()):
        if c != ignore_index and (holds := cells == c).any():
            shown[:, column] = holds.any(axis=1)
    return shown


def as_batch(batch: Batch | ArrayLike | Tensor, targets: ArrayLike | Tensor | None) -> Batch:
    """Return the batch of labels (B, H, W) with its targets (B, H, W), where these are not the labels themselves.

    Raises DataError where either is not integer labels, or the shapes differ.
    """
    fixed = batch if isinstance(batch, Batch) else Batch(_integer_labels(batch, "batch"), ())
    if targets is None:
        return fixed
    labels = _integer_labels(targets, "targets")
    if labels.shape != fixed.grids.shape:
        got = f"{labels.shape} for a batch {fixed.grids.shape}"
        do = "Pass one grid of labels for each grid of the batch, of its height and width."
        raise DataError("targets have the shape of the batch", "targets", got, do)
    return replace(fixed, other_targets=labels)


def _integer_labels(labels: ArrayLike | Tensor, where: str) -> Labels:
    if np.ma.is_masked(labels):
        do = "Pass labels.filled(255) with ignore_index=255, or fill them with a class."
        raise DataError("masked cells would count as if they were not masked", where, do=do)
    grids = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if grids.ndim != 3 or grids.size == 0 or grids.dtype.kind not in "iu":
        got, do = f"shape {grids.shape}, dtype {grids.dtype}", "Pass labels, not logits or one-hot vectors."
        raise DataError("a batch is (B, H, W) integer labels, at least one", where, got, do)
    return grids.astype(np.int64)


def check_labels(grids: Labels, classes: int, ignore_index: int | None) -> None:
    """Raise DataError for a label of the batch (B, H, W) outside the classes, and where every cell is ignored."""
    outside = outside_classes(grids, classes, ignore_index)
    if outside.any():
        where = tuple(map(int, np.argwhere(outside)[0]))
        what = f"a label is outside the model's {classes} classes at (grid, row, column) {where}"
        do = "Mend the label, name it as ignore_index, or build the model with more classes."
        raise DataError(what, "batch", str(grids[where]), do)
    if ignore_index is not None and (grids == ignore_index).all():
        do = "Choose other grids with --batch-seed or --indices."
        raise DataError("every cell of the batch is ignored", "batch", f"--ignore-index {ignore_index}", do)
