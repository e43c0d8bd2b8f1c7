"""Tests of the splits: exact sizes, equal in every part and process."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import vaefit.vae.loader.split as split_module
from vaefit.cache import DataError, Location
from vaefit.cache.errors import SettingError
from vaefit.cache.hdf5.grids import opened
from vaefit.vae.loader import LEFT_OUT, ROLES, SeededSplit, find_named_splits, named_split
from vaefit.vae.loader.split import BLOCK

shares = st.sampled_from([0.001, 0.01, 0.05, 0.1, 1 / 3, 0.5, 0.7, 0.95])


@pytest.fixture
def blocks_of_seven(monkeypatch):
    """Splits are drawn seven grids at a time."""
    monkeypatch.setattr(split_module, "BLOCK", 7)
    split_module._drawn.cache_clear()
    yield
    split_module._drawn.cache_clear()


@st.composite
def splits(draw, most=400):
    grids = draw(st.integers(3, most))
    limit = draw(st.one_of(st.none(), st.integers(2, grids)))
    try:
        return SeededSplit(grids, draw(shares), draw(st.sampled_from([0.0, 0.1, 0.2])), draw(st.integers(0, 9)), limit)
    except SettingError:
        assume(False)


def counted(roles):
    return [int(np.count_nonzero(roles == number)) for number in (*range(len(ROLES)), LEFT_OUT)]


@pytest.mark.usefixtures("blocks_of_seven")
def test_counts_are_exact_and_every_block_gets_its_part():
    @given(splits())
    def holds(split):
        split_module._drawn.cache_clear()  # one of blocks of another size may be equal
        roles = split.roles(0, split.grids)
        used = split.grids if split.limit is None else split.limit
        wanted = [split.size(role) for role in ROLES]
        assert counted(roles) == [*wanted, split.grids - used]
        assert wanted[1:] == [round(split.val_share * used), round(split.test_share * used)]
        for first in range(0, split.grids, 7):
            block = roles[first : first + 7]
            for found, total in zip(counted(block), (*wanted, split.grids - used), strict=True):
                assert abs(found - total * len(block) / split.grids) < 3

    holds()


@pytest.mark.usefixtures("blocks_of_seven")
def test_a_part_is_what_the_whole_says_of_it():
    @given(splits(most=60), st.data())
    def holds(split, data):
        split_module._drawn.cache_clear()
        first = data.draw(st.integers(0, split.grids))
        stop = data.draw(st.integers(first, split.grids))
        assert np.array_equal(split.roles(first, stop), split.roles(0, split.grids)[first:stop])

    holds()


def test_it_is_the_same_in_another_process():
    split = SeededSplit(70_000, 0.1, 0.05, seed=3, limit=50_000)
    code = (
        "import hashlib, sys; from vaefit.vae.loader import SeededSplit; "
        f"print(hashlib.sha256({split!r}.roles(0, 70_000).tobytes()).hexdigest(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(split.roles(0, 70_000).tobytes()).hexdigest(), "False"]


def test_seeds_differ_and_grids_are_drawn_from_everywhere():
    first, second = (SeededSplit(2 * BLOCK, 0.1, seed=seed).roles(0, 2 * BLOCK) == 1 for seed in (0, 1))
    assert 0.005 < np.mean(first & second) < 0.015
    assert not np.array_equal(first[:BLOCK], first[BLOCK:])
    # of 8,192 grids 819 each time, give or take 27
    assert np.abs(first.reshape(16, -1).sum(axis=1) - 819).max() < 150


def test_a_dataset_of_any_size_costs_a_few_blocks():
    split = SeededSplit(10**12, 0.01)
    assert split.size("train") == 990_000_000_000
    assert counted(split.roles(10**12 - 10, 10**12))[3] == 0
    assert len(split.roles(5 * 10**11, 5 * 10**11 + 10)) == 10


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"val_share": 1.0}, r"--val-share: the value cannot be used \(got 1\.0\)\. Use a share in \[0, 1\)"),
        ({"val_share": -0.1}, "--val-share"),
        ({"val_share": float("nan")}, "--val-share"),
        ({"val_share": 0.1, "test_share": 1.5}, "--test-share"),
        ({"val_share": 0.1, "seed": -1}, "--split-seed"),
        ({"val_share": 0.1, "limit": 0}, r"--limit: .* from 1 on"),
        (
            {"val_share": 0.001},
            r"no grid to validate on \(got 0\.001 of 100 grids\)\. Raise --val-share to 0\.01 or more",
        ),
        ({"val_share": 0.0}, r"Raise --val-share"),
        ({"val_share": 0.01, "limit": 20}, r"Raise --val-share to 0\.05 or more, or raise --limit"),
        ({"val_share": 0.9, "limit": 1}, r"--limit: there is no grid to validate on|no grid left to train on"),
        ({"val_share": 0.1, "test_share": 0.001}, r"--test-share: there is no grid for the test"),
        ({"val_share": 0.6, "test_share": 0.4}, r"no grid left to train on .* Pass smaller shares\."),
    ],
)
def test_what_cannot_be_split(settings, wanted):
    with pytest.raises(SettingError, match=wanted):
        SeededSplit(100, **settings)


def test_the_advice_is_enough():
    for grids in (2, 3, 7, 64, 1999):
        with pytest.raises(SettingError, match="Raise --val-share to") as refused:
            SeededSplit(grids, 0.0)
        share = float(refused.value.do.split()[3])
        assert SeededSplit(grids, share).size("val") >= 1


def test_grids_of_another_dataset():
    with pytest.raises(DataError, match=r"not the one that was split .*grids 90 to 109 of 100"):
        SeededSplit(100, 0.1).roles(90, 110)


@pytest.mark.parametrize("group", ["", "inner/"])
@pytest.mark.parametrize("called", ["val", "valid", "validation"])
@pytest.mark.parametrize("test", [True, False])
def test_datasets_named_after_their_roles(tmp_path, group, called, test):
    file = tmp_path / "arc.h5"
    sizes = {"train": 9, called: 4, **({"test": 3} if test else {})}
    with h5py.File(file, "w") as handle:
        for name, size in sizes.items():
            handle[group + name] = np.full((size, 2, 2), list(sizes).index(name), np.uint8)
        handle[group + "ids"] = np.arange(9)
        handle["names"] = np.zeros((2, 2, 2))
    found = find_named_splits(file)
    assert found == tuple(Location(file, group + name) for name in sizes)
    assert find_named_splits([str(file)]) == found
    split = named_split(found)
    with opened(found) as grids:
        roles = split.roles(0, grids.shape[0])
        assert [int(grids[i][0, 0]) for i in range(grids.shape[0])] == roles.tolist()
        for first in range(grids.shape[0]):
            assert np.array_equal(split.roles(first, grids.shape[0]), roles[first:])
    assert [split.size(role) for role in ROLES] == [9, 4, 3 if test else 0]


def test_what_is_no_named_split(tmp_path, write_dataset):
    cells = np.zeros((4, 2, 2), np.uint8)
    both = write_dataset(tmp_path / "both.h5", train=cells, val=cells, valid=cells)
    assert find_named_splits(both) is None
    good = write_dataset(tmp_path / "good.h5", train=cells, val=cells)
    assert find_named_splits(f"{good}:/train") is None
    assert find_named_splits(str(tmp_path / "goo*.h5")) is None
    assert find_named_splits([good, both]) is None
    assert find_named_splits(tmp_path / "missing.h5") is None
    (tmp_path / "text.h5").write_text("no HDF5")
    assert find_named_splits(tmp_path / "text.h5") is None
    assert find_named_splits(write_dataset(tmp_path / "flat.h5", train=cells, val=cells[0])) is None
    assert find_named_splits(write_dataset(tmp_path / "half.h5", train=cells, val=cells / 2)) is None
    with h5py.File(tmp_path / "twice.h5", "w") as handle:
        for name in ("a/train", "a/val", "b/train", "b/val"):
            handle[name] = cells
    assert find_named_splits(tmp_path / "twice.h5") is None
    with h5py.File(tmp_path / "apart.h5", "w") as handle:
        handle["a/train"] = handle["b/val"] = cells
    assert find_named_splits(tmp_path / "apart.h5") is None


def test_a_limit_beyond_the_data_takes_all_of_them():
    split = SeededSplit(100, 0.1, limit=2000)
    assert (split.size("train"), split.size("val")) == (90, 10)
    assert np.array_equal(split.roles(0, 100), SeededSplit(100, 0.1).roles(0, 100))
