"""Tests of the operators in torch: opcheck, torch.compile, autocast, vmap, higher derivatives."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.kernels._triton.triton_case import DEVICE, without_a_gpu
from vaefit.kernels import confusion_counts, custom_op, focal_loss, focal_loss_with_counts
from vaefit.kernels.backend import no_usable_triton

BACKENDS = ("eager", "compiled", "triton")
REDUCTIONS = ("none", "sum", "mean", "batch")


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Triton's kernels run without a GPU."""
    without_a_gpu(monkeypatch)


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "compiled" and DEVICE.type != "cpu":
        pytest.skip("the compiled path is the CPU's")
    if request.param == "triton":
        reason = no_usable_triton()
        if reason is not None:
            pytest.skip(reason)
    return request.param


@pytest.fixture
def example():
    """Logits (4, 5, 6) that require a gradient, targets (4, 6) with two ignored cells, and weights."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 5, 6, generator=generator).to(DEVICE).requires_grad_()
    targets = torch.randint(0, 5, (4, 6), generator=generator).to(DEVICE)
    targets[0, :2] = -100
    return logits, targets, torch.rand(5, generator=generator).to(DEVICE)


# opcheck turns anomaly detection on, which warns
@pytest.mark.filterwarnings("ignore:Anomaly Detection:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_opcheck(backend, example, reduction, dtype):
    logits, targets, weight = example
    logits = logits.detach().to(dtype)
    setting = (2.0, -100, reduction, backend)
    torch.library.opcheck(custom_op.focal_loss, (logits, targets, weight, *setting, False, True, False))
    logits.requires_grad_()
    torch.library.opcheck(custom_op.focal_loss, (logits, targets, weight, *setting, True, True, False))
    torch.library.opcheck(custom_op.confusion_counts, (logits.detach(), targets, -100, backend))
    torch.library.opcheck(custom_op.confusion_counts_ready, (targets, targets, -100, 5, backend))


@pytest.mark.slow
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_torch_compile_gives_the_same_numbers(backend, example, reduction):
    logits, targets, weight = example
    torch.compiler.reset()

    def both(z):
        return focal_loss_with_counts(z, targets, weight, reduction=reduction, backend=backend)

    (loss, counts), (compiled, compiled_counts) = both(logits), torch.compile(both, fullgraph=True)(logits)
    assert torch.equal(loss, compiled)
    assert torch.equal(counts, compiled_counts)
    upstream = torch.randn(loss.shape, generator=torch.Generator().manual_seed(5)).to(DEVICE)
    (slope,) = torch.autograd.grad(loss, logits, upstream)
    (compiled_slope,) = torch.autograd.grad(compiled, logits, upstream)
    torch.testing.assert_close(compiled_slope, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_autocast(backend, example):
    logits, targets, weight = example
    layer = torch.nn.Conv1d(5, 5, 1).to(DEVICE)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        out = layer(logits)
        loss = focal_loss(out, targets, weight, backend=backend)
    assert out.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    (slope,) = torch.autograd.grad(loss, out)
    assert slope.dtype == torch.bfloat16


def test_backward_twice_with_other_scales(backend, example):
    logits, targets, weight = example
    loss = focal_loss(logits, targets, weight, backend=backend)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    first = first.clone()
    (again,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (third,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    torch.testing.assert_close(third, 3 * first, rtol=1e-6, atol=0)


def test_double_backward_is_refused(backend, example):
    logits, targets, weight = example
    with pytest.raises(RuntimeError, match=r"second derivative.*backend='reference'"):
        torch.autograd.grad(focal_loss(logits, targets, weight, backend=backend), logits, create_graph=True)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # which torch.func imports
def test_forward_mode_is_refused(backend, example):
    logits, targets, weight = example
    with pytest.raises(RuntimeError, match=r"forward-mode.*backend='reference'"):
        torch.func.jvp(
            lambda z: focal_loss(z, targets, weight, backend=backend), (logits.detach(),), (logits.detach(),)
        )


# torch tells that it loops over the examples
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_is_right_and_refuses_its_gradient(backend, example):
    _, targets, weight = example
    stack = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(2)).to(DEVICE)

    def both(z):
        return focal_loss_with_counts(z, targets, weight, backend=backend)

    losses, counts = torch.vmap(both)(stack)
    for i, logits in enumerate(stack):
        loss, count = both(logits)
        torch.testing.assert_close(losses[i], loss, rtol=1e-6, atol=0)
        assert torch.equal(counts[i], count)
    with pytest.raises(RuntimeError, match=r"torch\.vmap"):
        torch.vmap(lambda z: both(z)[0])(stack.requires_grad_()).sum().backward()
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda z: both(z)[0])(stack[0].detach())


def test_a_gradient_that_was_handed_out_keeps_its_numbers(backend, example):
    logits, targets, weight = example
    outputs = custom_op.focal_loss(logits, targets, weight, 2.0, -100, "mean", backend, True, False, False)
    before = outputs[1].clone()
    (7 * outputs[0]).backward()
    assert torch.equal(outputs[1], before)


@pytest.mark.parametrize("learns", [False, True])
def test_memory_that_holds_negated_numbers(backend, example, learns):
    _, targets, weight = example
    whole = torch.complex(torch.zeros(4, 5, 6), torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1)))
    negated = whole.to(DEVICE).conj().imag
    assert negated.is_neg()
    plain = negated.resolve_neg().requires_grad_(learns)
    if learns:
        negated = negated.requires_grad_()
    found = focal_loss_with_counts(negated, targets, weight, backend=backend)
    expected = focal_loss_with_counts(plain, targets, weight, backend=backend)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(confusion_counts(negated, targets, backend=backend), expected[1])
    if learns:
        assert torch.equal(torch.autograd.grad(found[0], negated)[0], torch.autograd.grad(expected[0], plain)[0])


def test_counts_carry_no_gradient(backend, example):
    logits, targets, _ = example
    assert not focal_loss_with_counts(logits, targets, backend=backend)[1].requires_grad
    assert not confusion_counts(logits, targets, backend=backend).requires_grad


@pytest.mark.slow
def test_without_triton_the_kernels_import_and_say_so():
    script = """
import sys
sys.modules["triton"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else found(name, *rest)
import torch
import vaefit.kernels as kernels
kernels.focal_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
import os
os.environ["TRITON_INTERPRET"] = "1"
try:
    kernels.choose_backend("triton", torch.device("cpu"))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "triton is not installed" in done.stdout


def test_triton_on_the_cpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"backend 'triton' cannot run: tensors are on cpu\. Use 'auto'"):
        focal_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), backend="triton")


def test_triton_on_float64_is_refused():
    logits = torch.zeros(1, 2, dtype=torch.float64, device=DEVICE)
    with pytest.raises(ValueError, match=r"float64"):
        focal_loss(logits, torch.zeros(1, dtype=torch.int64, device=DEVICE), backend="triton")
