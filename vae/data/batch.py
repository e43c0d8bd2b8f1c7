"""The fixed batch: a uniform sample of distinct grids, mended so that it shows every class the dataset holds."""

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
from .set_cover import EXACT_CLASSES, fewest_covering, fewest_swaps, swap_in

CANDIDATES_PER_GRID = 8
"""How many random grids are looked at for each one wanted, before the whole dataset is searched for distinct ones."""
MAX_HOLDERS = 4096
"""Most grids that are remembered for the rare classes they show; as many as there are sets of 12 classes."""


@dataclass(frozen=True)
class Batch:
    """The grids that a run tries to memorise."""

    grids: NDArray[np.int64]
    """(B, H, W) labels."""
    indices: tuple[int, ...]
    """Where in the dataset each grid lies, counted through all its shards; empty for grids that come from nowhere."""
    swapped: int = 0
    """How many grids of the uniform sample were replaced to bring in rare classes."""
    other_targets: NDArray[np.int64] | None = None
    """(B, H, W) labels that are wanted from the grids, where they are not the grids themselves."""

    @property
    def targets(self) -> NDArray[np.int64]:
        """(B, H, W), the labels that the model is to give."""
        return self.grids if self.other_targets is None else self.other_targets

    def counts(self, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
        """(C,), cells of each class in the targets; ignored cells are not among them."""
        kept = self.targets if ignore_index is None else self.targets[self.targets != ignore_index]
        return np.bincount(kept.reshape(-1), minlength=num_classes)

    @property
    def digest(self) -> str:
        """sha256 of the shape, as text "(B, H, W)", and the row-major cells as uint8; 64 hex digits.

        Other targets than the grids follow in the same way.
        """
        digest = hashlib.sha256(str(self.grids.shape).encode() + _cells(self.grids))
        if self.other_targets is not None:
            digest.update(_cells(self.other_targets))
        return digest.hexdigest()


def _cells(grids: NDArray[np.int64]) -> bytes:
    return np.ascontiguousarray(grids.astype(np.uint8)).tobytes()


def choose_batch(
    data: Data,
    dataset_counts: NDArray[np.int64],
    size: int = 32,
    seed: int = 0,
    ignore_index: int | None = None,
    allow_duplicates: bool = False,
) -> Batch:
    """Choose `size` grids: a seeded uniform sample of distinct ones, then the fewest swaps that show every class.

    Args:
        dataset_counts: (C,), cells of each class in the whole dataset; a class that is held there and not in the sample
            is brought in. Where B grids cannot show all, as many as one swap after another can.
        allow_duplicates: equal grids may be drawn, and one grid twice where the dataset holds fewer than `size`.

    Raises DataError where the dataset has fewer distinct grids than `size` and duplicates are not allowed.
    """
    if size < 1:
        raise SettingError("a batch holds at least one grid", "--batch-size", str(size), "Pass 1 or more.")
    rng = np.random.default_rng(seed)
    held = dataset_counts > 0
    with opened(data) as dataset:
        if allow_duplicates:
            n = dataset.shape[0]
            sample = _Sample.read(dataset, rng.choice(n, size, replace=n < size).tolist())
        else:
            sample = _distinct_sample(dataset, size, rng)
        shown = _classes_of(sample.grids, np.arange(held.size), ignore_index)
        swapped = 0
        if (held & ~shown.any(axis=0)).any():
            swapped = _bring_in(dataset, sample, shown, held, rng, ignore_index)
    return Batch(sample.grids, tuple(sample.indices), swapped)


def batch_at(data: Data, indices: Sequence[int], allow_duplicates: bool = False) -> Batch:
    """The grids at the caller's own indices, in the order given; DataError for one that is not in the dataset."""
    with opened(data) as dataset:
        n, name = dataset.shape[0], dataset.name
        for index in indices:
            if not 0 <= index < n:
                raise DataError("there is no such grid", name, f"index {index}", f"Use indices 0 to {n - 1}.")
        grids = _Sample.read(dataset, list(indices)).grids
    if not allow_duplicates and len({grid.tobytes() for grid in grids}) < len(indices):
        raise DataError("some grids at these indices are equal", name, do="Drop them, or pass --allow-duplicates.")
    return Batch(grids, tuple(indices))


@dataclass(frozen=True)
class _Sample:
    """Grids (B, H, W) int64 and where they lie; grids are replaced in place."""

    indices: list[int]
    grids: NDArray[np.int64]

    @classmethod
    def read(cls, dataset: Grids, indices: list[int]) -> _Sample:
        return cls(indices, dataset.at(indices).astype(np.int64))

    def replace(self, position: int, index: int, dataset: Grids) -> None:
        self.indices[position] = index
        self.grids[position] = dataset[index]


def _distinct_sample(dataset: Grids, size: int, rng: np.random.Generator) -> _Sample:
    """`size` grids with different cells, in random order."""
    n = dataset.shape[0]
    candidates = rng.choice(n, min(n, CANDIDATES_PER_GRID * size), replace=False).tolist()
    chosen: dict[bytes, int] = {}
    grids: list[NDArray[np.integer]] = []
    for first in range(0, len(candidates), size):
        piece = candidates[first : first + size]
        for index, grid in zip(piece, dataset.at(piece), strict=True):
            if grid.tobytes() not in chosen:
                chosen[grid.tobytes()] = index
                grids.append(grid)
            if len(chosen) == size:
                return _Sample(list(chosen.values()), np.stack(grids).astype(np.int64))
    # many equal grids: keep the `size` distinct ones whose salted digests are smallest, a uniform choice in one scan
    salt = rng.bytes(16)
    smallest: dict[bytes, int] = {}
    for first, block in dataset.blocks():
        for offset, grid in enumerate(block):
            smallest.setdefault(hashlib.blake2b(grid.tobytes(), key=salt, digest_size=16).digest(), first + offset)
        smallest = dict(sorted(smallest.items())[:size])
    if len(smallest) < size:
        raise DataError(
            f"the dataset has {len(smallest)} distinct grids, fewer than the batch",
            dataset.name,
            got=f"--batch-size {size}",
            do=f"Pass --batch-size {len(smallest)}, or --allow-duplicates.",
        )
    return _Sample.read(dataset, list(smallest.values()))


def _bring_in(
    dataset: Grids,
    sample: _Sample,
    shown: NDArray[np.bool_],
    held: NDArray[np.bool_],
    rng: np.random.Generator,
    ignore_index: int | None,
) -> int:
    """Swap grids with missing classes into the sample; return how many were swapped.

    `shown` (B, C) is what each grid of the sample shows, `held` (C,) what the dataset holds.
    """
    missing = held & ~shown.any(axis=0)
    where, rows = _holders(dataset, missing, rng, ignore_index, enough=True)
    chosen = fewest_covering([row[missing] for row in rows])
    after = shown.copy()
    swaps = [(place, where[chosen[number]]) for place, number in swap_in(after, [rows[i] for i in chosen])]
    all_shown = bool(after.any(axis=0)[held].all())
    if not all_shown or missing.sum() > EXACT_CLASSES:
        # few places: the newcomers have to show what goes as well, so all classes count, and not the missing ones alone
        where, rows = _holders(dataset, held, rng, ignore_index, enough=False)
        fewest = fewest_swaps(shown[:, held], [row[held] for row in rows])
        if fewest is not None and not (all_shown and len(swaps) <= len(fewest)):
            swaps = [(place, where[number]) for place, number in fewest]
    for place, index in swaps:
        sample.replace(place, index, dataset)
    return len(swaps)


def _holders(
    dataset: Grids,
    wanted: NDArray[np.bool_],
    rng: np.random.Generator,
    ignore_index: int | None,
    enough: bool,
) -> tuple[list[int], list[NDArray[np.bool_]]]:
    """Grids that show a wanted class: where they lie, and the classes (C,) of each.

    One grid, random in its block, stands for all that show the same of the wanted classes. With `enough` the scan ends
    at a grid that shows them all: nothing does with fewer.
    """
    found: set[bytes] = set()
    where: list[int] = []
    rows: list[NDArray[np.bool_]] = []
    for first, block in dataset.blocks():
        # a few classes are wanted and few grids show them: the others are looked for in those grids alone
        shown = _classes_of(block, np.flatnonzero(wanted), ignore_index)
        for offset in rng.permutation(np.flatnonzero(shown.any(axis=1))).tolist():
            key = shown[offset].tobytes()
            if key not in found and len(found) < MAX_HOLDERS:
                found.add(key)
                where.append(first + offset)
                rows.append(_classes_of(block[offset : offset + 1], np.arange(wanted.size), ignore_index)[0])
        if enough and any(row[wanted].all() for row in rows):
            break
    return where, rows


def _classes_of(
    grids: NDArray[np.integer], classes: NDArray[np.integer], ignore_index: int | None
) -> NDArray[np.bool_]:
    """(N, M): which of M classes each grid holds, ignored cells left out."""
    cells = grids.reshape(grids.shape[0], -1)
    shown = np.zeros((cells.shape[0], classes.size), dtype=bool)
    for column, c in enumerate(classes.tolist()):
        if c != ignore_index and (holds := cells == c).any():
            shown[:, column] = holds.any(axis=1)
    return shown


def as_batch(batch: Batch | ArrayLike | Tensor, targets: ArrayLike | Tensor | None) -> Batch:
    """The batch of labels (B, H, W), and what is wanted from them; DataError where either is something else."""
    fixed = batch if isinstance(batch, Batch) else Batch(_labels(batch, "batch"), ())
    if targets is None:
        return fixed
    wanted = _labels(targets, "targets")
    if wanted.shape != fixed.grids.shape:
        raise DataError(
            "targets have the shape of the batch",
            "targets",
            got=f"{wanted.shape} for a batch {fixed.grids.shape}",
            do="Pass one grid of labels for each grid of the batch, of its height and width.",
        )
    return replace(fixed, other_targets=wanted)


def _labels(labels: ArrayLike | Tensor, where: str) -> Labels:
    grids = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if grids.ndim != 3 or grids.size == 0 or grids.dtype.kind not in "iu":
        raise DataError(
            "a batch is (B, H, W) integer labels, at least one",
            where,
            got=f"shape {grids.shape}, dtype {grids.dtype}",
            do="Pass labels, not logits or one-hot vectors.",
        )
    return grids.astype(np.int64)


def check_labels(grids: Labels, classes: int, ignore_index: int | None) -> None:
    """Raise DataError for a label of the batch (B, H, W) outside the classes, and where every cell is ignored."""
    outside = outside_classes(grids, classes, ignore_index)
    if outside.any():
        where = tuple(map(int, np.argwhere(outside)[0]))
        raise DataError(
            f"a label is outside the model's {classes} classes at (grid, row, column) {where}",
            "batch",
            got=str(grids[where]),
            do="Mend the label, name it as ignore_index, or build the model with more classes.",
        )
    if ignore_index is not None and (grids == ignore_index).all():
        raise DataError(
            "every cell of the batch is ignored",
            "batch",
            got=f"--ignore-index {ignore_index}",
            do="Choose other grids with --batch-seed or --indices.",
        )
