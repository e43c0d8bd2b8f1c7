"""Accuracies, shares, skill and retrieval against definitions written out cell by cell."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from vaefit.vae.metrics.accuracy import Accuracies, BaselineShares, distinct, retrieval


def _batch(seed: int, classes: int = 4, size: int = 6) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((size, 3, 5)) < 0.6, 0, rng.integers(0, classes, (size, 3, 5)))


def test_a_class_that_the_targets_lack_has_no_accuracy() -> None:
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    found = Accuracies.from_confusion(counts)
    assert found.classes == (0.8, None, 0.75)
    assert found.pixel == pytest.approx(11 / 14)
    assert found.macro == pytest.approx((0.8 + 0.75) / 2)
    assert (found.worst, found.worst_class) == (0.75, 2)
    assert found.predicted.tolist() == [9, 2, 3]
    assert not found.exact


@pytest.mark.parametrize("ignore_index", [None, 0, 3])
def test_shares_are_those_of_answers_that_ignore_the_input(ignore_index: int | None) -> None:
    targets = _batch(1)
    cells = [(h, w, int(targets[b, h, w])) for b, h, w in np.ndindex(targets.shape)]
    kept = [(h, w, c) for h, w, c in cells if c != ignore_index]
    positions = {(h, w): Counter(c for y, x, c in kept if (y, x) == (h, w)) for h, w, _ in kept}
    best = sum(max(counter.values()) for counter in positions.values())
    top = max(Counter(c for _, _, c in kept).values())

    found = BaselineShares.from_targets(targets, 4, ignore_index)

    assert found.background == pytest.approx(best / len(kept))
    assert found.majority == pytest.approx(top / len(kept))


def test_skill_is_none_where_one_picture_answers_every_grid() -> None:
    same = np.zeros((4, 2, 2), dtype=np.int64)
    assert BaselineShares.from_targets(same, 2, None).skill(1.0) is None
    assert BaselineShares(background=0.9, majority=0.9, cells=1000).skill(0.95) == pytest.approx(0.5)
    assert BaselineShares(background=0.9, majority=0.9, cells=1000).skill(0.8) == pytest.approx(-1.0)


@pytest.mark.parametrize("ignore_index", [None, 0])
def test_retrieval_agrees_with_its_definition(ignore_index: int | None) -> None:
    targets = _batch(2)
    targets[3] = targets[1]  # equal targets count as own
    rng = np.random.default_rng(3)
    predictions = np.where(rng.random(targets.shape) < 0.3, targets, rng.integers(0, 4, targets.shape))

    def cells(i: int, j: int) -> list[tuple[int, int, int]]:
        """(prediction i, target j, target i) wherever neither target is ignored."""
        triples = zip(*(array.ravel().tolist() for array in (predictions[i], targets[j], targets[i])), strict=True)
        return [(p, t, own) for p, t, own in triples if ignore_index not in (t, own)]

    def agreement(i: int, j: int) -> int:
        return sum(p == t for p, t, _ in cells(i, j))

    def equal(i: int, j: int) -> bool:
        where = targets[i] != (-1 if ignore_index is None else ignore_index)
        return bool((targets[i][where] == targets[j][where]).all())

    hits = 0
    for i in range(len(targets)):
        others = [j for j in range(len(targets)) if not equal(i, j)]
        hits += all(agreement(i, i) > agreement(i, j) for j in others)

    assert 0 < hits < len(targets)  # else the case shows nothing
    assert retrieval(predictions, targets, ignore_index) == hits / len(targets)


def test_a_copy_of_every_cell_that_counts_is_retrieved_whatever_the_others_hold() -> None:
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 3, (8, 6, 6))
    for i, grid in enumerate(targets):  # padded to different sizes, as ragged data is
        grid[2 + i // 2 :] = 255
        grid[:, 2 + i % 4 :] = 255
    predictions = np.where(targets == 255, rng.integers(0, 3, targets.shape), targets)
    assert retrieval(predictions, targets, 255) == 1.0


def test_retrieval_of_one_grid_is_none_and_a_tie_is_no_hit() -> None:
    assert retrieval(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), None) is None
    targets = np.array([[[0, 1]], [[1, 0]]])
    assert retrieval(np.array([[[0, 0]], [[1, 0]]]), targets, None) == 0.5


def test_distinct_counts_different_pictures() -> None:
    assert distinct(np.array([[[0, 1]], [[1, 0]], [[0, 1]]])) == 2
