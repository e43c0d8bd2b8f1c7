"""Tests of the loader over ranks: each rank gets its own rows of a batch, streamed from its own blocks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaefit.cache.hdf5.grids
from vaefit.cache.communicator import portion
from vaefit.cache.errors import SettingError
from vaefit.vae.loader import Augmentation, SeededSplit, open_loader
from vaefit.vae.loader.split_reader import SplitReader

N, BATCH = 1000, 37


@dataclass
class Rank:
    """A rank that asks nobody: every rank has the same memory."""

    rank: int
    size: int
    local_size: int = 1

    def add(self, numbers):
        return numbers * self.size


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Grids (N, 2, 4) that spell their own number, in chunks of 10."""
    cells = np.random.default_rng(1).integers(0, 10, (N, 2, 4), dtype=np.uint8)
    for digit in range(4):
        cells[:, 0, digit] = np.arange(N) // 10**digit % 10
    file = tmp_path_factory.mktemp("stored") / "grids.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=cells, chunks=(10, 2, 4))
    return file


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 10 grids."""
    monkeypatch.setattr(vaefit.cache.hdf5.grids, "PIECE_BYTES", 80)


def numbers(batch):
    return [int(number) for number in batch[:, 0, :4].astype(int) @ 10 ** np.arange(4)]


def opened(stored, ranks, mode, role="train", window=64, **others):
    """The loaders of all ranks; of one process where `ranks` is 1."""
    split = SeededSplit(N, 0.2)
    told = {"seed": 3, "mode": mode, "window": window, "workers": 1, "classes": 10, **others}
    return [
        open_loader(stored, split, role, BATCH, ranks=Rank(rank, ranks) if ranks > 1 else None, **told)
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("mode", ["memory", "stream"])
@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("window", [1, 64, 5000])
def test_no_grid_is_given_twice_and_each_rank_has_its_rows(stored, mode, ranks, window):
    with ExitStack() as stack:
        loaders = [stack.enter_context(one) for one in opened(stored, ranks, mode, window=window)]
        orders = []
        for epoch in range(2):
            found = [[numbers(batch) for batch in loader.epoch(epoch)] for loader in loaders]
            for rank, (loader, batches) in enumerate(zip(loaders, found, strict=True)):
                rows = portion(BATCH, rank, ranks)
                assert loader.rows == rows
                assert [len(batch) for batch in batches] == [rows.stop - rows.start] * loader.steps
                assert [numbers(batch) for batch in loader.epoch(epoch, 7)] == batches[7:]
            given = [number for batches in found for batch in batches for number in batch]
            assert len(given) == len(set(given)) == (800 // BATCH) * BATCH
            orders.append(given)
        assert orders[0] != orders[1]


@pytest.mark.parametrize("ranks", [2, 3])
def test_from_memory_the_batches_are_those_of_one_process(stored, ranks):
    with ExitStack() as stack:
        (one,) = (stack.enter_context(loader) for loader in opened(stored, 1, "memory"))
        loaders = [stack.enter_context(loader) for loader in opened(stored, ranks, "memory")]
        for whole, *parts in zip(one.epoch(2), *(loader.epoch(2) for loader in loaders), strict=True):
            np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("ranks", [2, 3])
def test_each_rank_reads_blocks_of_its_own(stored, ranks, monkeypatch):
    read = SplitReader.read
    blocks: list[list[int]] = []

    def noted(self, grids, some, *others):
        blocks[-1].extend(some.tolist())
        return read(self, grids, some, *others)

    monkeypatch.setattr(SplitReader, "read", noted)
    for loader in opened(stored, ranks, "stream"):
        blocks.append([])
        with loader as one:
            for _ in one.epoch(0):
                pass
    for mine, following in pairwise(blocks):
        # a block in which a cut lies is read by two
        assert len(set(mine) & set(following)) <= 1
    everywhere = [block for mine in blocks for block in mine]
    assert len(everywhere) - len(set(everywhere)) <= ranks - 1
    for mine in blocks:
        assert len(mine) == len(set(mine)) == pytest.approx(N / 10 / ranks, abs=4)


@pytest.mark.parametrize("mode", ["memory", "stream"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_in_order_the_ranks_have_one_stretch_after_another(stored, mode, ranks):
    with ExitStack() as stack:
        loaders = [stack.enter_context(one) for one in opened(stored, ranks, mode, role="val")]
        found = [[number for batch in loader.in_order(13) for number in numbers(batch)] for loader in loaders]
    together = [number for mine in found for number in mine]
    assert together == sorted(together)
    assert len(together) == 200
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_ranks_take_memory_only_where_all_of_them_can(stored):
    (first, *_) = opened(stored, 2, "auto", memory_limit=10**9)
    with first as loader:
        assert loader.mode == "memory"

    class Poor(Rank):
        def add(self, numbers):
            return numbers  # the other one says no

    told = {"mode": "auto", "memory_limit": 10**9, "classes": 10}
    with open_loader(stored, SeededSplit(N, 0.2), "train", BATCH, ranks=Poor(0, 2), **told) as loader:
        assert loader.mode == "stream"


def test_a_batch_has_a_grid_for_each_rank(stored):
    with (
        pytest.raises(SettingError, match="no grid for each rank"),
        open_loader(stored, SeededSplit(N, 0.2), "train", 2, classes=10, ranks=Rank(0, 3)),
    ):
        pass


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 99))
def test_a_row_is_augmented_alike_whoever_has_it(size, ranks, seed):
    grids = np.random.default_rng(seed).integers(0, 5, (size, 3, 3), dtype=np.uint8)
    augment = Augmentation.parse("rotate,flip,colours", 2, 5)
    whole = augment(grids, np.random.default_rng(seed))
    for rank in range(ranks):
        rows = portion(size, rank, ranks)
        mine = augment(grids[rows], np.random.default_rng(seed), rows.start, size)
        np.testing.assert_array_equal(mine, whole[rows])
