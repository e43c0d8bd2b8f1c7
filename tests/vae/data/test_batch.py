"""The fixed batch: uniform, distinct, and showing every class with the fewest swaps."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from vaefit.cache import DataError, Location
from vaefit.cache.hdf5.grids import Grids
from vaefit.vae.data.batch import Batch, batch_at, choose_batch
from vaefit.vae.data.set_cover import fewest_covering, swap_in

Write = Callable[..., Path]


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


def test_rare_classes_are_swapped_in_with_the_fewest_swaps(tmp_path: Path, write_dataset: Write) -> None:
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


@pytest.mark.parametrize("seed", range(12))
def test_all_classes_are_shown_wherever_some_batch_shows_them(seed: int, tmp_path: Path, write_dataset: Write) -> None:
    rng = np.random.default_rng(seed)
    grids = np.zeros((24, 3, 3), dtype=np.uint8)
    for grid in grids:
        grid.reshape(-1)[: rng.integers(1, 5)] = 1 + rng.integers(0, 7)
        grid.reshape(-1)[:4] = rng.integers(0, 8, 4)
    grids = np.unique(grids, axis=0)
    file = write_dataset(tmp_path / "few.h5", grids=grids)
    rows = np.stack([[(grid == c).any() for c in range(8)] for grid in grids])
    held = rows.any(axis=0)
    for size in (2, 3, 4):
        coverable = any(
            (rows[list(chosen)].any(axis=0) == held).all() for chosen in itertools.combinations(range(len(grids)), size)
        )
        batch = choose_batch(Location(file), _counts(grids, 8), size=size, seed=seed)
        assert len(set(batch.indices)) == size
        np.testing.assert_array_equal(batch.grids, grids[list(batch.indices)])
        assert (len(_shown(batch)) == held.sum()) == coverable


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


@pytest.mark.parametrize("seed", range(20))
def test_the_cover_is_as_small_as_any(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((7, 5)) < 0.35
    goal = table.any(axis=0)
    fewest = next(
        size
        for size in range(8)
        if any((table[list(rows)].any(axis=0) == goal).all() for rows in itertools.combinations(range(7), size))
    )
    chosen = fewest_covering(list(table))
    assert len(chosen) == fewest
    assert (table[chosen].any(axis=0) == goal).all()


def test_many_missing_classes_are_covered_greedily() -> None:
    table = np.random.default_rng(0).random((60, 40)) < 0.1
    chosen = fewest_covering(list(table))
    assert (table[chosen].any(axis=0) == table.any(axis=0)).all()
    assert len(chosen) == len(set(chosen)) < 40


def test_a_swap_gives_up_the_grid_that_is_missed_least() -> None:
    shown = np.array([[True, True, False], [True, False, False], [True, False, False]])
    assert swap_in(shown, [np.array([True, False, True])]) == [(1, 0)]
    # the only place that would be free of loss is taken; nothing is hidden for nothing
    full = np.array([[True, False, False], [False, True, False]])
    assert swap_in(full, [np.array([False, False, True])]) == []
