"""The fixed batch: a uniform sample of distinct grids, mended so that it shows every class the dataset holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from vaefit.cache.dataset import open_grids
from vaefit.cache.errors import DataError, SettingError
from vaefit.cache.location import Location
from vaefit.cache.stream import whole_grids

from .cover import fewest_covering, swap_in

CANDIDATES_PER_GRID = 8
"""How many random grids are looked at for each one wanted, before the whole dataset is searched for distinct ones."""


@dataclass(frozen=True)
class Batch:
    """The grids that a run tries to memorise."""

    grids: NDArray[np.int64]
    """(B, H, W) labels."""
    indices: tuple[int, ...]
    """Where in the dataset each grid lies; empty for grids that come from nowhere."""
    swapped: int = 0
    """How many grids of the uniform sample were replaced to bring in rare classes."""

    def counts(self, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
        """(C,), cells of each class; ignored cells are not among them."""
        kept = self.grids if ignore_index is None else self.grids[self.grids != ignore_index]
        return np.bincount(kept.reshape(-1), minlength=num_classes)

    @property
    def digest(self) -> str:
        """sha256 of the shape, as text "(B, H, W)", and the row-major cells as uint8; 64 hex digits."""
        cells = np.ascontiguousarray(self.grids.astype(np.uint8))
        return hashlib.sha256(str(self.grids.shape).encode() + cells.tobytes()).hexdigest()


def choose_batch(
    location: Location,
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
        raise SettingError("a batch holds at least one grid", "--batch-size", str(size))
    rng = np.random.default_rng(seed)
    with open_grids(location) as dataset:
        if allow_duplicates:
            n = dataset.shape[0]
            indices = rng.choice(n, size, replace=n < size).tolist()
        else:
            indices = _distinct_sample(dataset, size, rng, location)
        grids = _rows(dataset, indices)
        held = dataset_counts > 0
        shown = _classes_of(grids, held.size, ignore_index)
        swapped = 0
        if (held & ~shown.any(axis=0)).any():
            swapped = _bring_in(dataset, indices, grids, shown, held, rng, ignore_index)
    return Batch(grids, tuple(indices), swapped)


def batch_at(location: Location, indices: Sequence[int], allow_duplicates: bool = False) -> Batch:
    """The grids at the caller's own indices, in the order given; DataError for one that is not in the dataset."""
    with open_grids(location) as dataset:
        n = dataset.shape[0]
        for index in indices:
            if not 0 <= index < n:
                raise DataError("there is no such grid", str(location), f"index {index}", f"Use indices 0 to {n - 1}.")
        grids = _rows(dataset, list(indices))
    if not allow_duplicates and len({grid.tobytes() for grid in grids}) < len(indices):
        raise DataError(
            "some grids at these indices are equal", str(location), do="Drop them, or pass --allow-duplicates."
        )
    return Batch(grids, tuple(indices))


def _distinct_sample(dataset: h5py.Dataset, size: int, rng: np.random.Generator, location: Location) -> list[int]:
    """Indices of `size` grids with different cells, in random order."""
    n = dataset.shape[0]
    candidates = rng.choice(n, min(n, CANDIDATES_PER_GRID * size), replace=False).tolist()
    chosen: dict[bytes, int] = {}
    for index in candidates:
        chosen.setdefault(dataset[index].tobytes(), index)
        if len(chosen) == size:
            return list(chosen.values())
    # many equal grids: keep the `size` distinct ones whose salted digests are smallest, a uniform choice in one scan
    salt = rng.bytes(16)
    smallest: dict[bytes, int] = {}
    for first, grids in whole_grids(dataset):
        for offset, grid in enumerate(grids):
            smallest.setdefault(hashlib.blake2b(grid.tobytes(), key=salt, digest_size=16).digest(), first + offset)
        smallest = dict(sorted(smallest.items())[:size])
    if len(smallest) < size:
        raise DataError(
            f"the dataset has {len(smallest)} distinct grids, fewer than the batch",
            str(location),
            got=f"--batch-size {size}",
            do=f"Pass --batch-size {len(smallest)}, or --allow-duplicates.",
        )
    return list(smallest.values())


def _bring_in(
    dataset: h5py.Dataset,
    indices: list[int],
    grids: NDArray[np.int64],
    shown: NDArray[np.bool_],
    held: NDArray[np.bool_],
    rng: np.random.Generator,
    ignore_index: int | None,
) -> int:
    """Swap grids with missing classes into `indices` and `grids`, in place; return how many were swapped."""
    missing = held & ~shown.any(axis=0)
    # one grid stands for all that hold the same of the missing classes
    found: dict[bytes, int] = {}
    candidates: list[NDArray[np.bool_]] = []
    where: list[int] = []
    for first, block in whole_grids(dataset):
        classes = _classes_of(block, held.size, ignore_index)
        for offset in rng.permutation(np.flatnonzero(classes[:, missing].any(axis=1))).tolist():
            key = classes[offset, missing].tobytes()
            if key not in found:
                found[key] = len(where)
                where.append(first + offset)
                candidates.append(classes[offset])
        if any(c[missing].all() for c in candidates):
            break  # one grid brings in all of them; nothing does with fewer
    chosen = fewest_covering([c[missing] for c in candidates])
    swaps = swap_in(shown, [candidates[i] for i in chosen])
    for position, incoming in swaps:
        index = where[chosen[incoming]]
        indices[position] = index
        grids[position] = dataset[index]
    return len(swaps)


def _classes_of(grids: NDArray[np.integer], num_classes: int, ignore_index: int | None) -> NDArray[np.bool_]:
    """(N, C): which classes each grid holds, ignored cells left out."""
    shown = np.zeros((grids.shape[0], num_classes), dtype=bool)
    for c in range(num_classes):
        if c != ignore_index:
            shown[:, c] = (grids == c).any(axis=(1, 2))
    return shown


def _rows(dataset: h5py.Dataset, indices: list[int]) -> NDArray[np.int64]:
    return np.stack([dataset[index] for index in indices]).astype(np.int64)
