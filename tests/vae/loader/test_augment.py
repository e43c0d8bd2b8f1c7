"""Augmentation gives the same grids, turned, mirrored and with other names for their classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaefit.cache.errors import SettingError
from vaefit.vae.loader import Augmentation

BACKGROUND, CLASSES = 2, 5


@st.composite
def batches(draw):
    """Grids that hold the ignored label too, where there is one."""
    size, height, width = draw(st.integers(1, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    ignore = draw(st.sampled_from([None, 1, 200, -100]))
    dtype = np.int16 if ignore == -100 else draw(st.sampled_from([np.uint8, np.int64]))
    labels = [*range(CLASSES), *([] if ignore is None else [ignore])]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.choice(np.array(labels, dtype), (size, height, width)), ignore


def symmetries(grid):
    """Return every turned and mirrored form of a grid."""
    turned = [np.rot90(grid, turn) for turn in range(4)]
    return [*turned, *(one[:, ::-1] for one in turned)]


def augmented(text, grids, ignore, seed):
    before = grids.copy()
    found = Augmentation.parse(text, BACKGROUND, CLASSES, ignore)(grids, np.random.default_rng(seed))
    assert np.array_equal(grids, before)
    assert not np.shares_memory(found, grids)
    assert found.dtype == grids.dtype
    assert found.shape == grids.shape
    return found


@given(batches(), st.sampled_from(["rotate", "flip", "rotate,flip"]), st.integers(0, 9))
def test_each_grid_becomes_one_of_its_symmetries(batch, text, seed):
    grids, ignore = batch
    for before, after in zip(grids, augmented(text, grids, ignore, seed), strict=True):
        allowed = symmetries(before)
        if text == "flip":
            allowed = [before, before[:, ::-1]]
        elif text == "rotate":
            allowed = allowed[:4]
        assert any(np.array_equal(after, one) for one in allowed)


@given(batches(), st.integers(0, 9))
def test_classes_are_renamed_one_to_one_but_for_the_background_and_the_ignored(batch, seed):
    grids, ignore = batch
    for before, after in zip(grids, augmented("colours", grids, ignore, seed), strict=True):
        names = {old: set(after[before == old].tolist()) for old in np.unique(before).tolist()}
        assert all(len(new) == 1 for new in names.values())
        assert len(set.union(*names.values())) == len(names)
        assert set.union(*names.values()) <= {*range(CLASSES), *([] if ignore is None else [ignore])}
        assert names.get(BACKGROUND, {BACKGROUND}) == {BACKGROUND}
        assert names.get(ignore, {ignore}) == {ignore}


@given(batches(), st.integers(0, 9))
def test_all_at_once_permutes_the_histogram(batch, seed):
    grids, ignore = batch
    after = augmented("rotate,flip,colours", grids, ignore, seed)
    for one, other in zip(grids, after, strict=True):
        counts = [sorted(np.unique(cells, return_counts=True)[1].tolist()) for cells in (one, other)]
        assert counts[0] == counts[1]
        assert np.count_nonzero(one == BACKGROUND) == np.count_nonzero(other == BACKGROUND)
    assert np.array_equal(after, augmented("rotate,flip,colours", grids, ignore, seed))


def test_every_symmetry_and_every_name_comes_as_often():
    grid = np.arange(9, dtype=np.uint8).reshape(3, 3)
    many = np.repeat(grid[None], 8000, axis=0)
    found = Augmentation(True, True, False, 0, 9)(many, np.random.default_rng(0))
    counts = [int((found == one).all(axis=(1, 2)).sum()) for one in symmetries(grid)]
    assert sum(counts) == 8000
    assert min(counts) > 850
    renamed = Augmentation(False, False, True, 0, 9)(many, np.random.default_rng(0))
    assert np.bincount(renamed[:, 1, 1], minlength=9)[1:].min() > 850


def test_nothing_is_a_copy():
    grids = np.ones((2, 3, 3), np.uint8)
    assert np.array_equal(augmented("none", grids, None, 0), grids)


@pytest.mark.parametrize(("text", "got"), [("rotate,turn", "turn"), ("", "an empty word"), ("none,flip", "none")])
def test_other_words(text, got):
    with pytest.raises(SettingError, match=rf"--augment.*\(got {got}\)\. Use rotate, flip, colours"):
        Augmentation.parse(text, 0, 10)
