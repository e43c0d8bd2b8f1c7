"""check_result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaefit.cache import ShardCounts
from vaefit.kernels import BackendChoice

from ..data.batch import Batch
from ..data.class_weights import ClassWeights
from ..settings import CheckSettings
from .result import OverfitResult

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Prepared:
    """What is known before the first step."""

    dataset: ShardCounts
    batch: Batch
    batch_counts: Counts
    weights: ClassWeights
    backend: BackendChoice
    device: torch.device


@dataclass(frozen=True)
class OverfitRun:
    """A finished check."""

    settings: CheckSettings
    prepared: Prepared
    result: OverfitResult
    run_dir: Path
    seconds: float
