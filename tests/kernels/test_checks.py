"""Where tensors lie: nothing waits for a device, and the default device plays no part."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_functional import BACKENDS, REDUCTIONS, formula, sample
from vaefit.kernels import focal_loss_with_counts
from vaefit.kernels.checks import FocalSetting
from vaefit.kernels.cpu import eager


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_eager_looks_at_no_value_off_the_cpu(reduction: str) -> None:
    """A meta tensor has none to look at; on a GPU, looking would stall the stream."""
    logits = torch.empty(3, 10, 7, device="meta", requires_grad=True)
    targets = torch.empty(3, 7, dtype=torch.int64, device="meta")
    weight = torch.empty(10, device="meta")
    with torch.no_grad():
        setting = FocalSetting(weight, 0.5, -100, reduction, want_gradient=True, want_counts=True)
        loss, slope, remainder, tally = eager.focal(logits, targets, setting)
    assert loss.shape == (targets.shape if reduction == "none" else ())
    assert (slope.shape, remainder.shape, tally.shape) == (logits.shape, (), (101,))
    assert eager.confusion(logits.detach(), targets, -100).shape == (101,)
    assert eager.confusion_ready(targets, targets, -100, 10).shape == (101,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_device_plays_no_part(backend: str) -> None:
    logits, targets, weight = sample((2, 4, 5))
    want = formula(logits, targets, weight, 2.0)
    with torch.device("meta"):
        loss, counts = focal_loss_with_counts(logits, targets, weight, backend=backend)
        torch.testing.assert_close(loss, want)
        assert int(counts.sum()) == int((targets != -100).sum())
