"""Property tests of the schemes: the formula with 60 digits, and invariants of all weights."""

from __future__ import annotations

import itertools
import logging
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from vaefit.cache import SCHEMES, class_weights, weight_ratio

count = st.integers(0, 50) | st.integers(0, 10**6) | st.integers(0, 10**15)
counts = st.lists(count, min_size=1, max_size=20).filter(any)
smooths = st.sampled_from([0.0, 1.0]) | st.floats(0, 1e9)


def plain(counts: list[int], scheme: str, smooth: float, b: float | None) -> list[Decimal]:
    """The formula of each class; an absent class weighs as the rarest that occurs; all but `balanced` sum to C."""
    with localcontext() as context:
        context.prec = 60
        total, classes, extra = Decimal(sum(counts)), Decimal(len(counts)), Decimal(smooth)
        base = 1 - 1 / total if b is None else Decimal(b)
        formula = {
            "sqrt_inverse": lambda n: 1 / (n + extra).sqrt(),
            "inverse": lambda n: 1 / (n + extra),
            "balanced": lambda n: total / (classes * n),
            "effective": lambda n: (1 - base) / (1 - base**n),
            "none": lambda n: Decimal(1),
        }[scheme]
        rarest = min(n for n in counts if n > 0)
        raw = [formula(Decimal(n or rarest)) for n in counts]
        return raw if scheme == "balanced" else [w * classes / sum(raw) for w in raw]


@settings(max_examples=300)
@given(counts, st.sampled_from(SCHEMES), smooths, st.none() | st.floats(0, 0.999999))
@example([10**15, 1], "effective", 1.0, None)
@example([1], "effective", 1.0, None)
@example([3, 0], "effective", 1.0, 0.0)
def test_weights_are_their_formula(counts, scheme, smooth, b):
    found = class_weights(np.array(counts), scheme=scheme, smooth=smooth, effective_b=b)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [float(w) for w in plain(counts, scheme, smooth, b)], rtol=1e-9)
    assert scheme == "balanced" or found.sum() == pytest.approx(len(counts), rel=1e-12)
    assert (found > 0).all()
    assert weight_ratio(found) == pytest.approx(max(found.tolist()) / min(found.tolist()), rel=1e-12)


@settings(max_examples=150)
@given(counts, st.sampled_from(SCHEMES), smooths)
def test_a_rarer_class_never_weighs_less(counts, scheme, smooth):
    found = class_weights(np.array(counts), scheme=scheme, smooth=smooth).tolist()
    present = sorted((n, w) for n, w in zip(counts, found, strict=True) if n > 0)
    for (fewer, heavier), (more, lighter) in itertools.pairwise(present):
        assert heavier == lighter if fewer == more or scheme == "none" else heavier >= lighter
    rarest = present[0][1]
    assert all(w == rarest for n, w in zip(counts, found, strict=True) if n == 0)


@settings(max_examples=100)
@given(counts, st.sampled_from(SCHEMES), st.randoms(use_true_random=False))
def test_classes_may_come_in_any_order(counts, scheme, random):
    order = random.sample(range(len(counts)), len(counts))
    found = class_weights(np.array(counts), scheme=scheme)
    np.testing.assert_allclose(class_weights(np.array(counts)[order], scheme=scheme), found[order], rtol=1e-12)


@settings(max_examples=100)
@given(counts, st.sampled_from(["sqrt_inverse", "inverse", "balanced", "none"]), smooths, st.integers(2, 1000))
def test_the_same_data_several_times_over_weighs_the_same(counts, scheme, smooth, times):
    assume(smooth == 0 or smooth > 1e-3)
    once = class_weights(np.array(counts), scheme=scheme, smooth=smooth)
    np.testing.assert_allclose(
        class_weights(np.array(counts) * times, scheme=scheme, smooth=smooth * times), once, rtol=1e-9
    )


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@settings(max_examples=100)
@given(counts, st.sampled_from(SCHEMES))
def test_absent_classes_and_even_weights_are_said_aloud(counts, scheme):
    logger, heard = logging.getLogger("vaefit"), Heard()
    logger.addHandler(heard)
    try:
        found = class_weights(np.array(counts), scheme=scheme)
    finally:
        logger.removeHandler(heard)
    said = " ".join(heard.lines)
    assert ("no cell that counts" in said) == (scheme != "none" and 0 in counts)
    assert ("ratio" in said) == (scheme != "none" and max(found) / min(found) < 1.01)
