"""The schemes: formulas from class counts to class weights."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError, require

Scheme = Literal["sqrt_inverse", "inverse", "balanced", "effective", "none"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
DEFAULT_SCHEME: Scheme = "sqrt_inverse"
SCALED: tuple[Scheme, ...] = ("sqrt_inverse", "inverse", "effective")
"""Schemes whose weights are scaled to sum to C; the others are known by their own numbers."""


def derive_weights(
    n: NDArray[np.int64], scheme: Scheme = DEFAULT_SCHEME, smooth: float = 1.0, effective_b: float | None = None
) -> NDArray[np.float64]:
    """Return `class_weights` of checked counts (C,) without warnings; DataError where all counts are 0.

    SettingError where the weights overflow.
    """
    if not n.any():
        raise DataError("every class count is 0", "counts", do="There is nothing to weigh; check --ignore-index.")
    with np.errstate(all="ignore"):  # what overflows is found below
        raw = _raw(n.astype(np.float64), scheme, smooth, effective_b)
    if scheme != "none":
        raw[n == 0] = raw[_rarest(n)]
    scaled: NDArray[np.float64] = raw * (n.size / raw.sum()) if scheme in SCALED else raw
    require(bool(np.isfinite(scaled).all()), "--smooth", smooth, "a smaller number: the weights are not finite")
    return scaled


def format_labels(which: NDArray[np.bool_]) -> str:
    """Format the labels where `which` (C,) is True, as `3, 7 and 12 more`."""
    labels = [str(label) for label in np.flatnonzero(which)]
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")


def _rarest(n: NDArray[np.int64]) -> int:
    """Return the class with the smallest count above 0."""
    present = np.flatnonzero(n)
    return int(present[np.argmin(n[present])])


def weight_ratio(weights: ArrayLike) -> float:
    """Return the largest weight divided by the smallest; infinite where the smallest is 0."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.max() / w.min()) if w.min() > 0 else float("inf")


def _raw(n: NDArray[np.float64], scheme: Scheme, smooth: float, effective_b: float | None) -> NDArray[np.float64]:
    if scheme == "none":
        return np.ones_like(n)
    total = n.sum()
    if scheme == "effective":
        b = 1.0 - 1.0 / total if effective_b is None else effective_b
        # log1p and expm1: b^n is so close to 1 for a rare class among many cells that 1 - b^n would lose its digits
        log_b = np.log1p(-1.0 / total) if effective_b is None and total > 1 else np.log(b) if b > 0 else -np.inf
        effective: NDArray[np.float64] = (1.0 - b) / -np.expm1(np.maximum(n, 1.0) * log_b)
        return effective
    # without smooth an absent class has no weight of its own; the caller replaces it
    n = np.where(n > 0, n + (0.0 if scheme == "balanced" else smooth), 1.0)
    if scheme == "balanced":
        balanced: NDArray[np.float64] = total / (n.size * n)
        return balanced
    return 1.0 / np.sqrt(n) if scheme == "sqrt_inverse" else 1.0 / n


def check_scheme(scheme: str, smooth: float, effective_b: float | None) -> None:
    """Raise SettingError for an unknown scheme or a parameter out of range."""
    require(scheme in SCHEMES, "--scheme", scheme, f"one of {', '.join(SCHEMES)}")
    require(bool(np.isfinite(smooth)) and smooth >= 0, "--smooth", smooth, "a finite number >= 0")
    fits = effective_b is None or 0 <= effective_b < 1
    require(fits, "--effective-b", effective_b, "a number in [0, 1), or leave it out for 1 - 1/N")
