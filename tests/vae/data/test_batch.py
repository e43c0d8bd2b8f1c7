"""Tests of the fixed batch: uniform, distinct, and swapped greedily until no swap shows one more class."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaefit.cache import DataError, Location
from vaefit.cache.hdf5.grids import Grids
from vaefit.vae.data.batch import Batch, _greedy_swaps, as_batch, batch_at, choose_batch

Write = Callable[..., Path]

MOST_CLASSES = 20
NO_COUNTS = np.zeros(256, dtype=np.int64)
"""Counts of a dataset that holds no class: the sample stays as it is drawn."""
seeds = st.integers(0, 2**32)


def _counts(grids: NDArray[np.uint8], classes: int = 10) -> NDArray[np.int64]:
    return np.bincount(grids.reshape(-1), minlength=classes).astype(np.int64)


def _shown(batch: Batch) -> set[int]:
    return set(np.unique(batch.grids).tolist())


def test_the_batch_holds_the_grids_at_its_indices(dataset: Path, grids: NDArray[np.uint8]) -> None:
    batch = choose_batch(Location(dataset), _counts(grids), size=16, seed=3)
    assert len(set(batch.indices)) == 16
    np.testing.assert_array_equal(batch.grids, grids[list(batch.indices)])
    again = choose_batch(Location(dataset), _counts(grids), size=16, seed=3)
    other = choose_batch(Location(dataset), _counts(grids), size=16, seed=4)
    assert again.digest == batch.digest != other.digest


@pytest.mark.parametrize("layout", [{}, {"chunks": (300, 1, 1), "compression": "gzip"}, {"chunks": (7, 2, 3)}])
@pytest.mark.parametrize("allow_duplicates", [False, True])
def test_the_batch_is_the_one_drawn_grid_by_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, object], allow_duplicates: bool
) -> None:
    """Grids are read by sorted selections; which are chosen must not hang on how they are read."""
    rng = np.random.default_rng(2)
    grids = rng.integers(0, 2, (300, 2, 3))  # most grids occur more than once
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("grids", data=grids, **layout)

    def draw() -> list[tuple[str, tuple[int, ...]]]:
        batches = [
            choose_batch(tmp_path / "a.h5", _counts(grids, 2), size, seed, allow_duplicates=allow_duplicates)
            for size, seed in itertools.product((1, 5, 33), range(3))
        ]
        for batch in batches:
            np.testing.assert_array_equal(batch.grids, grids[list(batch.indices)])
        return [(batch.digest, batch.indices) for batch in batches]

    drawn = draw()
    monkeypatch.setattr(Grids, "at", lambda self, indices: np.stack([self[index] for index in indices]))
    assert draw() == drawn


def test_a_grid_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        noise = np.random.default_rng(0).integers(0, 9, (8, 16, 16), "u1")
        made = file.create_dataset("grids", data=noise, chunks=(1, 16, 16), compression="gzip")
        place = made.id.get_chunk_info(5).byte_offset
    with (tmp_path / "a.h5").open("rb+") as stream:
        stream.seek(place)
        stream.write(b"spoilt" * 4)
    assert batch_at(tmp_path / "a.h5", (7, 0)).indices == (7, 0)
    with pytest.raises(DataError, match="grid 5 cannot be read"):
        batch_at(tmp_path / "a.h5", (7, 5, 0))


def test_every_grid_is_drawn_equally_often(dataset: Path, grids: NDArray[np.uint8]) -> None:
    drawn = np.zeros(len(grids))
    for seed in range(100):
        drawn[list(choose_batch(Location(dataset), np.zeros(10, dtype=np.int64), size=20, seed=seed).indices)] += 1
    # 100 draws of 20 of 200: 10 each, binomial with deviation 3
    assert drawn.sum() == 2000
    assert abs(drawn[:100].sum() - 1000) < 100
    assert drawn.max() < 10 + 5 * 3


def test_rare_classes_are_swapped_in_by_the_grid_that_shows_most(tmp_path: Path, write_dataset: Write) -> None:
    grids = np.zeros((300, 4, 4), dtype=np.uint8)
    grids.reshape(300, -1)[:, 0] = np.arange(300) % 2
    grids.reshape(300, -1)[:, 1:9] = (np.arange(300)[:, None] >> np.arange(8)) & 1  # all distinct
    grids[7, 3, 3], grids[8, 3, 2] = 5, 6
    grids[250, 3, 2:] = 5, 6  # both at once
    file = write_dataset(tmp_path / "rare.h5", grids=grids)
    for seed in range(5):
        batch = choose_batch(Location(file), _counts(grids), size=6, seed=seed)
        assert {5, 6} <= _shown(batch)
        assert batch.swapped <= 1  # one grid holds both
        np.testing.assert_array_equal(batch.grids, grids[list(batch.indices)])


def test_a_batch_too_small_for_all_classes_shows_as_many_as_it_can(tmp_path: Path, write_dataset: Write) -> None:
    grids = np.arange(8, dtype=np.uint8).repeat(4).reshape(8, 2, 2)
    file = write_dataset(tmp_path / "eight.h5", grids=grids)
    batch = choose_batch(Location(file), _counts(grids), size=3)
    assert len(_shown(batch)) == 3


def test_too_few_distinct_grids_is_an_error_that_duplicates_mend(tmp_path: Path, write_dataset: Write) -> None:
    grids = np.zeros((5000, 3, 3), dtype=np.uint8)
    grids[[10, 4000], 1, 1] = 1, 2
    file = write_dataset(tmp_path / "same.h5", grids=grids)
    with pytest.raises(DataError, match=r"has 3 distinct grids, fewer than the batch .*--batch-size 3, or"):
        choose_batch(Location(file), _counts(grids), size=4)
    # two of the three lie among thousands of equal ones, and are found all the same
    batch = choose_batch(Location(file), _counts(grids), size=3)
    assert {grid.tobytes() for grid in batch.grids} == {g.tobytes() for g in grids[[0, 10, 4000]].astype(np.int64)}
    assert choose_batch(Location(file), _counts(grids), size=8, allow_duplicates=True).grids.shape == (8, 3, 3)
    assert choose_batch(Location(file), _counts(grids), size=6000, allow_duplicates=True).grids.shape[0] == 6000


def test_ignored_cells_bring_in_no_class(tmp_path: Path, write_dataset: Write) -> None:
    grids = np.zeros((50, 3, 3), dtype=np.uint8)
    grids.reshape(50, -1)[:, :6] = (np.arange(50)[:, None] >> np.arange(6)) & 1
    grids[20] = 9
    file = write_dataset(tmp_path / "ignored.h5", grids=grids)
    counts = _counts(grids)
    counts[9] = 0
    assert choose_batch(Location(file), counts, size=4, ignore_index=9).swapped == 0


def test_your_own_indices_come_in_your_order(dataset: Path, grids: NDArray[np.uint8]) -> None:
    batch = batch_at(Location(dataset), (17, 3, 150))
    assert batch.indices == (17, 3, 150)
    np.testing.assert_array_equal(batch.grids, grids[[17, 3, 150]])
    with pytest.raises(DataError, match=r"no such grid \(got index 200\). Use indices 0 to 199"):
        batch_at(Location(dataset), (0, 200))
    with pytest.raises(DataError, match="are equal"):
        batch_at(Location(dataset), (3, 3))
    assert len(batch_at(Location(dataset), (3, 3), allow_duplicates=True).grids) == 2


def test_the_digest_covers_shape_and_cells() -> None:
    cells = np.arange(12).reshape(1, 3, 4)
    expected = hashlib.sha256(b"(1, 3, 4)" + bytes(range(12))).hexdigest()
    assert Batch(cells, ()).digest == expected
    assert Batch(cells.reshape(1, 4, 3), ()).digest != expected


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
    """Return every choice of `size` grids of which no two are equal."""
    for choice in itertools.combinations(range(len(cells)), size):
        if len({cells[i].tobytes() for i in choice}) == size:
            yield choice


@pytest.mark.slow
@settings(max_examples=500)
@given(datasets(), st.sampled_from([1, 2, 3, 4, 5, 6]), seeds, st.sampled_from([None, 0, 2, -1]))
def test_swaps_show_every_class_that_one_swap_can_show_and_hide_none(cells, size, seed, ignore):
    different = len({grid.tobytes() for grid in cells})
    with stored(cells) as location:
        if different < size:
            with pytest.raises(DataError, match=rf"{different} distinct grids.*--batch-size {different}, or"):
                choose_batch(location, counted(cells, ignore), size, seed, ignore)
            return
        drawn = choose_batch(location, NO_COUNTS, size, seed, ignore)
        batch = choose_batch(location, counted(cells, ignore), size, seed, ignore)
        again = choose_batch(location, counted(cells, ignore), size, seed, ignore)

    assert again.indices == batch.indices
    for found in (drawn, batch):
        np.testing.assert_array_equal(found.grids, cells[list(found.indices)])
        assert len({grid.tobytes() for grid in found.grids}) == size == len(found.indices)
    assert batch.swapped == sum(old != new for old, new in zip(drawn.indices, batch.indices, strict=True))

    sets = class_sets(cells, ignore)

    def shown(indices) -> frozenset[int]:
        return frozenset().union(*(sets[i] for i in indices))

    before, after = shown(drawn.indices), shown(batch.indices)
    assert before <= after
    assert batch.swapped <= len(after - before)
    for place, index in itertools.product(range(size), range(len(cells))):
        kept = shown(i for p, i in enumerate(batch.indices) if p != place)
        assert not after < kept | sets[index], "one more swap would show one more class"
    by_one_swap = [
        shown([*(i for p, i in enumerate(drawn.indices) if p != place), index])
        for place, index in itertools.product(range(size), range(len(cells)))
    ]
    choices = {choice: len(shown(choice)) for choice in distinct_choices(cells, size)}
    assert len(after) <= max(choices.values())
    if before != shown(range(len(cells))) in by_one_swap:
        assert batch.swapped == 1
        assert after == shown(range(len(cells)))
    if len(after - before) == 0:
        assert batch.indices == drawn.indices
    event(f"{max(choices.values()) - len(after)} classes fewer than the best choice")


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


@pytest.mark.parametrize("seed", range(5))
def test_many_missing_classes_are_swapped_in_by_few_grids(seed: int, tmp_path: Path, write_dataset: Write) -> None:
    """Greedy set cover takes at most ln M + 1 times the fewest grids (10 here), for M missing classes."""
    rng = np.random.default_rng(seed)
    grids = np.zeros((4000, 2, 4), dtype=np.uint8)
    grids[:, 0] = (np.arange(4000)[:, None] >> np.arange(0, 12, 3)) & 7  # all distinct
    for number, index in enumerate(rng.choice(4000, 10, replace=False)):
        grids[index, 1] = 8 + 4 * number + np.arange(4)
    for index in rng.choice(4000, 60, replace=False):
        grids[index, 1, 0] = 8 + rng.integers(40)
    file = write_dataset(tmp_path / "many.h5", grids=grids)
    batch = choose_batch(Location(file), _counts(grids, 48), size=40, seed=seed)
    held = set(np.unique(grids).tolist())
    assert _shown(batch) == held
    assert batch.swapped <= 10 * (np.log(40) + 1)


def test_the_number_of_candidates_is_bounded_but_no_class_is_overlooked(
    tmp_path: Path, write_dataset: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaefit.vae.data.batch.MAX_CANDIDATES", 1)
    grids = np.arange(300, dtype=np.uint8).repeat(4).reshape(300, 2, 2) % 2
    grids.reshape(300, -1)[:, :3] = 0
    grids[:5, 0, 0] = 2, 3, 4, 5, 6
    file = write_dataset(tmp_path / "bounded.h5", grids=grids)
    batch = choose_batch(Location(file), _counts(grids), size=30, seed=0, allow_duplicates=True)
    assert _shown(batch) == set(range(7))


def test_a_swap_replaces_a_grid_whose_classes_are_shown_by_others() -> None:
    rows = np.array([[True, True, False], [True, False, False], [True, False, False]])
    assert _greedy_swaps(rows, {7: np.array([True, False, True])}) == {1: 7}
    assert rows.tolist() == [[True, True, False], [True, False, True], [True, False, False]]
    # every place shows a class that no other grid shows
    full = np.array([[True, False, False], [False, True, False]])
    assert _greedy_swaps(full, {7: np.array([False, False, True])}) == {}
    # a grid that shows the class of a place as well can take that place
    assert _greedy_swaps(full, {7: np.array([False, False, True]), 9: np.array([False, True, True])}) == {1: 9}


def test_masked_cells_are_refused() -> None:
    grids = np.ma.masked_equal(np.random.default_rng(0).integers(0, 4, (4, 3, 3)), 2)
    with pytest.raises(DataError, match=r"masked cells.*labels\.filled\(255\)"):
        as_batch(grids, None)
    assert as_batch(np.ma.masked_array(grids.data), None).grids.shape == (4, 3, 3)
