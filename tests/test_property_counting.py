"""Dataset counts and class weights against plain definitions, over shapes, layouts, dtypes and counts."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaefit.cache import SCHEMES, class_counts, class_weights, weight_ratio

DTYPES = ("u1", "<u2", ">u2", "i1", ">i4", "<i8")
small = st.integers(1, 9)
counts_of_classes = st.lists(st.integers(0, 10**12), min_size=1, max_size=12)


@settings(max_examples=80)
@given(st.tuples(small, small, small), st.data())
def test_counts_are_those_of_every_cell(shape, data):
    classes = data.draw(st.integers(1, 100))
    cells = np.random.default_rng(data.draw(st.integers(0, 999))).integers(0, classes, shape)
    ignore = data.draw(st.sampled_from([None, 0, classes - 1, 255]))
    layout = {}
    if data.draw(st.booleans()):
        layout["chunks"] = tuple(data.draw(st.integers(1, size)) for size in shape)
        layout["compression"] = data.draw(st.sampled_from([None, "gzip", "lzf"]))
        layout["shuffle"] = data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grids.h5"
        with h5py.File(file, "w") as handle:
            handle.create_dataset("grids", data=cells.astype(data.draw(st.sampled_from(DTYPES))), **layout)
        found = class_counts(file, classes=classes if classes > 1 else None, ignore_index=ignore)
        again = class_counts(file, classes=classes if classes > 1 else None, ignore_index=ignore)
    flat = cells.reshape(-1).tolist()
    expected = [0 if c == ignore else flat.count(c) for c in range(len(found))]
    assert found.dtype == np.int64
    assert found.tolist() == again.tolist() == expected
    assert len(found) == classes


def plain_weights(counts: list[int], scheme: str, smooth: float) -> list[float]:
    """The scheme's formula for each class; an absent class weighs as the rarest present one; scaled to sum to C."""
    total, classes = sum(counts), len(counts)
    if scheme == "none":
        return [1.0] * classes
    rarest = min(n for n in counts if n > 0)
    raw = []
    for count in counts:
        n = count or rarest
        if scheme == "sqrt_inverse":
            raw.append(1 / math.sqrt(n + smooth))
        elif scheme == "inverse":
            raw.append(1 / (n + smooth))
        elif scheme == "balanced":
            raw.append(total / (classes * (n + smooth)))
        elif total == 1:  # b = 0
            raw.append(1.0)
        else:  # (1 - b) / (1 - b^n) with b = 1 - 1/N, in a form that keeps its digits
            raw.append((1 / total) / -math.expm1(n * math.log1p(-1 / total)))
    return [w * classes / sum(raw) for w in raw]


@settings(max_examples=200)
@given(counts_of_classes, st.sampled_from(SCHEMES), st.sampled_from([0.0, 1.0, 1000.0]))
def test_weights_are_their_formula(counts, scheme, smooth):
    assume(any(counts))
    found = class_weights(np.array(counts), scheme, smooth)
    np.testing.assert_allclose(found, plain_weights(counts, scheme, smooth), rtol=1e-9)
    assert found.sum() == pytest.approx(len(counts))
    assert (found > 0).all()
    assert weight_ratio(found) == pytest.approx(max(found) / min(found))


@settings(max_examples=100)
@given(counts_of_classes, st.sampled_from(SCHEMES))
def test_a_rarer_class_never_weighs_less(counts, scheme):
    assume(any(counts))
    found = class_weights(np.array(counts), scheme)
    for c, n in enumerate(counts):
        for d, m in enumerate(counts):
            if 0 < n < m:
                assert found[c] >= found[d] * (1 - 1e-12)


@settings(max_examples=100)
@given(counts_of_classes, st.sampled_from(["sqrt_inverse", "inverse", "balanced", "none"]), st.integers(2, 1000))
def test_more_of_the_same_data_changes_no_weight(counts, scheme, times):
    assume(any(counts))
    n = np.array(counts)
    np.testing.assert_allclose(class_weights(n, scheme, 0.0), class_weights(n * times, scheme, 0.0), rtol=1e-9)
