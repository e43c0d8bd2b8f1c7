"""`result.json` and `config.json` as plain JSON values; a number that is not finite becomes null."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..version import vaefit_version

if TYPE_CHECKING:
    from ..check import Check, Prepared
    from ..settings import CheckSettings


def result_json(check: Check) -> dict[str, Any]:
    """What `overfit --json` prints."""
    result, prepared = check.result, check.prepared
    accuracies, judgement = result.accuracies, result.judgement
    classes = range(prepared.dataset.classes)
    found: dict[str, Any] = {
        "verdict": judgement.verdict,
        "passed": judgement.passed,
        "reason": judgement.reason,
        "next": judgement.next or None,
        "collapsed_class": judgement.collapsed_class,
        "iterations": result.iterations,
        "reached": asdict(result.reached),
        "pixel_accuracy": accuracies.pixel,
        "macro_accuracy": accuracies.macro,
        "worst_class_accuracy": accuracies.worst,
        "class_accuracy": accuracies.classes,
        "class_predicted_steps": [result.predicted_steps(c) for c in classes],
        "background_share": result.shares.background,
        "majority_share": result.shares.majority,
        "skill": result.skill,
        "retrieval": result.retrieval,
        "distinct_pictures": result.distinct_pictures,
        "batch": {
            "digest": prepared.batch.digest,
            "indices": prepared.batch.indices,
            "swapped": prepared.batch.swapped,
            "counts": prepared.batch_counts,
        },
        "weights": {
            "source": prepared.weights.source,
            "scheme": prepared.weights.scheme,
            "ratio": prepared.weights.ratio,
            "values": prepared.weights.values,
        },
        "dataset": {
            "path": str(prepared.dataset.location),
            "counts": prepared.dataset.counts,
            "grids": prepared.dataset.grids,
            "classes": prepared.dataset.classes,
            "source": prepared.dataset.source,
        },
        "backend": prepared.backend.name,
        "device": str(prepared.device),
        "seconds": check.seconds,
        "run_dir": str(check.run_dir),
    }
    return {key: plain(value) for key, value in found.items()}


def config_json(settings: CheckSettings, prepared: Prepared) -> dict[str, Any]:
    """Every setting, and the versions that a rerun needs."""
    values = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "recipe"}
    found: dict[str, Any] = {
        "settings": values,
        "recipe": asdict(settings.recipe),
        "device": str(prepared.device),
        "backend": str(prepared.backend),
        "threads": torch.get_num_threads(),
        "height": prepared.dataset.shape[1],
        "width": prepared.dataset.shape[2],
        "classes": prepared.dataset.classes,
        "versions": {
            "vaefit": vaefit_version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
    }
    return {key: plain(value) for key, value in found.items()}


def plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
