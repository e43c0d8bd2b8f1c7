"""Loss, gradient and confusion counts against plain definitions, over shapes, dtypes, layouts and extreme logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaefit.kernels import confusion_counts, focal_loss, focal_loss_with_counts

DTYPES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 2e-5, torch.bfloat16: 2e-5}
"""Logits' dtype, and the relative error that their loss may have: it is computed in float32 or better."""
GRADIENT = {torch.float64: 1e-10, torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""The gradient is rounded to the logits' dtype at the end."""


@dataclass(frozen=True)
class Case:
    """The arguments of a loss."""

    logits: torch.Tensor
    targets: torch.Tensor
    weight: torch.Tensor | None
    gamma: float
    ignore: int
    reduction: str
    backend: str

    @property
    def arguments(self) -> dict[str, object]:
        return {
            "weight": None if self.weight is None else self.weight.to(self.logits.dtype),
            "gamma": self.gamma,
            "ignore_index": self.ignore,
            "backend": self.backend,
        }


@st.composite
def cases(draw) -> Case:
    classes = draw(st.sampled_from([2, 3, 5, 10, 21, 256]))
    rest = draw(st.sampled_from([(), (1,), (7,), (3, 5), (4, 4), (2, 3, 2)]))
    shape = (draw(st.integers(1, 4)), classes, *rest)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.0, 1.0, 10.0, 80.0]))
    values = torch.from_numpy(scale * rng.uniform(-1, 1, shape)).to(draw(st.sampled_from(list(DTYPES))))
    layout = draw(st.sampled_from(["contiguous", "channels last", "strided"]))
    if layout == "channels last":
        values = values.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "strided":
        values = torch.stack([values, torch.zeros_like(values)], dim=-1)[..., 0]
    ignore = draw(st.sampled_from([-100, 0, classes - 1, 255]))
    labels = rng.integers(0, classes, (shape[0], *rest))
    labels[rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = ignore
    weight = draw(st.sampled_from(["none", "uneven", "zero"]))
    weights = torch.from_numpy(rng.uniform(0.1, 3.0, classes))
    if weight == "zero":
        weights[rng.integers(classes)] = 0.0
    return Case(
        values,
        torch.from_numpy(labels),
        None if weight == "none" else weights,
        draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.7])),
        ignore,
        draw(st.sampled_from(["none", "sum", "mean", "batch"])),
        draw(st.sampled_from(["auto", "eager", "reference"])),
    )


def cell_loss(z: list[float], label: int, weight: float, gamma: float) -> float:
    """-w (1 - p)^gamma log p of one cell."""
    top = max(z)
    others = [math.exp(v - top) for i, v in enumerate(z) if i != label]
    own = math.exp(z[label] - top)
    log_p = (z[label] - top) - math.log(own + sum(others))
    miss = sum(others) / (own + sum(others))
    return -weight * (miss**gamma) * log_p


def cell_gradient(z: list[float], label: int, weight: float, gamma: float) -> list[float]:
    """The derivative of `cell_loss` in each logit, by the chain rule through p: dL/dp dp/dz."""
    top = max(z)
    exps = [math.exp(v - top) for v in z]
    p = [e / sum(exps) for e in exps]
    own = p[label]
    miss = sum(v for i, v in enumerate(p) if i != label)
    if own == 0.0:  # -gamma (1-p)^(gamma-1) p log p -> 0, so only the cross-entropy's part is left
        slope_times_own = -weight
    elif miss == 0.0:
        slope_times_own = -weight if gamma == 0 else 0.0
    else:
        slope = gamma * miss ** (gamma - 1) * math.log(own) - miss**gamma / own
        slope_times_own = weight * slope * own
    return [slope_times_own * ((i == label) * miss - (i != label) * p[i]) for i in range(len(z))]


def by_cell(case: Case):
    """Each cell: where, its logits, its label, its weight; ignored cells left out."""
    logits = case.logits.double().movedim(1, -1)
    weight = (
        [1.0] * case.logits.shape[1] if case.weight is None else case.weight.to(case.logits.dtype).double().tolist()
    )
    for where in np.ndindex(*case.targets.shape):
        label = int(case.targets[where])
        if label != case.ignore:
            yield where, logits[where].tolist(), label, float(weight[label])


def divisor(case: Case) -> float:
    kept = sum(1 for _ in by_cell(case))
    return {"none": 1, "sum": 1, "mean": max(kept, 1), "batch": case.logits.shape[0]}[case.reduction]


@settings(max_examples=150)
@given(cases())
def test_the_loss_is_its_formula(case):
    expected = np.zeros(case.targets.shape)
    for where, z, label, weight in by_cell(case):
        expected[where] = cell_loss(z, label, weight, case.gamma)
    found = focal_loss(case.logits, case.targets, reduction=case.reduction, **case.arguments)
    assert found.dtype == (torch.float64 if case.logits.dtype == torch.float64 else torch.float32)
    wanted = expected if case.reduction == "none" else expected.sum() / divisor(case)
    tolerance = DTYPES[case.logits.dtype]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=tolerance, atol=tolerance * 1e-2)


@settings(max_examples=150)
@given(cases(), st.integers(0, 1000))
def test_the_gradient_is_its_derivative(case, seed):
    logits = case.logits.detach().requires_grad_()
    loss = focal_loss(logits, case.targets, reduction=case.reduction, **case.arguments)
    upstream = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 2.0, loss.shape)).to(loss.dtype)
    (found,) = torch.autograd.grad(loss, logits, upstream)
    assert found.dtype == logits.dtype
    expected = np.zeros((*case.targets.shape, logits.shape[1]))
    for where, z, label, weight in by_cell(case):
        above = float(upstream[where] if case.reduction == "none" else upstream) / divisor(case)
        expected[where] = [above * g for g in cell_gradient(z, label, weight, case.gamma)]
    wanted = np.moveaxis(expected, -1, 1)
    tolerance = GRADIENT[logits.dtype]
    # of the largest: a tiny part of a gradient in float16 is no error
    np.testing.assert_allclose(
        found.double().numpy(), wanted, rtol=tolerance, atol=tolerance * (abs(wanted).max() + 1e-6)
    )


@settings(max_examples=80)
@given(cases(), st.booleans())
def test_the_counts_are_counted(case, with_ties):
    logits = case.logits.round() if with_ties else case.logits
    classes = logits.shape[1]
    expected = np.zeros((classes, classes), dtype=int)
    cells = logits.double().movedim(1, -1).numpy()
    for where, _, label, _ in by_cell(case):
        cell = cells[where].tolist()
        expected[label, cell.index(max(cell))] += 1
    options = {"ignore_index": case.ignore, "backend": case.backend}
    assert np.array_equal(confusion_counts(logits, case.targets, **options), expected)
    loss, counts = focal_loss_with_counts(logits, case.targets, reduction=case.reduction, **case.arguments)
    assert np.array_equal(counts, expected)
    assert torch.equal(loss, focal_loss(logits, case.targets, reduction=case.reduction, **case.arguments))
    ready = logits.argmax(dim=1)
    counted = confusion_counts(ready, case.targets, num_classes=classes, **options)
    assert int(counted.sum()) == int(expected.sum())
    assert np.array_equal(counted.sum(dim=1), expected.sum(axis=1))
