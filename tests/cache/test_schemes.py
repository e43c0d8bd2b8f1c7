"""Class weights against their formulas, written out here once more."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.cache import class_counts, class_weights, weight_ratio
from vaefit.cache.errors import DataError, SettingError

CORPUS = [19081814, 154289, 154457, 153994, 155609, 155472, 155012, 155371, 157799, 156183]
SCHEMES = ("sqrt_inverse", "inverse", "balanced", "effective", "none")

FORMULAS: dict[str, Callable[[int, int, int], float]] = {
    "sqrt_inverse": lambda n, total, classes: 1 / math.sqrt(n + 1),
    "inverse": lambda n, total, classes: 1 / (n + 1),
    "balanced": lambda n, total, classes: total / (classes * n),
    # b = 1 - 1/N, and (1 - b) / (1 - b^n) with the digits kept
    "effective": lambda n, total, classes: (1 / total) / -math.expm1(n * math.log1p(-1 / total)),
    "none": lambda n, total, classes: 1.0,
}


def by_hand(counts: list[int], formula: Callable[[int], float], scaled: bool = True) -> list[float]:
    """An absent class is given the count of the rarest present one; scaled, the sum is C."""
    rarest = min(n for n in counts if n)
    raw = [formula(n or rarest) for n in counts]
    return [w * len(counts) / sum(raw) for w in raw] if scaled else raw


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and r.name.startswith("vaefit")]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("counts", [CORPUS, [5, 3], [10**12, 1, 7], [9, 0, 4, 0], [2, 1]], ids=str)
def test_every_scheme_follows_its_formula(scheme: str, counts: list[int]) -> None:
    total = sum(counts)
    want = by_hand(counts, lambda n: FORMULAS[scheme](n, total, len(counts)), scheme != "balanced")
    got = class_weights(np.array(counts), scheme=scheme)
    assert got.dtype == np.float64
    assert got.shape == (len(counts),)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert scheme == "balanced" or got.sum() == pytest.approx(len(counts), rel=1e-12)


def test_balanced_is_what_scikit_learn_gives() -> None:
    labels = np.repeat([0, 1, 2, 3], [900, 60, 30, 10])
    # the line of sklearn.utils.compute_class_weight
    theirs = len(labels) / (4 * np.bincount(labels).astype(np.float64))
    np.testing.assert_array_equal(class_weights(np.bincount(labels), scheme="balanced", smooth=5.0), theirs)


def test_the_default_scheme_on_the_corpus() -> None:
    weights = class_weights(CORPUS)
    assert weights.max() / weights.min() == pytest.approx(11.13, abs=0.005)
    assert weights[0] == pytest.approx(0.0993, abs=0.00005)
    assert weights.argmax() == 3
    assert weight_ratio(weights) == weights.max() / weights.min()
    np.testing.assert_array_equal(weights, class_weights(np.array(CORPUS), scheme="sqrt_inverse"))


@pytest.mark.parametrize("smooth", [0.0, 0.5, 100.0])
def test_smooth_is_added_to_every_count(smooth: float) -> None:
    counts = [900, 0, 10, 90]
    formulas = {
        "sqrt_inverse": lambda n: 1 / math.sqrt(n + smooth),
        "inverse": lambda n: 1 / (n + smooth),
    }
    for scheme, formula in formulas.items():
        np.testing.assert_allclose(
            class_weights(counts, scheme=scheme, smooth=smooth), by_hand(counts, formula), rtol=1e-12
        )


@pytest.mark.parametrize("b", [0.0, 0.9, 0.999999])
def test_effective_with_b_of_the_callers(b: float) -> None:
    counts = [1000, 3, 0, 40]
    want = by_hand(counts, lambda n: (1 - b) / (1 - b**n))
    np.testing.assert_allclose(class_weights(counts, scheme="effective", effective_b=b), want, rtol=1e-9)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "none"])
def test_an_absent_class_weighs_as_the_rarest_present_one_aloud(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="vaefit"):
        weights = class_weights([50, 0, 8, 0, 20], scheme=scheme)
    assert weights[1] == weights[3] == weights[2] == weights.max()
    (message,) = warnings(caplog)
    assert all(word in message for word in ("1", "3", "no cell that counts", "class 2"))


def test_nothing_is_said_where_every_class_occurs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="vaefit"):
        for scheme in SCHEMES:
            class_weights([50, 1, 8], scheme=scheme)
    assert not warnings(caplog)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_class_and_one_cell(scheme: str) -> None:
    assert class_weights([1], scheme=scheme).tolist() == [1.0]
    assert class_weights([0, 1], scheme=scheme).tolist() == [0.5 if scheme == "balanced" else 1.0] * 2


def test_counts_are_not_changed_and_any_integers_will_do() -> None:
    for dtype in (np.int64, np.int32, np.uint16, np.uint64):
        counts = np.array([200, 0, 9], dtype=dtype)
        np.testing.assert_allclose(class_weights(counts), class_weights([200, 0, 9]), rtol=1e-15)
        assert counts.tolist() == [200, 0, 9]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_counts_zero_is_an_error(scheme: str) -> None:
    with pytest.raises(DataError, match="every class count is 0"):
        class_weights([0, 0, 0], scheme=scheme)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data_or_counts": [3, -1]}, "non-negative integers"),
        ({"data_or_counts": [0.5, 2.0]}, "non-negative integers.*float64"),
        ({"data_or_counts": [[1, 2], [3, 4]]}, r"shape \(2, 2\)"),
        ({"data_or_counts": []}, r"shape \(0,\)"),
        ({"data_or_counts": 7}, r"shape \(\)"),
        ({"scheme": "inverse_sqrt"}, "--scheme.*got inverse_sqrt.*one of sqrt_inverse"),
        ({"smooth": -1.0}, "smooth.*-1"),
        ({"smooth": math.nan}, "smooth.*nan"),
        ({"effective_b": 1.0, "scheme": "effective"}, r"effective-b.*got 1\.0.*number in \[0, 1\)"),
        ({"effective_b": -0.1, "scheme": "effective"}, r"effective-b.*got -0\.1.*number in \[0, 1\)"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], words: str) -> None:
    good = {"data_or_counts": [3, 1]}
    class_weights(**good)
    with pytest.raises(SettingError, match=words):
        class_weights(**(good | arguments))


@pytest.mark.parametrize("tail", ["", ":/maps/grids"])
def test_weights_of_a_file_are_those_of_its_counts(tmp_path: Path, tail: str) -> None:
    file = tmp_path / "maps.h5"
    labels = np.random.default_rng(0).choice(4, (6, 5, 3), p=[0.8, 0.1, 0.07, 0.03]).astype(np.uint8)
    with h5py.File(file, "w") as handle:
        handle["maps/grids"] = labels
    counts = np.bincount(labels.reshape(-1), minlength=4).tolist()
    for path in (f"{file}{tail}", Path(f"{file}{tail}")):
        np.testing.assert_allclose(
            class_weights(path, scheme="inverse"), by_hand(counts, lambda n: 1 / (n + 1)), rtol=1e-12
        )
    assert class_counts(f"{file}{tail}").tolist() == counts


def test_a_file_with_an_absent_class_says_so_once_and_only_where_weights_are_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "maps.h5"
    with h5py.File(file, "w") as handle:
        handle["grids"] = np.array([[[0, 0, 2]]], "u1")
    with caplog.at_level(logging.WARNING, logger="vaefit"):
        assert class_counts(file).tolist() == [2, 0, 1]
        assert not warnings(caplog)
        class_weights(file)
    assert len(warnings(caplog)) == 1


def test_a_missing_file_is_an_error_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.h5.*does not exist"):
        class_weights(tmp_path / "nothing.h5")
