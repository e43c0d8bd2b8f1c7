"""The choice of a batch against every possible choice, on datasets small enough to try them all."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import vaefit.vae.data.set_cover
from vaefit.cache import DataError, Location
from vaefit.vae.data.batch import Batch, batch_at, choose_batch
from vaefit.vae.data.set_cover import fewest_swaps

MOST_CLASSES = 20
NOTHING = np.zeros(256, dtype=np.int64)
"""Counts of a dataset that holds no class: the sample stays as it was drawn."""
seeds = st.integers(0, 2**32)


@st.composite
def datasets(draw) -> NDArray[np.integer]:
    """Up to ten small grids, some of them equal; most classes lie in few of them."""
    rng = np.random.default_rng(draw(seeds))
    classes = draw(st.sampled_from([2, 5, 7, 8, 9, 16, MOST_CLASSES]))
    grids = draw(st.sampled_from([1, 5, 7, 8, 9, 10]))
    height, width = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (2, 3)]))
    cells = rng.integers(0, classes, (grids, height, width))
    cells[rng.random(cells.shape) < draw(st.sampled_from([0.0, 0.0, 0.4]))] = 0
    if draw(st.booleans()):
        cells[rng.integers(grids)] = cells[0]
    return cells.astype(draw(st.sampled_from(["u1", "<i2", ">i4", "i8"])))


@contextmanager
def stored(cells: NDArray[np.integer]) -> Iterator[Location]:
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(Path(folder) / "grids.h5", "w") as handle:
            handle["grids"] = cells
        yield Location(Path(folder) / "grids.h5")


def class_sets(cells: NDArray[np.integer], ignore: int | None) -> list[frozenset[int]]:
    """The classes that each grid shows."""
    return [frozenset(grid.reshape(-1).tolist()) - {ignore} for grid in cells]


def counted(cells: NDArray[np.integer], ignore: int | None) -> NDArray[np.int64]:
    flat = [label for label in cells.reshape(-1).tolist() if label != ignore]
    return np.array([flat.count(c) for c in range(MOST_CLASSES)])


def distinct_choices(cells: NDArray[np.integer], size: int) -> Iterator[tuple[int, ...]]:
    """Every choice of `size` grids of which no two are equal."""
    for choice in itertools.combinations(range(len(cells)), size):
        if len({cells[i].tobytes() for i in choice}) == size:
            yield choice


@settings(max_examples=500)
@given(datasets(), st.sampled_from([1, 2, 3, 4, 5, 6]), seeds, st.sampled_from([None, 0, 2, -1]))
def test_the_batch_shows_every_class_with_the_fewest_swaps(cells, size, seed, ignore):
    different = len({grid.tobytes() for grid in cells})
    with stored(cells) as location:
        if different < size:
            with pytest.raises(DataError, match=rf"{different} distinct grids.*--batch-size {different}, or"):
                choose_batch(location, counted(cells, ignore), size, seed, ignore)
            return
        drawn = choose_batch(location, NOTHING, size, seed, ignore)
        batch = choose_batch(location, counted(cells, ignore), size, seed, ignore)
        again = choose_batch(location, counted(cells, ignore), size, seed, ignore)

    assert again.indices == batch.indices
    for found in (drawn, batch):
        np.testing.assert_array_equal(found.grids, cells[list(found.indices)])
        assert len({grid.tobytes() for grid in found.grids}) == size == len(found.indices)
    assert batch.swapped == sum(old != new for old, new in zip(drawn.indices, batch.indices, strict=True))

    sets = class_sets(cells, ignore)
    held = frozenset().union(*sets)
    start = {cells[i].tobytes() for i in drawn.indices}
    swaps_of_covers = [
        sum(cells[i].tobytes() not in start for i in choice)
        for choice in distinct_choices(cells, size)
        if frozenset().union(*(sets[i] for i in choice)) == held
    ]
    shown = frozenset().union(*(sets[i] for i in batch.indices))
    event(f"{min(swaps_of_covers, default=None)} swaps are needed")
    if swaps_of_covers:
        assert shown == held
        assert batch.swapped == min(swaps_of_covers)
    else:
        assert len(shown) >= len(frozenset().union(*(sets[i] for i in drawn.indices)))


@settings(max_examples=60)
@given(datasets(), st.integers(1, 12), seeds)
def test_duplicates_where_they_are_allowed(cells, size, seed):
    with stored(cells) as location:
        batch = choose_batch(location, counted(cells, None), size, seed, allow_duplicates=True)
    assert len(batch.indices) == size
    assert all(0 <= index < len(cells) for index in batch.indices)
    np.testing.assert_array_equal(batch.grids, cells[list(batch.indices)])
    if size <= len(cells):
        assert len(set(batch.indices)) == size


@settings(max_examples=60)
@given(datasets(), st.lists(st.integers(-2, 10), min_size=1, max_size=5), st.booleans())
def test_the_grids_at_your_own_indices(cells, indices, duplicates):
    with stored(cells) as location:
        beyond = [i for i in indices if not 0 <= i < len(cells)]
        if beyond:
            with pytest.raises(DataError, match=rf"index {beyond[0]}\)\. Use indices 0 to {len(cells) - 1}\."):
                batch_at(location, indices, duplicates)
        elif not duplicates and len({cells[i].tobytes() for i in indices}) < len(indices):
            with pytest.raises(DataError, match=r"are equal.*--allow-duplicates"):
                batch_at(location, indices)
        else:
            batch = batch_at(location, indices, duplicates)
            assert batch.indices == tuple(indices)
            assert batch.grids.tolist() == [cells[i].tolist() for i in indices]


@settings(max_examples=60)
@given(datasets(), st.sampled_from([None, 0, 2, -1]))
def test_digest_and_counts_of_a_batch(cells, ignore):
    grids = cells.astype(np.int64)
    for layout in (grids, np.asfortranarray(grids), grids[::-1][::-1]):
        batch = Batch(layout, ())
        text = "(" + ", ".join(str(side) for side in cells.shape) + ")"
        row_major = bytes(label for grid in cells.tolist() for row in grid for label in row)
        assert batch.digest == hashlib.sha256(text.encode() + row_major).hexdigest()
        assert batch.counts(MOST_CLASSES, ignore).tolist() == counted(cells, ignore).tolist()


def test_many_classes_are_covered_even_where_the_search_gives_up(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.random((60, 40)) < 0.05
    for grid in range(10):  # the last ten show every class between them
        rows[50 + grid] = np.arange(40) % 10 == grid
    monkeypatch.setattr(vaefit.vae.data.set_cover, "MOST_LOOKS", 100)
    swaps = fewest_swaps(rows[:20], list(rows[20:]))
    batch = rows[:20].copy()
    for place, number in swaps:
        batch[place] = rows[20 + number]
    assert batch.any(axis=0).all()
    assert len({place for place, _ in swaps}) == len({number for _, number in swaps}) == len(swaps)
    assert fewest_swaps(rows[:2], list(rows[20:])) is None
