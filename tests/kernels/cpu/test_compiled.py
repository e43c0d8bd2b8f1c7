"""The compiled kernel against the reference in float64, and what happens where it cannot be built."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from vaefit.kernels import confusion_counts, focal_loss, focal_loss_reference, focal_loss_with_counts
from vaefit.kernels.cpu import compiled as kernel

pytestmark = pytest.mark.skipif(kernel.obstacle() is not None, reason="needs a C++ compiler")

SHAPES = [(1, 10, 7, 5), (3, 21, 33), (5, 4), (2, 3, 2, 3, 5), (2, 1, 9), (70, 10, 16, 16), (2, 300, 19)]
REDUCTIONS = ("none", "sum", "mean", "batch")


def sample(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, some of them -inf or far apart, targets with ignored cells and without the last class, uneven weights."""
    generator = torch.Generator().manual_seed(sum(shape))
    logits = 3 * torch.randn(shape, generator=generator)
    logits[torch.rand(shape, generator=generator) < 0.02] = 80.0
    targets = torch.randint(0, max(shape[1] - 1, 1), (shape[0], *shape[2:]), generator=generator)
    if shape[1] > 1:
        last = logits[:, -1]
        last[torch.rand(last.shape, generator=generator) < 0.1] = -math.inf
    targets.view(-1)[1:4] = -100
    return logits.to(dtype), targets, torch.linspace(0.1, 2.3, shape[1])


def counted(logits: Tensor, targets: Tensor) -> Tensor:
    """The counts of the cells that are not ignored; the reference takes long for many classes."""
    classes, labels = logits.shape[1], targets.to(torch.int64)
    pairs = (labels * classes + logits.detach().argmax(1))[labels != -100]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def assert_as_the_reference(
    logits: Tensor, targets: Tensor, weight: Tensor | None, gamma: float, reduction: str
) -> None:
    """Loss within a few roundings, gradient within one more of its own dtype, counts equal."""
    settings = {"gamma": gamma, "reduction": reduction}
    exact = logits.detach().double().requires_grad_()
    want = focal_loss_reference(exact, targets, weight, **settings)
    leaf = logits.detach().requires_grad_()
    loss, counts = focal_loss_with_counts(leaf, targets, weight, **settings, backend="compiled")
    eps = torch.finfo(loss.dtype).eps
    torch.testing.assert_close(loss.double(), want, rtol=50 * eps, atol=20 * eps)
    up = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (slope,), (true,) = (torch.autograd.grad(*pair) for pair in ((loss, leaf, up.to(loss.dtype)), (want, exact, up)))
    assert slope.dtype == logits.dtype
    narrow = torch.finfo(logits.dtype).eps
    torch.testing.assert_close(slope.double(), true, rtol=50 * eps + 2 * narrow, atol=20 * eps)
    assert torch.equal(counts, counted(logits, targets))
    assert torch.equal(confusion_counts(logits.detach(), targets, backend="compiled"), counts)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_gradient_and_counts_are_those_of_the_reference(shape: tuple[int, ...], gamma: float) -> None:
    logits, targets, weight = sample(shape)
    for reduction in REDUCTIONS:
        assert_as_the_reference(logits, targets, weight, gamma, reduction)
    assert_as_the_reference(logits, targets, None, gamma, "mean")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_every_dtype_of_logits(dtype: torch.dtype) -> None:
    logits, targets, weight = sample((3, 10, 7, 5), dtype)
    for reduction in ("none", "mean"):
        assert_as_the_reference(logits, targets, weight.double(), 2.0, reduction)


def test_the_gradient_is_that_of_the_loss() -> None:
    logits, targets, weight = sample((2, 3, 5), torch.float64)
    logits = logits.clamp(-5, 5).requires_grad_()
    for reduction in REDUCTIONS:
        assert torch.autograd.gradcheck(
            lambda z, r=reduction: focal_loss(z, targets, weight, 0.5, reduction=r, backend="compiled"), logits
        )


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_any_strides(reduction: str) -> None:
    logits, targets, weight = sample((4, 6, 5, 3))
    strided = torch.stack([targets, targets], 1)[:, 1]
    layouts = [
        logits.to(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        logits.transpose(0, 1).contiguous().transpose(0, 1),
        torch.cat([logits, logits], 3)[..., :3],
        torch.cat([logits, logits], 1)[:, 6:],
        torch.stack([logits, logits], -1)[..., 1],
        logits[:1].expand(4, -1, -1, -1),
    ]
    for layout in layouts:
        assert not layout.is_contiguous()
        assert_as_the_reference(layout, strided, weight, 2.0, reduction)
        fresh = torch.empty_like(layout).stride()
        leaf = layout.detach().requires_grad_()
        focal_loss(leaf, strided, weight, backend="compiled").backward()
        assert leaf.grad is not None
        assert leaf.grad.stride() == fresh


@pytest.mark.parametrize("name", ["uint8", "int8", "uint16", "int32"])
def test_integer_dtypes_of_targets(name: str) -> None:
    logits, targets, weight = sample((3, 10, 7))
    assert_as_the_reference(logits, targets.clamp(min=0).to(getattr(torch, name)), weight, 2.0, "mean")


def test_label_156_in_uint8_is_not_the_ignored_minus_100() -> None:
    logits, targets = torch.zeros(2, 256), torch.tensor([156, 3], dtype=torch.uint8)
    loss = focal_loss(logits, targets, gamma=0.0, reduction="none", backend="compiled")
    torch.testing.assert_close(loss, torch.full((2,), math.log(256)))


def test_a_cell_with_nan_is_nan_in_the_loss_and_nowhere_where_it_is_ignored() -> None:
    logits, targets, weight = sample((2, 4, 5))
    targets[0, :] = -100
    logits[0] = math.nan
    assert_as_the_reference(logits, targets, weight, 2.0, "mean")
    logits[1, 3, 2] = math.nan
    loss, counts = focal_loss_with_counts(logits, targets, weight, reduction="none", backend="compiled")
    assert loss.isnan().nonzero().tolist() == [[1, 2]]
    assert torch.equal(counts, counted(logits, targets))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3)])
def test_no_cells(shape: tuple[int, ...]) -> None:
    logits = torch.zeros(shape, requires_grad=True)
    targets = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64)
    loss, counts = focal_loss_with_counts(logits, targets, backend="compiled")
    loss.backward()
    assert loss.item() == 0
    assert not counts.any()
    assert logits.grad is not None
    assert logits.grad.shape == shape


def test_a_wrong_label_is_named() -> None:
    logits, targets = torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64)
    targets[1, 2] = 7
    for call in (focal_loss, confusion_counts, focal_loss_with_counts):
        with pytest.raises(ValueError, match=r"label 7 at \(1, 2\).*0\.\.2"):
            call(logits, targets, backend="compiled")


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets, weight = sample((40, 10, 16, 16))
    monkeypatch.setattr(kernel, "_CHUNK", 4)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        leaf = logits.clone().requires_grad_()
        loss, counts = focal_loss_with_counts(leaf, targets, weight, backend="compiled")
        results.append((loss, counts, torch.autograd.grad(loss, leaf)[0]))
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))
    assert torch.equal(results[0][1], counted(logits, targets))


def test_inputs_are_never_changed_and_a_kept_graph_gives_the_same_again() -> None:
    logits, targets, weight = sample((3, 10, 7))
    for layout in (logits, torch.cat([logits, logits], 2)[..., :7]):
        leaf, before = layout.detach().requires_grad_(), layout.clone()
        loss = focal_loss(leaf, targets, weight, backend="compiled")
        first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0].clone() for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(layout.detach(), before)


@pytest.mark.slow
def test_it_is_one_node_of_a_graph_that_the_caller_compiles() -> None:
    logits, targets, weight = sample((3, 10, 7))
    call = torch.compile(
        lambda z: focal_loss_with_counts(z * 2, targets, weight, backend="compiled"),
        backend="aot_eager",
        fullgraph=True,
    )
    leaf, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, counts = call(leaf)
    want = focal_loss(plain * 2, targets, weight, backend="compiled")
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(want, plain))
    assert torch.equal(counts, counted(logits, targets))


def test_a_machine_without_a_compiler_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets, _ = sample((2, 3))
    kernel.load.cache_clear()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "no C++ compiler is found" in str(kernel.obstacle())
    with pytest.raises(ValueError, match=r"'compiled' cannot run: no C\+\+ compiler.*Use 'auto' or 'eager'"):
        focal_loss(logits, targets, backend="compiled")


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets, _ = sample((2, 3))
    kernel.load.cache_clear()
    monkeypatch.setenv("CXX", f"{sys.executable} -c 'raise SystemExit(\"too old\")'")
    with pytest.raises(RuntimeError, match=r"focal\.cpp did not build:.* ended with 1: too old\. Set CXX"):
        focal_loss(logits, targets, backend="compiled")


def test_the_command_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, vaefit_cli, dataset) -> None:  # type: ignore[no-untyped-def]
    kernel.load.cache_clear()
    monkeypatch.setenv("CXX", f"{sys.executable} -c 'raise SystemExit(\"too old\")'")
    done = vaefit_cli("overfit", dataset, "--backend", "compiled")
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert "did not build" in done.err
    monkeypatch.setenv("CXX", "nosuch")
    assert "CXX is 'nosuch'" in vaefit_cli("overfit", dataset, "--backend", "compiled").err


def test_tensors_elsewhere_are_refused() -> None:
    logits, targets = torch.zeros(2, 3, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match=r"'compiled' cannot run: tensors are on meta.*'auto'"):
        kernel.confusion(logits, targets, -100)


@pytest.mark.slow
def test_neither_eager_nor_compiled_imports_dynamo() -> None:
    script = (
        "import sys, torch; from vaefit.kernels import focal_loss; z, t = torch.zeros(2, 3), torch.tensor([0, 1]);"
        "print(*(focal_loss(z, t, backend=b).item() for b in ('eager', 'compiled')), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    eager, compiled, dynamo = done.stdout.split()
    assert float(eager) == pytest.approx(float(compiled))
    assert dynamo == "False"
