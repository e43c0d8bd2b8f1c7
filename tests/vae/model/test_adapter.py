"""Tests of the adapter: it finds how a model is called by trying, and says what does not fit."""

from __future__ import annotations

import threading
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaefit.vae import overfit
from vaefit.vae.errors import RunError
from vaefit.vae.model.adapter import encode_labels, find_adapter
from vaefit.vae.recipe import Recipe

B, C, H, W = 4, 5, 6, 7
LABELS = torch.from_numpy(np.random.default_rng(0).integers(0, C, (B, H, W)))


@dataclass
class Fields:
    recon: Tensor
    mu: Tensor
    logvar: Tensor


Named = namedtuple("Named", ["z_mean", "z_log_var", "x_hat"])


class Net(nn.Module):
    """Model from one-hot or labels to what `give` makes of logits, mu and logvar."""

    def __init__(self, give: Any = lambda logits, mu, logvar: logits, labels: bool = False, classes: int = C) -> None:
        super().__init__()
        self.give, self.labels = give, labels
        self.embed = nn.Embedding(C, 3) if labels else None
        self.conv = nn.Conv2d(3 if labels else C, classes, 1)
        self.mu, self.logvar = nn.Linear(classes, 2), nn.Linear(classes, 2)

    def forward(self, x: Tensor) -> Any:
        if self.embed is not None:
            x = self.embed(x).permute(0, 3, 1, 2)
        logits = self.conv(x)
        middle = logits.mean(dim=(2, 3))
        return self.give(logits, self.mu(middle), self.logvar(middle))


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(
    ("give", "latent", "words"),
    [
        (lambda a, m, v: a, False, "logits, no mu"),
        (lambda a, m, v: (a,), False, "logits at 0 of a tuple, no mu"),
        (lambda a, m, v: (a, m, v), True, "-> (logits, mu, logvar)"),
        (lambda a, m, v: [m, v, a], True, "logits at 2 of a list, mu at 0"),
        (lambda a, m, v: (a, m), False, "no mu"),
        (lambda a, m, v: (a, m, v, m + v), False, "no mu"),
        (lambda a, m, v: {"logits": a, "mean": m, "logvar": v}, True, "of a dict, mu at 'mean'"),
        (lambda a, m, v: {"loss": m.sum(), "x": a}, False, "logits at 'x'"),
        (Fields, True, "logits at 'recon' of a Fields"),
        (
            lambda a, m, v: Named(m, v, a),
            True,
            "logits at 'x_hat' of a Named, mu at 'z_mean' and logvar at 'z_log_var'",
        ),
        (lambda a, m, v: SimpleNamespace(logits=a, mu=m, log_var=v), True, "SimpleNamespace"),
    ],
)
def test_logits_mu_and_logvar_are_found(give: Any, latent: bool, words: str, labels: bool) -> None:
    model = Net(give, labels)
    adapter = find_adapter(model, LABELS, None)
    assert adapter.takes == ("labels" if labels else "one-hot")
    assert (adapter.gives.latent is not None) is latent
    assert words in str(adapter)
    logits, mu, logvar = adapter.outputs(model, adapter.inputs(LABELS, model))
    assert logits.shape == (B, C, H, W)
    assert (mu is not None) is (logvar is not None) is latent
    expected = Net.forward(model, adapter.inputs(LABELS, model))
    if not isinstance(expected, Tensor) and latent and mu is not None and logvar is not None:
        x = adapter.inputs(LABELS, model)
        conv = model.conv(model.embed(x).permute(0, 3, 1, 2) if model.embed is not None else x)
        torch.testing.assert_close(mu, model.mu(conv.mean(dim=(2, 3))))
        torch.testing.assert_close(logvar, model.logvar(conv.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("give", "wording"),
    [
        (lambda a, m, v: a.argmax(1), r"a tensor \(4, 6, 7\) int64.*leave the argmax out"),
        (lambda a, m, v: a.permute(0, 2, 3, 1), r"\(4, 6, 7, 5\).*permute\(0, 3, 1, 2\)"),
        (lambda a, m, v: a[:, :, :-1], r"\(4, 5, 5, 7\).*sides are not 6 x 7"),
        (lambda a, m, v: a.flatten(1), r"\(4, 210\).*Reshape what it returns by view\(4, 5, 6, 7\)"),
        (lambda a, m, v: a[0], r"\(5, 6, 7\).*Wrap it in a module"),
        (lambda a, m, v: {"mu": m}, r"a dict with mu: \(4, 2\)"),
        (lambda a, m, v: None, "a NoneType without tensors"),
        (lambda a, m, v: a.to(torch.int32), "int32"),
    ],
)
def test_another_output_is_told_with_what_is_needed(give: Any, wording: str) -> None:
    with pytest.raises(RunError, match=r"must return logits \(4, 5, 6, 7\).*" + wording):
        find_adapter(Net(give), LABELS, C)


def test_another_number_of_classes_is_told() -> None:
    with pytest.raises(RunError, match=r"gives 8 classes, but 5 are needed.*Build it with 5 classes"):
        find_adapter(Net(classes=8), LABELS, C)
    assert find_adapter(Net(classes=8), LABELS, None, guessed_classes=C).classes == 8


def test_a_model_that_takes_neither_form_is_told_what_it_said_to_both() -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"I want words, not {x.dtype}\nand more")

    with pytest.raises(
        RunError, match=r"ValueError from labels \(4, 6, 7\): I want words, not torch.int64; ValueError from one-hot"
    ):
        find_adapter(Other(), LABELS, C)


def test_trying_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm2d(C), nn.Dropout(0.5), nn.Conv2d(C, C, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_adapter(model, LABELS, C)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_labels_outside_the_classes_become_zeros_or_class_0() -> None:
    labels = torch.tensor([[[0, 2, -1, 9]]])
    assert encode_labels(labels, "labels", 3, torch.float32).tolist() == [[[0, 2, 0, 0]]]
    hot = encode_labels(labels, "one-hot", 3, torch.float64)
    assert (hot.dtype, hot.shape) == (torch.float64, (1, 3, 1, 4))
    assert hot.sum(dim=1).tolist() == [[[1, 1, 0, 0]]]


def test_the_divergence_of_a_foreign_latent_is_in_the_objective() -> None:
    model = Net(Fields)
    result = overfit(model, LABELS, recipe=Recipe(init=None, beta=0.5, iterations=2, stop_when="never"))
    first = result.history[0]
    assert first.kl is not None
    assert first.loss == pytest.approx(first.focal + 0.5 * first.kl)


def test_parameters_that_are_made_at_the_first_call() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(C * H * W), nn.Unflatten(1, (C, H, W)))
    assert overfit(model, LABELS).verdict == "MEMORISED"
    other = nn.Sequential(nn.Flatten(), nn.LazyLinear(C * H * W), nn.Unflatten(1, (C, H, W)))
    other.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(RunError, match=r"cannot be copied \(got TypeError: cannot pickle .* Call it once on a batch"):
        overfit(other, LABELS)
    other(torch.zeros(B, C, H, W))
    assert overfit(other, LABELS).verdict == "MEMORISED"


def test_a_model_in_half_precision_gets_its_own_dtype() -> None:
    model = Net().to(torch.bfloat16)
    adapter = find_adapter(model, LABELS, C)
    assert adapter.inputs(LABELS, model).dtype == torch.bfloat16


def test_an_ignored_label_is_no_class_and_parts_keep_their_modes() -> None:
    labels = LABELS.clone()
    labels[0, 0, 0] = 255
    model = Net()
    model.conv.eval()
    assert find_adapter(model, labels, None, ignore_index=255).classes == C
    assert (model.training, model.conv.training) == (True, False)
    assert overfit(Net(), labels, ignore_index=255, recipe=Recipe(init=None, iterations=1)).iterations == 1


@pytest.mark.parametrize("name", ["num_classes", "n_classes", "classes"])
def test_a_model_may_say_how_many_classes_it_has(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(9, 9, 1))
    setattr(model, name, 9)
    assert find_adapter(model, LABELS, None).classes == 9
