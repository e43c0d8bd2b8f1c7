"""The Triton kernels against the float64 reference: on a GPU, or under Triton's interpreter where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings

from tests.kernels._triton.triton_case import DEVICE, LOSS_TOLERANCE, Case, cases, check, close, inputs, without_a_gpu
from vaefit.kernels import confusion_counts, focal_loss, focal_loss_reference, focal_loss_with_counts
from vaefit.kernels._triton import focal_kernel, launch, plan


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Kernels that run without a GPU, and fresh memory that holds NaN and the largest integers."""
    without_a_gpu(monkeypatch)
    torch.use_deterministic_algorithms(True)
    with np.errstate(all="ignore"):  # the interpreter computes with numpy, which warns of infinities
        yield
    torch.use_deterministic_algorithms(False)


PLAIN = Case(
    batch=4, classes=10, rest=(16, 16), layout="contiguous", dtype=torch.float32, labels=torch.int64, gamma=2.0,
    weighted=True, reduction="mean", ignored=0.3, bad=0.0, spread=10.0, special=False, upstream=1.0, seed=0,
)  # fmt: skip


def changed(**changes):
    return Case(**{**vars(PLAIN), **changes})


CHOSEN = (
    # one cell
    {"batch": 1, "classes": 2, "rest": (), "labels": torch.uint8, "gamma": 0.0, "weighted": False, "reduction": "none"},
    # every cell is ignored
    {"rest": (7,), "classes": 3, "layout": "every other", "dtype": torch.bfloat16, "labels": torch.int8, "gamma": 0.5,
     "reduction": "sum", "ignored": 1.0},
    # logits of +-80, 60 and -inf, and NaN where nothing counts
    {"batch": 5, "rest": (9, 7), "layout": "cropped", "dtype": torch.float16, "labels": torch.int16, "gamma": 1.0,
     "reduction": "batch", "bad": 0.1, "spread": 80.0, "special": True, "upstream": -3.7},
    # the last number of classes with a histogram; ties
    {"batch": 3, "classes": 22, "rest": (5, 3, 2), "layout": "channels last", "labels": torch.uint16, "gamma": 3.7,
     "weighted": False, "spread": 0.0},
    # the first without one; the same logits again and again
    {"classes": 23, "layout": "expanded", "labels": torch.int32, "reduction": "none"},
    # the last in registers
    {"classes": 32, "rest": (3, 5), "layout": "every other", "dtype": torch.float16, "labels": torch.uint32,
     "gamma": 0.0, "bad": 0.1},
    # the first in a loop
    {"classes": 33, "rest": (11,), "layout": "cropped", "dtype": torch.bfloat16, "gamma": 0.5, "reduction": "sum",
     "spread": 80.0, "special": True},
    {"classes": 37, "rest": (3, 5), "layout": "channels last", "labels": torch.uint8, "gamma": 1.0,
     "reduction": "batch", "bad": 0.1, "spread": 0.0, "upstream": -3.7},
    # as many as there may be
    {"batch": 1, "classes": 256, "rest": (3,), "labels": torch.int16, "gamma": 2.0, "weighted": False, "spread": 1.0},
)  # fmt: skip
"""Every layout, dtype, kind of label, gamma, reduction and path at least once, in PLAIN."""


def chosen(test):
    """Take these examples first."""
    for changes in CHOSEN:
        test = example(changed(**changes))(test)
    return test


@pytest.mark.slow
@chosen
@settings(max_examples=250 if DEVICE.type == "cuda" else 60)  # the interpreter takes half a second for each
@given(cases())
def test_parity(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 10, 21, 40])
@pytest.mark.parametrize("size", [512 * 7 + 1, 512])
def test_programs_share_blocks(classes, size):
    """More blocks than programs, the last of them nearly empty, or exactly one."""
    check(changed(batch=1, classes=classes, rest=(size,)))
    check(changed(batch=size, classes=classes, rest=()))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [64, 150, 256])
def test_many_classes(classes):
    check(changed(batch=2, classes=classes, rest=(5, 3), bad=0.1))


def test_the_same_input_gives_the_same_bits():
    found = inputs(changed(batch=9))
    losses = {focal_loss(found.logits, found.targets, found.weight, backend="triton").item() for _ in range(10)}
    assert len(losses) == 1


@pytest.mark.slow
@pytest.mark.parametrize("classes", [10, 40])
def test_the_workspace_is_left_as_it_was_found(classes):
    found = inputs(changed(classes=classes, bad=0.1))
    for _ in range(2):
        confusion_counts(found.logits, found.targets, backend="triton")
        focal_loss_with_counts(found.logits, found.targets, backend="triton")
        work = launch.workspace(found.logits.device)
        assert not work.counts.any()
        assert int(work.ticket) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_sure_and_impossible_cells_keep_finite_gradients(gamma):
    # p_t = 1 with 1 - p_t below float32's smallest step; p_t = 1; p_t = 0 by underflow; p_t = 0 by -inf
    logits = torch.tensor([[30.0, 0.0], [500.0, 0.0], [-500.0, 0.0], [-math.inf, 0.0]], device=DEVICE).requires_grad_()
    targets = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    loss = focal_loss(logits, targets, gamma=gamma, reduction="none", backend="triton")
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    q = math.exp(-30)
    want = [q ** (gamma + 1), 0.0, 500.0, math.inf]
    torch.testing.assert_close(loss.cpu(), torch.tensor(want), rtol=LOSS_TOLERANCE, atol=0)
    at_sure = -(1 + gamma) * q ** (gamma + 1)
    expected = torch.tensor([[at_sure, -at_sure], [0.0, 0.0], [-1.0, 1.0], [-1.0, 1.0]])
    torch.testing.assert_close(slope.cpu(), expected, rtol=LOSS_TOLERANCE, atol=1e-37)


def test_nan_logits_give_a_nan_loss_and_are_predicted():
    logits = torch.zeros(2, 4, 3, device=DEVICE)
    logits[0, 2, 1] = logits[0, 3, 1] = math.nan
    targets = torch.zeros(2, 3, dtype=torch.int64, device=DEVICE)
    loss, counts = focal_loss_with_counts(logits, targets, backend="triton")
    assert math.isnan(loss.item())
    assert counts[0].tolist() == [5, 0, 1, 0]


@pytest.mark.slow
def test_numbers_of_cells_beyond_32_bits(monkeypatch):
    monkeypatch.setattr(launch, "WIDE_FROM", 0)
    check(changed(classes=5))
    check(changed(classes=40, layout="channels last"))


@pytest.mark.parametrize("classes", [2, 33])
def test_offsets_beyond_32_bits(classes):
    torch.use_deterministic_algorithms(False)  # memory that nobody touches costs nothing
    step = 2**31 // (classes - 1) + 1
    memory = torch.empty((classes - 1) * step + 8, dtype=torch.float16, device=DEVICE)
    logits = memory.as_strided((1, classes, 8), (1, step, 1))
    logits.copy_(torch.randn(logits.shape))
    targets = torch.zeros(1, 8, dtype=torch.int64, device=DEVICE)
    close(focal_loss(logits, targets, backend="triton"), focal_loss_reference(logits.double(), targets), LOSS_TOLERANCE)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 40)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batch"])
def test_no_cells(shape, reduction):
    logits = torch.zeros(shape, device=DEVICE, requires_grad=True)
    targets = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64, device=DEVICE)
    loss, counts = focal_loss_with_counts(logits, targets, reduction=reduction, backend="triton")
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.sum() == 0
    assert slope.shape == logits.shape
    assert not counts.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_backward_again_with_another_scale(dtype, ignored):
    found = inputs(changed(dtype=dtype, ignored=ignored))
    logits = found.logits.requires_grad_()
    loss = focal_loss(logits, found.targets, found.weight, backend="triton")
    slopes = []
    for scale, keep in ((3.0, True), (0.0, True), (1.0, True), (-2.0, False)):
        (slope,) = torch.autograd.grad(scale * loss, logits, retain_graph=keep)
        slopes.append(slope / scale if scale else slope)
    assert not slopes.pop(1).any()
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0], rtol=2e-3 if dtype == torch.float16 else 1e-6, atol=1e-7)


def test_gradients_below_the_smallest_half_survive_a_loss_scale():
    logits = torch.zeros(2, 8, 64, 64, dtype=torch.float16, device=DEVICE, requires_grad=True)
    targets = torch.zeros(2, 64, 64, dtype=torch.uint8, device=DEVICE)
    loss = focal_loss(logits, targets, gamma=0.0, reduction="mean", backend="triton") * 2.0**-4
    (slope,) = torch.autograd.grad(loss * 2.0**16, logits)
    torch.testing.assert_close(slope[:, 1:], torch.full_like(slope[:, 1:], 2.0**12 / 2**13 / 8), rtol=1e-3, atol=0)


def broken(name):
    """A part of the loss kernel with one mistake in it: its name, and what stands in its place."""

    @triton.jit
    def larger(top, predicted, z, c):
        wins = (z >= top) & (top == top)
        return tl.where(wins, z, top), tl.where(wins, c, predicted)

    @triton.jit
    def pair_of(label, predicted, kept, usable, C):  # noqa: N803
        return label * C + predicted

    @triton.jit
    def add_class(others, e_t, z_t, z, top, is_target):
        e = tl.exp(z - top)
        return others + e, tl.where(is_target, e, e_t), tl.where(is_target, z, z_t), e

    parts = {
        "the last class wins ties": ("larger", larger),
        "ignored cells are counted": ("pair_of", pair_of),
        "the target is one of the others": ("add_class", add_class),
    }
    return parts[name]


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a compiled kernel cannot be patched")
@pytest.mark.parametrize(
    "name", ["the last class wins ties", "ignored cells are counted", "the target is one of the others"]
)
def test_a_broken_kernel_is_found(monkeypatch, name):
    check(changed(spread=0.0))
    monkeypatch.setattr(focal_kernel, *broken(name))
    with pytest.raises(AssertionError):
        check(changed(spread=0.0))


def test_bins_hold_every_pair():
    for classes in range(1, 257):
        bins = plan.bins_for(classes)
        assert bins == 0 or bins >= classes * classes + 2
    assert plan.bins_for(22) == 512
    assert plan.bins_for(23) == 0
