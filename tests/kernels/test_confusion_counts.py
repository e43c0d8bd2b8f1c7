"""Confusion counts against a count by hand, and in one call with the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vaefit.kernels import confusion_counts, confusion_counts_reference, focal_loss, focal_loss_with_counts
from vaefit.kernels.cpu.eager import predict

BACKENDS = ("eager", "reference")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32")


def by_hand(predictions: np.ndarray, targets: np.ndarray, classes: int, ignore: int = -100) -> Tensor:
    counts = np.zeros((classes, classes), dtype=np.int64)
    for target, prediction in zip(targets.reshape(-1), predictions.reshape(-1), strict=True):
        if target != ignore:
            counts[target, prediction] += 1
    return torch.from_numpy(counts)


def lowest_of_the_largest(logits: Tensor) -> np.ndarray:
    return np.argmax(logits.double().numpy(), axis=1)


def sample(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits on so coarse a grid that most cells have ties; targets without the last class, two of them ignored."""
    generator = torch.Generator().manual_seed(shape[1])
    logits = torch.randint(-2, 3, shape, generator=generator).float()
    targets = torch.randint(0, max(shape[1] - 1, 1), (shape[0], *shape[2:]), generator=generator)
    targets.view(-1)[1:3] = -100
    return logits, targets


@pytest.mark.parametrize("shape", [(5, 4), (3, 10, 7, 5), (2, 3, 2, 3, 5), (1, 1, 4), (4, 256, 33)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_from_logits_and_from_predictions(backend: str, shape: tuple[int, ...]) -> None:
    logits, targets = sample(shape)
    predictions = lowest_of_the_largest(logits)
    want = by_hand(predictions, targets.numpy(), shape[1])
    got = confusion_counts(logits, targets, backend=backend)
    assert got.dtype == torch.int64
    assert got.shape == (shape[1], shape[1])
    assert torch.equal(got, want)
    ready = confusion_counts(torch.from_numpy(predictions), targets, backend=backend, num_classes=shape[1])
    assert ready.dtype == torch.int64
    assert torch.equal(ready, want)


def test_the_reference_is_the_same_function() -> None:
    logits, targets = sample((3, 10, 7, 5))
    predictions = lowest_of_the_largest(logits)
    want = by_hand(predictions, targets.numpy(), 10)
    assert torch.equal(confusion_counts_reference(logits, targets), want)
    assert torch.equal(confusion_counts_reference(torch.from_numpy(predictions), targets, num_classes=10), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_lowest_index_wins_ties(backend: str, dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 5, 40, 9, dtype=dtype)
    logits[:, 1] = -0.0
    logits[1, 3:] = 7.0
    targets = torch.full((2, 40, 9), 4)
    want = torch.zeros(5, 5, dtype=torch.int64)
    want[4, 0] = want[4, 3] = 360
    for layout in (logits, logits.to(memory_format=torch.channels_last), logits.reshape(2, 5, 360)):
        assert torch.equal(confusion_counts(layout, targets.reshape(2, *layout.shape[2:]), backend=backend), want)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_integer_dtype_of_targets_and_predictions(backend: str, name: str) -> None:
    logits, targets = sample((3, 5, 8))
    targets = targets.clamp(min=2)
    predictions = lowest_of_the_largest(logits)
    dtype = getattr(torch, name)
    want = by_hand(predictions, targets.numpy(), 5, ignore=2)
    ready = torch.from_numpy(predictions).to(dtype)
    narrow = targets.to(dtype)
    assert torch.equal(confusion_counts(logits, narrow, ignore_index=2, backend=backend), want)
    assert torch.equal(confusion_counts(ready, narrow, ignore_index=2, backend=backend, num_classes=5), want)
    assert torch.equal(focal_loss_with_counts(logits, narrow, ignore_index=2, backend=backend)[1], want)


@pytest.mark.parametrize("name", ["uint8", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_byte_labels_among_256_classes(backend: str, name: str) -> None:
    """156 in uint8 has the bits of -100 in int8; int8 reaches only half of the classes."""
    label = {"uint8": 156, "int8": 127}[name]
    logits = torch.zeros(2, 256)
    logits[:, 200] = 1.0
    targets = torch.tensor([label, 3], dtype=getattr(torch, name))
    want = torch.zeros(256, 256, dtype=torch.int64)
    want[label, 200] = want[3, 200] = 1
    assert torch.equal(confusion_counts(logits, targets, backend=backend), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_cells_count_nowhere(backend: str) -> None:
    logits, targets = sample((2, 4, 6))
    predictions = torch.from_numpy(lowest_of_the_largest(logits))
    targets[0, :2] = -100
    predictions[0, 0] = 9  # no class, but at a cell that does not count
    got = confusion_counts(predictions, targets, backend=backend, num_classes=4)
    assert int(got.sum()) == int((targets != -100).sum())
    assert torch.equal(got, confusion_counts(logits, targets, backend=backend))
    nothing = torch.full_like(targets, -100)
    assert not confusion_counts(logits, nothing, backend=backend).any()
    # an ignored class: its row is empty, its column is not
    inside = confusion_counts(logits.roll(1, 1), targets.clamp(min=0), ignore_index=0, backend=backend)
    assert not inside[0].any()
    assert torch.equal(inside, by_hand(lowest_of_the_largest(logits.roll(1, 1)), targets.clamp(min=0).numpy(), 4, 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides_and_no_cells(backend: str) -> None:
    logits, targets = sample((4, 6, 5, 3))
    want = by_hand(lowest_of_the_largest(logits), targets.numpy(), 6)
    predictions = torch.from_numpy(lowest_of_the_largest(logits))
    strided = torch.stack([targets, targets], 1)[:, 1]
    columns = predictions.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert not columns.is_contiguous()
    for layout in (logits.to(memory_format=torch.channels_last), torch.stack([logits, logits], -1)[..., 1]):
        assert torch.equal(confusion_counts(layout, strided, backend=backend), want)
    assert torch.equal(confusion_counts(columns, strided, backend=backend, num_classes=6), want)
    assert torch.equal(confusion_counts(logits[:0], targets[:0], backend=backend), torch.zeros_like(want))
    empty = confusion_counts(predictions[:0], targets[:0], backend=backend, num_classes=6)
    assert torch.equal(empty, torch.zeros_like(want))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batch"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_and_counts_in_one_call_are_the_two_calls(backend: str, reduction: str) -> None:
    logits, targets = sample((3, 10, 7, 5))
    logits.requires_grad_()
    settings = {"weight": torch.linspace(0.1, 2.0, 10), "gamma": 0.5, "reduction": reduction, "backend": backend}
    loss, counts = focal_loss_with_counts(logits, targets, **settings)
    alone = focal_loss(logits, targets, **settings)
    torch.testing.assert_close(loss, alone)
    up = torch.randn(loss.shape, generator=torch.Generator().manual_seed(1))
    slopes = [torch.autograd.grad(value, logits, up)[0] for value in (loss, alone)]
    torch.testing.assert_close(*slopes)
    assert slopes[0].any()
    assert not counts.requires_grad
    assert torch.equal(counts, by_hand(lowest_of_the_largest(logits.detach()), targets.numpy(), 10))


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_never_changed(backend: str) -> None:
    logits, targets = sample((3, 4, 5))
    predictions = torch.from_numpy(lowest_of_the_largest(logits))
    before = [t.clone() for t in (logits, targets, predictions)]
    confusion_counts(logits, targets, backend=backend)
    confusion_counts(predictions, targets, backend=backend, num_classes=4)
    focal_loss_with_counts(logits, targets, backend=backend)
    for old, new in zip(before, (logits, targets, predictions), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits": torch.tensor([0, 1])}, r"predictions have dtype torch\.int64.*num_classes"),
        ({"logits": torch.tensor([0, 3]), "num_classes": 3}, r"class 3 at \(1,\).*0\.\.2"),
        ({"logits": torch.tensor([-1, 0]), "num_classes": 3}, r"class -1 at \(0,\)"),
        ({"logits": torch.tensor([0, 1, 2]), "num_classes": 3}, r"targets have shape \(2,\)"),
        ({"num_classes": 4}, r"num_classes is 4.*3 classes"),
        ({"targets": torch.tensor([0, 3])}, r"label 3 at \(1,\).*0\.\.2"),
        ({"targets": torch.tensor([0, -100]), "ignore_index": 255}, r"label -100 at \(1,\)"),
        ({"logits": torch.tensor([0, 1]), "num_classes": 3, "targets": torch.tensor([3, 0])}, r"label 3 at \(0,\)"),
        ({"targets": torch.tensor([0.0, 1.0])}, r"targets have dtype torch\.float32"),
        ({"targets": torch.tensor([0])}, r"targets have shape \(1,\)"),
        ({"backend": "triton"}, r"triton.*cpu"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_arguments_are_named(backend: str, change: dict[str, object], words: str) -> None:
    good = {"logits": torch.zeros(2, 3), "targets": torch.tensor([0, 1]), "backend": backend}
    confusion_counts(**good)
    with pytest.raises(ValueError, match=words):
        confusion_counts(**(good | change))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_negative_or_zero_number_of_classes(backend: str) -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    for classes in (0, -3):
        with pytest.raises(ValueError, match=rf"num_classes.*{classes}"):
            confusion_counts(empty, empty, num_classes=classes, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_label_stops_loss_and_counts_together(backend: str) -> None:
    with pytest.raises(ValueError, match=r"label 7 at \(1,\)"):
        focal_loss_with_counts(torch.zeros(2, 3), torch.tensor([0, 7]), backend=backend)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("special", ["none", "nan", "-inf"])
def test_predictions_of_many_blocks_are_those_of_argmax(dtype: torch.dtype, special: str) -> None:
    torch.manual_seed(0)
    logits = torch.randint(-3, 4, (70, 10, 33, 17)).to(dtype)  # 390,000 logits, most cells with a tie
    if special != "none":
        logits[torch.rand(logits.shape) < 0.1] = float(special)
        logits[3, :, 5, 5] = float(special)
    found = predict(logits)
    assert found.dtype == torch.int64
    assert torch.equal(found, logits.argmax(dim=1))
    assert torch.equal(predict(logits.transpose(2, 3)), found.transpose(1, 2))
