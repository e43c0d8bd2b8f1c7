"""Class weights from class counts, by scheme."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import SettingError
from .location import Location
from .schemes import DEFAULT_SCHEME, Scheme, _rarest, check_scheme, derive_weights, format_labels, weight_ratio
from .shards import Data

EVEN_BELOW = 1.01
"""Below this ratio weights have no effect; a warning is logged."""

_log = logging.getLogger("vaefit")


def class_weights(
    data_or_counts: ArrayLike | Data,
    *,
    scheme: Scheme = DEFAULT_SCHEME,
    smooth: float = 1.0,
    effective_b: float | None = None,
) -> NDArray[np.float64]:
    """Return the class weights, float64 (C,), positive; those of `balanced` as they are, the others summing to C.

    With n the count of a class and N the sum of all counts:

    - `sqrt_inverse`: 1 / sqrt(n + smooth)
    - `inverse`: 1 / (n + smooth)
    - `balanced`: N / (C n), the numbers of scikit-learn's `class_weight="balanced"`
    - `effective`: (1 - b) / (1 - b^n), Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples",
      equation 4; b = `effective_b`, 1 - 1/N unless given
    - `none`: 1

    A class that never occurs gets the weight of the rarest class that does, with a warning in the log, before the
    weights are scaled: its own formula would give it nearly all the weight. A ratio under 1.01 is logged
    too.

    Args:
        data_or_counts: non-negative integer counts (C,), or a dataset to count: what `class_counts` takes.

    Raises:
        SettingError: unknown scheme, negative smooth, b outside [0, 1), counts that are not (C,) non-negative integers.
        DataError: every count is 0; or as `class_counts`.
    """
    if _is_data(data_or_counts):
        from .shard_counts import class_counts

        data_or_counts = class_counts(data_or_counts)
    n = _checked_counts(data_or_counts)
    check_scheme(scheme, smooth, effective_b)
    weights = derive_weights(n, scheme, smooth, effective_b)
    if scheme != "none" and not n.all():
        subject, verb, then = ("class", "has", "it gets") if (n == 0).sum() == 1 else ("classes", "have", "they get")
        rest = f"{verb} no cell that counts; {then} the weight of class {_rarest(n)}, the rarest that has some"
        _log.warning(f"{subject} {format_labels(n == 0)} {rest}")
    ratio = weight_ratio(weights)
    if scheme != "none" and ratio < EVEN_BELOW:
        _log.warning(f"the {scheme} weights have a ratio of {ratio:.4f}: even classes, or a large --smooth")
    return weights


def _is_data(given: ArrayLike | Data) -> TypeGuard[Data]:
    """True for the name of one dataset or more, False for counts."""
    several = given if isinstance(given, (list, tuple)) else [given]
    return len(several) > 0 and all(isinstance(one, (str, Path, Location)) for one in several)


def _checked_counts(counts: ArrayLike | Data) -> NDArray[np.int64]:
    n = np.asarray(counts)
    if n.ndim != 1 or n.size == 0 or n.dtype.kind not in "iu" or (n.dtype.kind == "i" and n.min() < 0):
        what, got = "class counts are non-negative integers, one a class", f"dtype {n.dtype}, shape {n.shape}"
        raise SettingError(what, "counts", got, "Pass an integer array (C,).")
    if n.max() > np.iinfo(np.int64).max:
        raise SettingError("a class count is beyond 64 bits", "counts", str(n.max()), "Pass counts below 2^63.")
    return n.astype(np.int64)
