"""Random calls of the Triton kernels, compared with the float64 reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from vaefit.kernels import confusion_counts_reference, custom_op, focal_loss_reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Triton's interpreter cuts bfloat16 off where a GPU rounds, and an upstream gradient makes that twice
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-6}
"""Largest error of a gradient, relative to the largest gradient of the reference."""
LOSS_TOLERANCE = 2e-6
if DEVICE.type == "cuda":  # whose exp rounds the exponent once more
    TOLERANCE[torch.float32] = LOSS_TOLERANCE = 1e-5
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)
CLASSES = (*range(2, 13), 15, 16, 17, 21, 22, 23, 32, 33, 37)
"""Around every change of path: histogram or not, registers or loop."""
LAYOUTS = ("contiguous", "channels last", "cropped", "every other", "expanded")


@dataclass(frozen=True)
class Case:
    """The arguments of one call; `seed` makes its numbers."""

    batch: int
    classes: int
    rest: tuple[int, ...]
    layout: str
    dtype: torch.dtype
    labels: torch.dtype
    gamma: float
    weighted: bool
    reduction: str
    ignored: float
    bad: float
    spread: float
    special: bool
    upstream: float
    seed: int


def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels take CPU tensors, where there are no others."""
    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def cases() -> st.SearchStrategy[Case]:
    """Small calls with everything that has hurt such kernels before."""
    return st.builds(
        Case,
        batch=st.integers(1, 5),
        classes=st.sampled_from(CLASSES),
        rest=st.one_of(st.just((16, 16)), st.lists(st.integers(1, 9), max_size=3).map(tuple)),
        layout=st.sampled_from(LAYOUTS),
        dtype=st.sampled_from((torch.float32, torch.float32, torch.bfloat16, torch.float16)),
        labels=st.sampled_from(INTEGERS),
        gamma=st.sampled_from((0.0, 0.5, 1.0, 2.0, 3.7)),
        weighted=st.booleans(),
        reduction=st.sampled_from(("none", "sum", "mean", "batch")),
        ignored=st.sampled_from((0.0, 0.0, 0.3, 1.0)),
        bad=st.sampled_from((0.0, 0.0, 0.1)),
        spread=st.sampled_from((0.0, 1.0, 10.0, 80.0)),
        special=st.booleans(),
        upstream=st.sampled_from((1.0, -3.7)),
        seed=st.integers(0, 2**20),
    )


@dataclass(frozen=True)
class Inputs:
    """The tensors of a case."""

    logits: Tensor
    targets: Tensor
    weight: Tensor | None
    ignore_index: int
    bad: int
    """How many labels are outside the classes and not ignored."""
    kept: Tensor
    """(B, *), cells whose label is a class."""


def inputs(case: Case) -> Inputs:
    """Draw the tensors. Ties are frequent with spread 0; special values stand where the loss stays finite."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.batch, *case.rest)

    def chance(share: float) -> Tensor:
        return torch.rand(shape, generator=generator) < share

    ignore_index = case.classes + 1 if torch.iinfo(case.labels).min == 0 else -100
    targets = torch.randint(0, case.classes, shape, generator=generator)
    ignored = chance(case.ignored)
    bad = chance(case.bad) & ~ignored
    logits = torch.randn((case.batch, case.classes, *case.rest), generator=generator)
    logits = torch.round(2 * logits) if case.spread == 0 else case.spread * logits
    if case.special and case.layout != "expanded":
        logits[logits == logits.amax(1, keepdim=True)] = 60.0
        lowest = torch.rand(logits.shape, generator=generator) < 0.1
        lowest.scatter_(1, targets.unsqueeze(1), False)
        logits[lowest] = -math.inf
        logits.movedim(1, -1)[ignored | bad] = math.nan  # of which nothing may be seen
    targets[bad], targets[ignored] = case.classes, ignore_index
    weight = torch.rand(case.classes, generator=generator) + 0.1 if case.weighted else None
    return Inputs(
        laid_out(logits.to(case.dtype).to(DEVICE), case.layout),  # a move would make it dense
        targets.to(case.labels).to(DEVICE),
        None if weight is None else weight.to(DEVICE),
        ignore_index,
        int(bad.sum()),
        ~(ignored | bad),
    )


def laid_out(logits: Tensor, layout: str) -> Tensor:
    """The same values (B, C, *) in another memory format; `expanded` repeats the first grid."""
    if layout == "channels last":
        return logits.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "cropped":
        wide = torch.full([size + 3 for size in logits.shape], math.nan, dtype=logits.dtype, device=logits.device)
        wide = wide[tuple(slice(1, 1 + size) for size in logits.shape)]
        return wide.copy_(logits)
    if layout == "every other":
        doubled = (*logits.shape[:-1], 2 * logits.shape[-1])
        wide = torch.full(doubled, math.nan, dtype=logits.dtype, device=logits.device)
        return wide[..., ::2].copy_(logits)
    if layout == "expanded":
        return logits[:1].expand(logits.shape)
    return logits


def check(case: Case) -> None:
    """Raise AssertionError where the kernels and the reference differ."""
    found = inputs(case)
    arguments = (found.weight, case.gamma, found.ignore_index, case.reduction)
    # the reference raises for a bad label on the CPU; the kernels skip it as they skip ignored cells, and count it
    targets = torch.where(found.kept, found.targets.cpu().to(torch.int64), -1000)
    exact = found.logits.detach().cpu().double().requires_grad_()
    weight = None if found.weight is None else found.weight.cpu().double()
    truth = focal_loss_reference(exact, targets, weight, case.gamma, -1000, case.reduction)
    upstream = torch.full_like(truth, case.upstream)
    (slope,) = torch.autograd.grad(truth, exact, upstream)
    expected = confusion_counts_reference(exact.detach(), targets, -1000)

    logits = found.logits.detach().requires_grad_()
    loss, _, _, tally = custom_op.focal_loss(logits, found.targets, *arguments, "triton", True, True, True)
    (gradient,) = torch.autograd.grad(loss, logits, upstream.to(loss))
    assert loss.dtype == torch.float32
    assert gradient.dtype == case.dtype
    close(loss, truth, LOSS_TOLERANCE)
    close(gradient, slope, TOLERANCE[case.dtype])
    assert not gradient.movedim(1, -1)[~found.kept.to(DEVICE)].any()
    same_tally(tally, expected, found.bad)

    alone, _, _, nothing = custom_op.focal_loss(found.logits, found.targets, *arguments, "triton", False, False, True)
    assert torch.equal(alone, loss)  # the same bits, with and without gradient and counts
    assert nothing.numel() == 0
    same_tally(
        custom_op.confusion_counts(found.logits, found.targets, found.ignore_index, "triton"), expected, found.bad
    )
    ready = found.logits.max(1)[1].to(torch.int16)
    counted = custom_op.confusion_counts_ready(ready, found.targets, found.ignore_index, case.classes, "triton")
    same_tally(counted, expected, found.bad)


def close(found: Tensor, truth: Tensor, tolerance: float) -> None:
    """The largest error, relative to the largest value of the truth, is within the tolerance."""
    if truth.numel():
        truth = truth.detach().cpu()
        off = (found.detach().cpu().double() - truth).abs().max()
        # below 1e-16 the reference's 1 - p_t is 0, and a half rounds what is small to 0
        floor = 1e-7 if found.dtype == torch.float16 else 1e-15
        assert off <= tolerance * truth.abs().max() + floor, float(off)


def same_tally(tally: Tensor, expected: Tensor, bad: int) -> None:
    """Counts equal, and so many labels counted apart."""
    assert torch.equal(tally[:-1].cpu(), expected.reshape(-1))
    assert int(tally[-1]) == bad
