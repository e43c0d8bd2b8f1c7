"""Class counts to class weights, by scheme."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, TypeGuard, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError, SettingError, require
from .location import Location
from .shards import Data

Scheme = Literal["sqrt_inverse", "inverse", "balanced", "effective", "none"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
DEFAULT_SCHEME: Scheme = "sqrt_inverse"
EVEN_BELOW = 1.01
"""Weights with a smaller ratio change nothing, which is said aloud."""

_log = logging.getLogger(__name__)


def class_weights(
    counts_or_path: ArrayLike | Data,
    scheme: Scheme = DEFAULT_SCHEME,
    smooth: float = 1.0,
    effective_b: float | None = None,
) -> NDArray[np.float64]:
    """Class weights, float64 (C,), positive and summing to C.

    With n the count of a class and N the sum of all counts:

    - `sqrt_inverse`: 1 / sqrt(n + smooth)
    - `inverse`: 1 / (n + smooth)
    - `balanced`: N / (C (n + smooth)), as scikit-learn's `class_weight="balanced"`
    - `effective`: (1 - b) / (1 - b^n), Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples",
      equation 4; b = `effective_b`, 1 - 1/N unless given
    - `none`: 1

    A class that never occurs gets the weight of the rarest class that does, with a warning in the log, before the
    weights are scaled to sum to C: its own formula would give it all the weight there is. A ratio under 1.01 is logged
    as well.

    Args:
        counts_or_path: non-negative counts (C,), or the dataset to take them of: what `class_counts` takes.

    Raises:
        SettingError: unknown scheme, negative smooth, b outside [0, 1), counts that are not (C,) non-negative integers.
        DataError: every count is 0; or as `class_counts`.
    """
    if _is_data(counts_or_path):
        from .shard_counts import class_counts

        counts_or_path = class_counts(counts_or_path)
    n = _checked_counts(counts_or_path)
    check_scheme(scheme, smooth, effective_b)
    weights = derive_weights(n, scheme, smooth, effective_b)
    if scheme != "none" and not n.all():
        subject, verb, then = ("class", "has", "it gets") if (n == 0).sum() == 1 else ("classes", "have", "they get")
        rest = f"{verb} no cell that counts; {then} the weight of class {_rarest(n)}, the rarest that has some"
        _log.warning(f"{subject} {listed(n == 0)} {rest}")
    if scheme != "none" and weight_ratio(weights) < EVEN_BELOW:
        _log.warning(
            f"the {scheme} weights have a ratio of {weight_ratio(weights):.4f}: even classes, or a large --smooth"
        )
    return weights


def derive_weights(
    n: NDArray[np.int64], scheme: Scheme = DEFAULT_SCHEME, smooth: float = 1.0, effective_b: float | None = None
) -> NDArray[np.float64]:
    """`class_weights` of checked counts, saying nothing of classes that never occur; DataError where none does.

    SettingError where the weights overflow.
    """
    if not n.any():
        raise DataError("every class count is 0", "counts", do="There is nothing to weigh; check --ignore-index.")
    with np.errstate(all="ignore"):  # what overflows is found below
        raw = _raw(n.astype(np.float64), scheme, smooth, effective_b)
    if scheme != "none":
        raw[n == 0] = raw[_rarest(n)]
    scaled: NDArray[np.float64] = raw * (n.size / raw.sum())
    require(bool(np.isfinite(scaled).all()), "--smooth", smooth, "a smaller number: the weights are not finite")
    return scaled


def listed(which: NDArray[np.bool_]) -> str:
    """The labels at which `which` (C,) is True, as `3, 7 and 12 more`."""
    labels = [str(label) for label in np.flatnonzero(which)]
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")


def _rarest(n: NDArray[np.int64]) -> int:
    """The class that occurs least often among those that do."""
    present = np.flatnonzero(n)
    return int(present[np.argmin(n[present])])


def weight_ratio(weights: ArrayLike) -> float:
    """Largest weight over the smallest; infinite where the smallest is 0."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.max() / w.min()) if w.min() > 0 else float("inf")


def _raw(n: NDArray[np.float64], scheme: Scheme, smooth: float, effective_b: float | None) -> NDArray[np.float64]:
    if scheme == "none":
        return np.ones_like(n)
    if scheme == "effective":
        total = n.sum()
        b = 1.0 - 1.0 / total if effective_b is None else effective_b
        # log1p and expm1: b^n is so close to 1 for a rare class among many cells that 1 - b^n would lose its digits
        log_b = np.log1p(-1.0 / total) if effective_b is None and total > 1 else np.log(b) if b > 0 else -np.inf
        effective: NDArray[np.float64] = (1.0 - b) / -np.expm1(np.maximum(n, 1.0) * log_b)
        return effective
    total = n.sum()
    # with smooth 0 an absent class has no weight of its own; the caller replaces it
    n = np.where(n > 0, n + smooth, 1.0)
    if scheme == "sqrt_inverse":
        return 1.0 / np.sqrt(n)
    if scheme == "inverse":
        return 1.0 / n
    balanced: NDArray[np.float64] = total / (n.size * n)
    return balanced


def _is_data(given: ArrayLike | Data) -> TypeGuard[Data]:
    """True for a name of a dataset or several, False for what should be counts."""
    several = given if isinstance(given, (list, tuple)) else [given]
    return len(several) > 0 and all(isinstance(one, (str, Path, Location)) for one in several)


def _checked_counts(counts: ArrayLike | Data) -> NDArray[np.int64]:
    n = np.asarray(counts)
    if n.ndim != 1 or n.size == 0 or n.dtype.kind not in "iu" or (n.dtype.kind == "i" and n.min() < 0):
        raise SettingError(
            "class counts are non-negative integers, one a class",
            "counts",
            got=f"dtype {n.dtype}, shape {n.shape}",
            do="Pass an integer array (C,).",
        )
    if n.max() > np.iinfo(np.int64).max:
        raise SettingError("a class count is beyond 64 bits", "counts", str(n.max()), "Pass counts below 2^63.")
    return n.astype(np.int64)


def check_scheme(scheme: str, smooth: float, effective_b: float | None) -> None:
    """Raise SettingError unless these make weights from any counts."""
    require(scheme in SCHEMES, "--scheme", scheme, f"one of {', '.join(SCHEMES)}")
    require(bool(np.isfinite(smooth)) and smooth >= 0, "--smooth", smooth, "a finite number >= 0")
    fits = effective_b is None or 0 <= effective_b < 1
    require(fits, "--effective-b", effective_b, "a number in [0, 1), or leave it out for 1 - 1/N")
