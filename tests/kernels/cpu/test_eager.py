"""The eager backend: no value is read off the CPU, and the saved gradient buffer is protected."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_functional import REDUCTIONS, gradient, sample
from vaefit.kernels import focal_loss
from vaefit.kernels.checks import FocalSetting
from vaefit.kernels.cpu import eager


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_eager_looks_at_no_value_off_the_cpu(reduction: str) -> None:
    """A meta tensor has no values; on a GPU, reading one would stall the stream."""
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


def test_a_gradient_changed_in_place_never_gives_wrong_numbers() -> None:
    """The returned gradient is the saved buffer, which halves the memory; a second backward then raises."""
    logits, targets, _ = sample((2, 4, 5))
    loss = focal_loss(logits.requires_grad_(), targets, backend="eager")
    torch.autograd.grad(loss, logits, retain_graph=True)[0].fill_(9)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(loss, logits)
