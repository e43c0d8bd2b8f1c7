"""Gap between the modes of a model: what it computes in training mode, and not in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..metrics.accuracy import Labels
from ..metrics.verdict import Evidence, ModeGap, memorised
from ..model.adapter import Adapter
from ..model.state import training


def find_gap(
    model: nn.Module,
    adapter: Adapter,
    inputs: Tensor,
    evaluated: Evidence,
    evidence_of: Callable[[Labels], Evidence],
    target: float,
    updates: int,
) -> ModeGap | None:
    """Return the gap of a model that fails in evaluation mode and memorises its batch in training mode, else None.

    Training mode takes the statistics of the batch, and no dropout. The model keeps its buffers.

    Args:
        evaluated: measured in evaluation mode.
        evidence_of: measures a reconstruction (B, H, W).
        target: accuracy that every class needs.
        updates: updates done.
    """

    def passing(chosen: Callable[[nn.Module], bool]) -> Evidence | None:
        with training(model, chosen), torch.no_grad():
            logits = adapter.outputs(model, inputs)[0]
        evidence = evidence_of(logits.argmax(dim=1).cpu().numpy())
        return evidence if memorised(evidence, target) else None

    if adapter.ours or evaluated.diverged or memorised(evaluated, target):
        return None
    try:
        trained = passing(lambda module: not isinstance(module, _DropoutNd))
        if trained is None:
            return None
        lagging = [module for module in model.modules() if _keeps_statistics(module)]
        by_statistics = passing(_keeps_statistics) if lagging else None
    except Exception:  # a user's model may raise anything; the run itself must not be lost by it
        return None
    momentum = None if by_statistics is None else min(getattr(m, "momentum", None) or 0.0 for m in lagging)
    right = (by_statistics or trained).accuracies.pixel
    return ModeGap(right, evaluated.accuracies.pixel, momentum, updates)


def _keeps_statistics(module: nn.Module) -> bool:
    """Return True for a BatchNorm with running statistics, and for layers like it."""
    return getattr(module, "running_mean", None) is not None
