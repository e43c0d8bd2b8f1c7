"""Focal loss and its gradient against the formula in float64, over shapes, layouts, dtypes, labels and large logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaefit.kernels import FocalLoss, focal_loss, focal_loss_reference, focal_loss_with_counts

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
BACKENDS = ("auto", "eager", "reference")
REDUCTIONS = ("none", "sum", "mean", "batch")
LABEL_DTYPES = (torch.int64, torch.int32, torch.int16, torch.uint8)


@dataclass(frozen=True)
class Case:
    """The arguments of a loss."""

    logits: torch.Tensor
    targets: torch.Tensor
    weight: torch.Tensor | None
    gamma: float
    ignore_index: int
    reduction: str
    backend: str

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        arguments = (self.weight, self.gamma, self.ignore_index, self.reduction)
        return focal_loss(logits, self.targets, *arguments, backend=self.backend)

    @property
    def divisor(self) -> int:
        kept = sum(label != self.ignore_index for label in self.targets.reshape(-1).tolist())
        return {"none": 1, "sum": 1, "mean": max(kept, 1), "batch": max(len(self.targets), 1)}[self.reduction]

    @property
    def largest_weight(self) -> float:
        return 1.0 if self.weight is None else float(self.weight.max())


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values with other strides."""
    if layout == "channels last":
        return values.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "every second":
        return torch.stack([values, torch.full_like(values, math.nan)], dim=-1)[..., 0]
    return values.transpose(0, -1).contiguous().transpose(0, -1) if layout == "transposed" else values


@st.composite
def cases(draw) -> Case:
    classes = draw(st.sampled_from([2, 3, 10]) | st.integers(2, 256))
    shape = (draw(st.integers(0, 4)), *draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.uniform(-1, 1, (shape[0], classes, *shape[1:])) * draw(st.sampled_from([0.0, 1.0, 10.0, 80.0]))
    if draw(st.booleans()):
        logits = np.where(rng.random(logits.shape) < 0.3, np.sign(logits) * 80.0, logits)
    ignore_index = draw(st.sampled_from([-100, -1, 0, classes - 1, 255]))
    targets = rng.integers(0, classes, shape)
    label_dtype = draw(st.sampled_from([d for d in LABEL_DTYPES if d != torch.uint8 or ignore_index >= 0]))
    targets[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = ignore_index
    # what an ignored cell holds reaches nothing
    np.moveaxis(logits, 1, -1)[targets == ignore_index] += draw(st.sampled_from([0.0, math.inf, math.nan]))
    weight = None
    if draw(st.booleans()):
        weight = torch.from_numpy(rng.uniform(0.01, 4.0, classes) * (rng.random(classes) < 0.8))
        weight = weight.to(draw(st.sampled_from(DTYPES)))
    return Case(
        laid_out(
            torch.from_numpy(logits).to(draw(st.sampled_from(DTYPES))),
            draw(st.sampled_from(["contiguous", "channels last", "every second", "transposed"])),
        ),
        torch.from_numpy(targets).to(label_dtype),
        weight,
        draw(st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0.01, 6.0)),
        ignore_index,
        draw(st.sampled_from(REDUCTIONS)),
        draw(st.sampled_from(BACKENDS)),
    )


def cell(z: NDArray[np.float64], label: int, weight: float, gamma: float) -> tuple[float, NDArray[np.float64]]:
    """Loss of one cell and its gradient (C,), by odds: with s_i = exp(z_i - z_t) and S their sum over the other
    classes, p = 1 / (1 + S), 1 - p = S / (1 + S) and -log p = log(1 + S); no digit is lost near p = 1.
    """
    s = np.exp(z - z[label])
    s[label] = 0.0
    total = s.sum()
    miss, minus_log_p = total / (1 + total), np.log1p(total)
    slope = gamma * miss ** (gamma - 1) * minus_log_p / (1 + total) ** 2 + miss**gamma / (1 + total)  # d loss / d S
    gradient = weight * slope * s
    gradient[label] = -gradient.sum()
    return weight * miss**gamma * minus_log_p, gradient


def truth(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loss (B, *) and gradient (B, C, *) of each cell by itself; 0 at ignored cells."""
    logits = case.logits.double().movedim(1, -1).numpy()
    losses, gradients = np.zeros(case.targets.shape), np.zeros(logits.shape)
    for where in np.ndindex(*case.targets.shape):
        label = int(case.targets[where])
        if label != case.ignore_index:
            weight = 1.0 if case.weight is None else float(case.weight[label])
            losses[where], gradients[where] = cell(logits[where], label, weight, case.gamma)
    return losses, np.moveaxis(gradients, -1, 1)


@pytest.mark.slow
@settings(max_examples=250)
@given(cases())
def test_the_loss_is_its_formula(case: Case) -> None:
    untouched = case.logits.clone()
    found = case.loss(case.logits)
    losses, _ = truth(case)
    wanted = losses if case.reduction == "none" else losses.sum() / case.divisor
    wide = case.logits.dtype == torch.float64
    assert found.dtype == (torch.float64 if wide else torch.float32)
    # near p = 1 the digits of 1 - p end at those of p
    eps = torch.finfo(found.dtype).eps
    cells = 1 if case.reduction == "none" else max(losses.size, 1) / case.divisor
    np.testing.assert_allclose(found.numpy(), wanted, rtol=50 * eps, atol=8 * eps * case.largest_weight * cells)
    np.testing.assert_array_equal(case.logits.double().numpy(), untouched.double().numpy())

    same = (case.weight, case.gamma, case.ignore_index, case.reduction)
    module = FocalLoss(*same, backend=case.backend)
    assert torch.equal(module(case.logits, case.targets), found)
    with_counts, _ = focal_loss_with_counts(case.logits, case.targets, *same, backend=case.backend)
    assert torch.equal(with_counts, found)
    reference = focal_loss_reference(case.logits, case.targets, *same)
    torch.testing.assert_close(reference, found, rtol=50 * eps, atol=8 * eps * case.largest_weight * cells)


@settings(max_examples=250)
@given(cases(), st.integers(0, 2**32))
def test_the_gradient_is_that_of_the_formula(case: Case, seed: int) -> None:
    logits = case.logits.detach().requires_grad_()
    loss = case.loss(logits)
    upstream = torch.from_numpy(np.random.default_rng(seed).normal(size=tuple(loss.shape))).to(loss.dtype)
    (found,) = torch.autograd.grad(loss, logits, upstream)
    assert found.dtype == logits.dtype
    assert found.shape == logits.shape
    above = upstream.double().unsqueeze(1).numpy() if case.reduction == "none" else float(upstream) / case.divisor
    wanted = above * truth(case)[1]
    eps, narrow = torch.finfo(loss.dtype).eps, torch.finfo(logits.dtype)
    absolute = 8 * eps * case.largest_weight * (1 + case.gamma) * float(np.abs(above).max(initial=0.0))
    np.testing.assert_allclose(
        found.double().numpy(), wanted, rtol=200 * eps + narrow.eps, atol=absolute + narrow.smallest_normal * narrow.eps
    )
    ignored = (case.targets == case.ignore_index).unsqueeze(1).expand_as(found)
    assert not found[ignored].any()


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 6), st.floats(0.0, 5.0), st.sampled_from(BACKENDS))
@example(0, 2, 0.0, "eager")
def test_the_gradient_is_the_slope_of_the_loss_itself(seed: int, classes: int, gamma: float, backend: str) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(2, classes, 3)) * 2)
    targets = torch.from_numpy(rng.integers(0, classes, (2, 3)))
    weight, up = torch.from_numpy(rng.uniform(0, 3, classes)), torch.from_numpy(rng.normal(size=(2, 3)))

    def loss(z: torch.Tensor) -> torch.Tensor:
        return (up * focal_loss(z, targets, weight, gamma, reduction="none", backend=backend)).sum()

    z = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(z), z)
    h = 1e-5
    for where in np.ndindex(*logits.shape):
        step = torch.zeros_like(logits)
        step[where] = h
        central = float(loss(logits + step) - loss(logits - step)) / (2 * h)
        assert math.isclose(float(found[where]), central, rel_tol=1e-6, abs_tol=1e-8)
