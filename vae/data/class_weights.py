"""Class weights of a run, with their source."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaefit.cache import class_weights, weight_ratio
from vaefit.cache.errors import SettingError, require

from ..recipe import Recipe
from .weights_file import read_weights

Source = Literal["global", "batch", "none", "file"]
_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class ClassWeights:
    """Class weights (C,) float64, with their source and scheme."""

    values: NDArray[np.float64]
    source: Source
    scheme: str

    @property
    def ratio(self) -> float:
        """Largest weight divided by the smallest."""
        return weight_ratio(self.values)

    @classmethod
    def from_counts(cls, recipe: Recipe, counts: ArrayLike, source: Literal["global", "batch"]) -> ClassWeights:
        """Return weights by the recipe's scheme from counts (C,) of the dataset or the batch; ones if it sets none."""
        if recipe.weights == "none" or recipe.scheme == "none":
            return cls(np.ones(np.asarray(counts).size), "none", "none")
        values = class_weights(counts, scheme=recipe.scheme, smooth=recipe.smooth, effective_b=recipe.effective_b)
        if recipe.weights_power == 1.0:
            return cls(values, source, recipe.scheme)
        softened = values**recipe.weights_power
        return cls(softened * (values.size / softened.sum()), source, f"{recipe.scheme}^{recipe.weights_power:g}")

    @classmethod
    def from_recipe(
        cls, recipe: Recipe, file: Path | None, counts: ArrayLike, batch_counts: ArrayLike | None = None
    ) -> ClassWeights:
        """Return the weights of a run: from the file, else from the counts that the recipe names (dataset or batch).

        Weights of a file (see `read_weights`) are not scaled. Raises SettingError where the recipe names the batch and
        `batch_counts` is None.
        """
        if file is not None:
            return cls.from_values(read_weights(file), np.asarray(counts).size, str(file))
        if recipe.weights == "batch":
            require(batch_counts is not None, "--weights", "batch", "global or none: training has no fixed batch")
            return cls.from_counts(recipe, np.asarray(batch_counts), "batch")
        weights = cls.from_counts(recipe, counts, "global")
        if weights.source == "none":
            _log.warning("class weights are off: a rare class counts only as much as the few cells that it covers")
        return weights

    @classmethod
    def from_values(cls, values: ArrayLike, num_classes: int, where: str) -> ClassWeights:
        """Return the caller's weights; SettingError unless they are (C,), finite, not negative and not all 0."""
        array = np.asarray(values)
        if array.shape != (num_classes,) or array.dtype.kind not in "iuf":
            what = f"the dataset has {num_classes} classes, so {num_classes} weights are needed"
            got = f"shape {array.shape}" if array.dtype.kind in "iuf" else f"dtype {array.dtype}"
            raise SettingError(what, where, got, "Pass one number a class, or set --classes.")
        array = array.astype(np.float64)
        if not np.isfinite(array).all() or (array < 0).any() or not array.any():
            wrong = np.flatnonzero(~np.isfinite(array) | (array < 0))
            got = f"{array[wrong[0]]} for class {wrong[0]}" if wrong.size else "only zeros"
            do = "Mend them, or leave them out: they are derived from the counts then."
            raise SettingError("class weights are finite, not negative, and not all 0", where, got, do)
        return cls(array, "file", "file")
