"""The focal loss against its formula, written out here once more."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaefit.kernels import FocalLoss, confusion_counts, focal_loss, focal_loss_reference, focal_loss_with_counts

REDUCTIONS = ("none", "sum", "mean", "batch")
BACKENDS = ("eager", "reference")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32")
NARROW = (torch.float16, torch.bfloat16, torch.float32)


def formula(
    logits: Tensor, targets: Tensor, weight: Tensor | None, gamma: float, ignore: int = -100, reduction: str = "mean"
) -> Tensor:
    """-w_t (1 - p_t)^gamma log p_t in float64, cell by cell."""
    z = logits.double().movedim(1, -1)
    cells, labels = z.reshape(-1, z.shape[-1]), targets.reshape(-1).tolist()
    losses = []
    for cell, label in zip(cells, labels, strict=True):
        if label == ignore:
            losses.append(torch.zeros((), dtype=torch.float64))
            continue
        p = torch.exp(cell - cell.max()) / torch.exp(cell - cell.max()).sum()
        w = 1.0 if weight is None else weight[label].double()
        losses.append(-w * (1 - p[label]) ** gamma * torch.log(p[label]))
    loss = torch.stack(losses).reshape(targets.shape)
    kept = sum(label != ignore for label in labels)
    divisor = {"none": 1, "sum": 1, "mean": max(kept, 1), "batch": logits.shape[0]}[reduction]
    return loss if reduction == "none" else loss.sum() / divisor


def sample(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, ignored: int = 3) -> tuple[Tensor, ...]:
    """Logits, targets with ignored cells, and uneven weights; the last class never occurs."""
    generator = torch.Generator().manual_seed(len(shape) * 1000 + shape[1])
    logits = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    targets = torch.randint(0, max(shape[1] - 1, 1), (shape[0], *shape[2:]), generator=generator)
    targets.view(-1)[:ignored] = -100
    return logits, targets, torch.linspace(0.1, 2.3, shape[1], dtype=torch.float64)


def gradient(loss: Tensor, logits: Tensor, upstream: Tensor | None = None) -> Tensor:
    return torch.autograd.grad(loss, logits, upstream)[0]


def random_like(loss: Tensor) -> Tensor:
    return torch.randn(loss.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(loss.dtype)


def largest_error(got: Tensor, truth: Tensor) -> float:
    """Relative to each element, or to a thousandth of the largest where that is more."""
    floor = 1e-3 * truth.abs().max()
    return float(((got.detach().double() - truth).abs() / truth.abs().clamp(min=floor)).max())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_is_that_of_the_loss(backend: str, reduction: str, gamma: float) -> None:
    logits, targets, weight = sample((2, 3, 3, 1))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: focal_loss(z, targets, weight, gamma, reduction=reduction, backend=backend), logits
    )


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 7), (2, 10, 5, 3), (2, 3, 2, 3, 5)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_and_gradient_follow_the_formula(backend: str, reduction: str, shape: tuple[int, ...]) -> None:
    logits, targets, weight = sample(shape, ignored=2)
    logits.requires_grad_()
    for gamma, w in ((0.0, None), (0.5, weight), (2.0, weight), (3.7, None)):
        got = focal_loss(logits, targets, w, gamma, reduction=reduction, backend=backend)
        want = formula(logits, targets, w, gamma, reduction=reduction)
        assert got.shape == (targets.shape if reduction == "none" else ())
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
        up = random_like(want)
        torch.testing.assert_close(gradient(got, logits, up), gradient(want, logits, up), rtol=1e-10, atol=1e-13)


def test_gamma_zero_without_weights_is_cross_entropy() -> None:
    logits, targets, _ = sample((4, 6, 5))
    want = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100)
    torch.testing.assert_close(focal_loss(logits, targets, gamma=0.0), want)


def test_the_mean_is_over_kept_cells_and_not_over_weights() -> None:
    # three kept cells of loss w ln 2 and one ignored cell
    logits, targets = torch.zeros(2, 2, 2, dtype=torch.float64), torch.tensor([[0, 1], [1, -100]])
    weight = torch.tensor([5.0, 0.5])
    losses = {r: focal_loss(logits, targets, weight, 0.0, reduction=r) for r in ("sum", "mean", "batch")}
    assert losses["sum"].item() == pytest.approx(6 * math.log(2))
    assert losses["mean"].item() == pytest.approx(6 * math.log(2) / 3)
    assert losses["batch"].item() == pytest.approx(6 * math.log(2) / 2)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_narrow_dtypes_are_as_exact_as_the_reference(reduction: str, dtype: torch.dtype) -> None:
    logits, targets, weight = sample((3, 10, 7, 5), dtype)
    wide = logits.double().requires_grad_()
    logits.requires_grad_()
    truth = formula(wide, targets, weight, 2.0, reduction=reduction)
    up = random_like(truth)
    true_gradient = gradient(truth, wide, up)
    errors = {}
    for backend in BACKENDS:
        loss = focal_loss(logits, targets, weight, 2.0, reduction=reduction, backend=backend)
        slope = gradient(loss, logits, up.to(loss.dtype))
        assert loss.dtype == torch.float32
        assert slope.dtype == dtype
        errors[backend] = (largest_error(loss, truth.detach()), largest_error(slope, true_gradient))
    # eager may round once more than the reference: when it stores its gradient, before the upstream one scales it
    for got, own in zip(errors["eager"], errors["reference"], strict=True):
        assert got <= 2.1 * own + 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_stays_float64(backend: str) -> None:
    logits, targets, weight = sample((2, 4, 3))
    loss = focal_loss(logits.requires_grad_(), targets, weight.float(), backend=backend)
    assert loss.dtype == torch.float64
    assert gradient(loss, logits).dtype == torch.float64


def test_a_scaled_float16_loss_keeps_gradients_below_the_smallest_half() -> None:
    # the mean over 2**17 cells makes gradients of about 4e-6 * p, which halves lose before the loss scale lifts them
    logits = torch.zeros(2, 64, 256, 256, dtype=torch.float16, requires_grad=True)
    targets = torch.zeros(2, 256, 256, dtype=torch.uint8)
    slope = gradient(focal_loss(logits, targets, gamma=0.0) * 2.0**16, logits)
    torch.testing.assert_close(slope[:, 1:], torch.full_like(slope[:, 1:], 0.5 / 64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_integer_dtype_of_targets(backend: str, name: str) -> None:
    logits, targets, weight = sample((3, 5, 4), ignored=0)
    got = focal_loss(logits, targets.to(getattr(torch, name)), weight, ignore_index=1, backend=backend)
    torch.testing.assert_close(got, formula(logits, targets, weight, 2.0, ignore=1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_label_156_in_uint8_is_not_the_ignored_minus_100(backend: str) -> None:
    logits = torch.randn(2, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([156, 3], dtype=torch.uint8)
    got = focal_loss(logits, targets, reduction="none", backend=backend)
    torch.testing.assert_close(got, formula(logits, targets, None, 2.0, reduction="none"))
    assert got[0] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides_of_logits_and_targets(backend: str) -> None:
    logits, targets, weight = sample((4, 6, 5, 3))
    up = random_like(targets.double())
    layouts = [
        logits.to(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([logits, logits], 3)[..., :3],
        torch.stack([logits, logits], -1)[..., 1],
    ]
    strided = torch.stack([targets, targets], 1)[:, 1]
    plain = logits.clone().requires_grad_()
    want = gradient(formula(plain, targets, weight, 2.0, reduction="none"), plain, up)
    for layout in layouts:
        z = layout.detach().requires_grad_()
        assert not z.is_contiguous()
        slope = gradient(focal_loss(z, strided, weight, reduction="none", backend=backend), z, up)
        torch.testing.assert_close(slope, want, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_logits_give_the_exact_limits(backend: str, dtype: torch.dtype, gamma: float) -> None:
    inf = math.inf
    logits = torch.tensor([[80, -80, -80], [-80, 80, -80], [0, -inf, -inf], [1, 1, -inf]], dtype=dtype)
    logits.requires_grad_()
    loss = focal_loss(logits, torch.zeros(4, dtype=torch.int64), None, gamma, reduction="none", backend=backend)
    half = 0.5**gamma * math.log(2)
    torch.testing.assert_close(loss, torch.tensor([0.0, 160.0, 0.0, half]), rtol=1e-6, atol=1e-30)
    slope = gradient(loss.sum(), logits)
    # dL/dp at p = 1/2, times dp/dz = 1/4
    edge = (-(0.5**gamma) * 2 + gamma * 0.5 ** (gamma - 1) * math.log(0.5)) / 4
    want = torch.tensor([[0, 0, 0], [-1, 1, 0], [0, 0, 0], [edge, -edge, 0]], dtype=dtype)
    torch.testing.assert_close(slope, want, rtol=4 * torch.finfo(dtype).eps, atol=1e-30)


@pytest.mark.parametrize("gap", [3.0, 15.0, 16.5, 17.5, 90.0])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nearly_certain_cells_stay_finite_and_small(backend: str, gamma: float, gap: float) -> None:
    """Compare with the closed form for two classes, 1 - p = sigmoid(-gap); for gamma < 1 its slope has no bound."""
    logits = torch.tensor([[gap, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0]), None, gamma, backend=backend)
    q = 1 / (1 + math.exp(gap))
    log_p = math.log1p(-q)
    want = -(q**gamma) * log_p
    slope = q**gamma * (gamma * (1 - q) * log_p - q)
    assert loss.item() == pytest.approx(want, rel=1e-5, abs=1e-7)
    assert gradient(loss, logits)[0].tolist() == pytest.approx([slope, -slope], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_logits_give_nan_but_leak_nothing_from_ignored_cells(backend: str, gamma: float) -> None:
    logits, targets, weight = sample((2, 4, 5), ignored=0)
    targets[0, 1] = -100
    clean = logits.clone().requires_grad_()
    want = formula(clean, targets, weight, gamma)
    ignored = logits.clone()
    ignored[0, :, 1] = torch.tensor([math.nan, math.inf, -math.inf, math.nan], dtype=torch.float64)
    ignored.requires_grad_()
    got = focal_loss(ignored, targets, weight, gamma, backend=backend)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradient(got, ignored), gradient(want, clean))

    counted = logits.clone()
    counted[1, 3, 2] = math.nan  # not the target's own logit: no target is class 3
    for reduction in REDUCTIONS:
        loss = focal_loss(counted, targets, weight, gamma, reduction=reduction, backend=backend)
        assert loss.isnan().sum() == 1
    counted.requires_grad_()
    assert gradient(focal_loss(counted, targets, weight, gamma, backend=backend), counted)[1, :, 2].isnan().any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3, 4, 2), (0, 4, 2), (2, 4, 0)])
def test_nothing_to_count_is_zero_loss_and_zero_gradient(shape: tuple[int, ...], backend: str, reduction: str) -> None:
    logits = torch.full(shape, math.nan, requires_grad=True)
    targets = torch.full((shape[0], shape[2]), -100)
    loss = focal_loss(logits, targets, reduction=reduction, backend=backend)
    torch.testing.assert_close(loss, torch.zeros_like(targets.float()) if reduction == "none" else torch.tensor(0.0))
    torch.testing.assert_close(gradient(loss.sum(), logits), torch.zeros(shape))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_class_is_certain(backend: str, gamma: float) -> None:
    logits = torch.tensor([[[3.0, -5.0]]], requires_grad=True)
    loss = focal_loss(logits, torch.zeros(1, 2, dtype=torch.int64), None, gamma, backend=backend)
    assert loss.item() == 0
    assert torch.equal(gradient(loss, logits), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_class_only_in_the_targets(backend: str) -> None:
    logits, targets, weight = sample((2, 4, 3), ignored=0)
    targets.fill_(3)
    got = focal_loss(logits, targets, weight, 0.5, backend=backend)
    torch.testing.assert_close(got, formula(logits, targets, weight, 0.5))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_backward_gives_the_same_gradient(backend: str, reduction: str) -> None:
    logits, targets, weight = sample((2, 4, 5))
    logits.requires_grad_()
    loss = focal_loss(logits, targets, weight, reduction=reduction, backend=backend)
    up = torch.ones_like(loss)
    want = gradient(formula(logits, targets, weight, 2.0, reduction=reduction), logits, up)
    for times in (1, 2, 3):
        loss.backward(up, retain_graph=True)
        torch.testing.assert_close(logits.grad, times * want)
    logits.grad.zero_()
    loss.backward(up)
    torch.testing.assert_close(logits.grad, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeroing_the_gradient_between_two_backwards_is_fine(backend: str) -> None:
    logits, targets, _ = sample((2, 4, 5))
    loss = focal_loss(logits.requires_grad_(), targets, backend=backend)
    loss.backward(retain_graph=True)
    assert logits.grad is not None
    want = logits.grad.clone()
    logits.grad.zero_()
    loss.backward()
    assert torch.equal(logits.grad, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_never_changed(backend: str) -> None:
    inputs = sample((2, 4, 5))
    before = [t.clone() for t in inputs]
    logits, targets, weight = inputs
    leaf = logits.requires_grad_()
    focal_loss(leaf * 1, targets, weight, reduction="none", backend=backend).sum().backward()
    focal_loss(leaf, targets, weight, backend=backend).backward()
    for old, new in zip(before, inputs, strict=True):
        assert torch.equal(old, new.detach())


def test_double_backward_is_refused_by_eager_and_right_in_the_reference() -> None:
    logits, targets, weight = sample((2, 3, 2), ignored=1)
    logits.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: focal_loss_reference(z, targets, weight, 2.0), logits)
    loss = focal_loss(logits, targets, weight, backend="eager")
    with pytest.raises(RuntimeError, match=r"second derivative.*backend='reference'"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_no_gradient_is_kept_where_none_is_wanted() -> None:
    logits, targets, weight = sample((2, 4, 5))
    want = formula(logits, targets, weight, 2.0)
    assert not focal_loss(logits, targets, weight).requires_grad
    with torch.no_grad():
        loss = focal_loss(logits.requires_grad_(), targets, weight)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, want.detach())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": torch.tensor([0, 3])}, r"label 3 at \(1,\).*classes are 0\.\.2"),
        ({"targets": torch.tensor([-1, 0])}, r"label -1 at \(0,\).*ignore_index"),
        ({"targets": torch.tensor([-100, 0]), "ignore_index": 255}, r"label -100 at \(0,\)"),
        ({"targets": torch.tensor([0.0, 1.0])}, r"targets have dtype torch\.float32"),
        ({"targets": torch.tensor([True, False])}, r"targets have dtype torch\.bool"),
        ({"targets": torch.tensor([0, 1, 2])}, r"targets have shape \(3,\).*\(2,\)"),
        ({"targets": torch.tensor([[0], [1]])}, r"targets have shape \(2, 1\)"),
        ({"logits": torch.zeros(2)}, r"logits have shape \(2,\)"),
        ({"logits": torch.zeros(2, 0)}, r"logits have shape \(2, 0\)"),
        ({"logits": torch.zeros(2, 3, dtype=torch.int64)}, r"logits have dtype torch\.int64"),
        ({"weight": torch.ones(4)}, r"weight has shape \(4,\).*3 classes"),
        ({"weight": torch.ones(3, 1)}, r"weight has shape \(3, 1\)"),
        ({"weight": torch.ones(3, requires_grad=True)}, r"weight requires a gradient"),
        ({"gamma": -0.1}, r"gamma is -0\.1"),
        ({"gamma": math.nan}, r"gamma is nan"),
        ({"reduction": "average"}, r"reduction is 'average'.*none, sum, mean, batch"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_arguments_are_named(backend: str, change: dict[str, object], words: str) -> None:
    good = {"logits": torch.zeros(2, 3), "targets": torch.tensor([0, 1]), "backend": backend}
    focal_loss(**good)
    with pytest.raises(ValueError, match=words):
        focal_loss(**(good | change))


@pytest.mark.parametrize(("backend", "words"), [("triton", r"triton.*cpu"), ("cuda", r"backend is 'cuda'.*eager")])
def test_a_backend_that_cannot_run_says_why(backend: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        focal_loss(torch.zeros(2, 3), torch.tensor([0, 1]), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_module_is_the_function_and_carries_its_weights(backend: str) -> None:
    logits, targets, weight = sample((3, 5, 4), torch.float32)
    targets[2, 1] = 2
    settings = {"gamma": 0.7, "ignore_index": 2, "reduction": "batch", "backend": backend}
    targets = targets.clamp(min=0)
    module = FocalLoss(weight, **settings)
    torch.testing.assert_close(module(logits, targets), focal_loss(logits, targets, weight, **settings))
    assert torch.equal(module.state_dict()["weight"], weight)
    assert not list(module.parameters())

    other = FocalLoss(torch.ones(5), **settings)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(logits, targets), module(logits, targets))
    assert module.to(torch.float16).weight.dtype == torch.float16
    assert "weight" not in FocalLoss().state_dict()


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_are_a_tensor_an_array_or_a_list(backend: str) -> None:
    logits, targets, weight = sample((2, 4, 5))
    unwritable = weight.numpy().copy()
    unwritable.flags.writeable = False
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype)
        want = focal_loss(z, targets, weight, backend=backend)
        for given in (weight.tolist(), tuple(weight.tolist()), weight.numpy(), weight.numpy()[::-1][::-1], unwritable):
            assert torch.equal(focal_loss(z, targets, given, backend=backend), want)
            assert torch.equal(FocalLoss(given, backend=backend)(z, targets), want)
    with pytest.raises(ValueError, match=r"weight has shape \(3,\), but the logits have 4 classes"):
        focal_loss(logits, targets, [1.0, 2.0, 3.0], backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_device_plays_no_part(backend: str) -> None:
    logits, targets, weight = sample((2, 4, 5))
    want = formula(logits, targets, weight, 2.0)
    with torch.device("meta"):
        loss, counts = focal_loss_with_counts(logits, targets, weight, backend=backend)
        torch.testing.assert_close(loss, want)
        assert int(counts.sum()) == int((targets != -100).sum())


@pytest.mark.parametrize("call", [focal_loss, confusion_counts, focal_loss_reference])
def test_an_array_is_no_tensor(call):
    logits, targets = torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"logits is a ndarray, not a tensor. Pass torch.as_tensor\(logits\)"):
        call(logits.numpy(), targets)
    with pytest.raises(TypeError, match=r"targets is a list, not a tensor"):
        call(logits, targets.tolist())
