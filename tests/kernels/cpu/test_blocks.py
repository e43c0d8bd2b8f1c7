"""Blocks: how logits are cut changes no result, and what is held beside the logits stays small."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vaefit.kernels import confusion_counts, confusion_counts_reference, focal_loss_reference, focal_loss_with_counts
from vaefit.kernels.cpu import compiled
from vaefit.kernels.cpu.blocks import Fold

BACKENDS = (
    "eager",
    pytest.param("compiled", marks=pytest.mark.skipif(compiled.obstacle() is not None, reason="needs a C++ compiler")),
)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda z: z,
    "channels last": lambda z: z.to(memory_format=torch.channels_last),
    "classes outermost": lambda z: z.transpose(0, 1).contiguous().transpose(0, 1),
    "classes between": lambda z: z.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3),
    "transposed": lambda z: z.transpose(2, 3).contiguous().transpose(2, 3),
    "cropped": lambda z: torch.cat([z, z], 3)[..., : z.shape[3]],
    "cropped, channels last": lambda z: torch.cat([z, z], 3).to(memory_format=torch.channels_last)[..., : z.shape[3]],
    "expanded": lambda z: z[:1].expand_as(z),
}


def sample(shape: tuple[int, ...], ignored: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Logits with ties, of which some targets are so unlikely that their exponential is 0; targets; weights."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-3, 4, shape, generator=generator).float()
    logits[torch.rand(shape, generator=generator) < 0.01] = 200.0
    targets = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    if ignored:
        targets[torch.rand(targets.shape, generator=generator) < 0.1] = -100
        logits.movedim(1, -1)[targets == -100] = math.nan
    return logits, targets, torch.linspace(0.1, 2.3, shape[1])


@pytest.mark.parametrize("ignored", [False, True], ids=["all count", "some are ignored"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [1, 16 * 10, 1000, 3 * 10 * 77, 1 << 18])
def test_blocks_of_every_size_give_the_same(
    monkeypatch: pytest.MonkeyPatch, block: int, layout: str, ignored: bool
) -> None:
    """Blocks of a few columns of one sample, of several samples with fewer in the last, and one of all."""
    monkeypatch.setattr("vaefit.kernels.cpu.blocks.BLOCK", block)
    logits, targets, weight = sample((7, 10, 11, 7), ignored)
    logits = LAYOUTS[layout](logits)
    if layout == "expanded" and ignored:
        targets = targets[:1].expand_as(targets)
    exact = logits.double().requires_grad_()
    for reduction in ("none", "mean"):
        leaf = logits.detach().requires_grad_()
        loss, counts = focal_loss_with_counts(leaf, targets, weight, reduction=reduction, backend="eager")
        want = focal_loss_reference(exact, targets, weight, reduction=reduction)
        torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-6)
        up = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        (slope,), (true,) = (torch.autograd.grad(*pair) for pair in ((loss, leaf, up.float()), (want, exact, up)))
        torch.testing.assert_close(slope.double(), true, rtol=1e-4, atol=1e-6)
        assert slope.stride() == torch.empty_like(logits).stride()
        assert torch.equal(counts, confusion_counts_reference(logits, targets))
    assert torch.equal(confusion_counts(logits, targets, backend="eager"), counts)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_of_any_strides_fold_to_classes_between_cells(layout: str) -> None:
    logits = LAYOUTS[layout](torch.arange(3.0 * 5 * 4 * 2).view(3, 5, 4, 2))
    dense = torch.empty_like(logits)
    fold = Fold.from_logits(dense)
    assert fold.logits(dense).data_ptr() == dense.data_ptr()
    cells = fold.cells(torch.arange(3 * 4 * 2).view(3, 4, 2)).reshape(-1)
    together = fold.logits(logits).movedim(1, -1).reshape(-1, 5)
    assert torch.equal(together, logits.movedim(1, -1).reshape(-1, 5)[cells])


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that torch held at once of what the call allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "cropped"])
@pytest.mark.parametrize("shape", [(1024, 10, 16, 16), (4, 21, 256, 256)], ids=str)
@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_peak_memory_of_loss_gradient_and_counts(
    monkeypatch: pytest.MonkeyPatch, backend: str, threads: int, shape: tuple[int, ...], layout: str
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    logits, targets, weight = sample(shape, ignored=False)
    logits = LAYOUTS[layout](logits).requires_grad_()
    settings = {"weight": weight, "backend": backend}
    focal_loss_with_counts(logits[:1], targets[:1], **settings)  # what is built and kept once
    held = peak_bytes(lambda: focal_loss_with_counts(logits, targets, **settings)[0].backward())
    assert logits.grad is not None
    assert held <= {"eager": 1.5, "compiled": 1.05}[backend] * 4 * logits.numel()
    if layout != "cropped":
        counting = peak_bytes(lambda: confusion_counts(logits, targets, backend=backend))
        assert counting <= {"eager": 0.5, "compiled": 0.05}[backend] * 4 * logits.numel()
