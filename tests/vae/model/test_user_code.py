"""An exception of the user's model: whose it is, when and where, or DIVERGED where values were not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaefit.vae import BetaVAE, overfit
from vaefit.vae.errors import UserCodeError, user_traceback
from vaefit.vae.recipe import Recipe

GRIDS = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
RECIPE = Recipe(init=None, lr=0.03, iterations=8, stop_when="never")
HERE = Path(__file__).name


class Net(nn.Module):
    """Network from one-hot to logits; `react` gets the number of the call in training and the hidden layer."""

    def __init__(self, react: Callable[[int, Tensor], Any] = lambda calls, hidden: None) -> None:
        super().__init__()
        self.conv, self.head, self.react, self.calls = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1), react, 0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(x)
        self.calls += self.training
        changed = self.react(self.calls, hidden)
        logits: Tensor = self.head((hidden if changed is None else changed).relu())
        return logits


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, text: str) -> Tensor:
        ctx.text = text
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        raise RuntimeError(ctx.text)


def fail(error: BaseException) -> None:
    raise error


def test_an_exception_during_the_steps_has_its_moment_its_place_and_its_cause() -> None:
    raised = KeyError("mask")
    # the first call in training is the preflight's
    model = Net(lambda calls, hidden: fail(raised) if calls == 4 else None)
    wording = rf"Net: the model raised KeyError \(\"'mask'\"\) at update 3, rate 0.03, in \S*{HERE} line \d+\. Mend"
    with pytest.raises(UserCodeError, match=wording) as caught:
        overfit(model, GRIDS, recipe=RECIPE)
    assert caught.value.__cause__ is raised
    shown = user_traceback(caught.value)
    assert shown.endswith("KeyError: 'mask'\n")
    assert "in forward" in shown
    assert "vaefit" not in shown.replace(str(Path(__file__).parent), "")
    assert "torch/nn" not in shown


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Expected parameter scale of distribution Normal(...) to satisfy the constraint GreaterThan(0.0)"),
        RuntimeError("linalg.svd: the input matrix contained non-finite values."),
        OverflowError("math range error"),
        AssertionError("nan in mu"),
    ],
)
def test_values_that_are_not_finite_are_divergence(error: Exception) -> None:
    result = overfit(Net(lambda calls, hidden: fail(error) if calls == 4 else None), GRIDS, recipe=RECIPE)
    assert result.verdict == "DIVERGED"
    assert f"the model raised {type(error).__name__}" in result.judgement.reason
    assert "at update 3, rate 0.03, in " in result.judgement.reason
    assert result.iterations == 2


def test_an_assertion_without_words_about_nan_is_divergence() -> None:
    def react(calls: int, hidden: Tensor) -> None:
        nan = hidden * (float("nan") if calls == 3 else 1.0)
        assert nan.isfinite().all()

    result = overfit(Net(react), GRIDS, recipe=RECIPE)
    assert (result.verdict, result.iterations) == ("DIVERGED", 1)


def test_the_distributions_of_torch_with_a_rate_that_is_too_high() -> None:
    def react(calls: int, hidden: Tensor) -> Tensor:
        return torch.distributions.Normal(hidden, (-1e3 * hidden.abs()).exp(), validate_args=True).mean

    start = Net().train()
    nn.init.constant_(start.conv.weight, 1e-6)
    nn.init.zeros_(start.conv.bias)  # type: ignore[arg-type]
    start.react = react
    result = overfit(start, GRIDS, recipe=Recipe(init=None, lr=30.0, clip=0.0, iterations=50))
    assert result.verdict == "DIVERGED"
    assert "the model raised ValueError" in result.judgement.reason


@pytest.mark.parametrize(("text", "diverged"), [("Function 'X' returned nan values", True), ("not implemented", False)])
def test_an_exception_in_the_backward_pass(text: str, diverged: bool) -> None:
    model = Net(lambda calls, hidden: FailsBackward.apply(hidden, text) if calls > 2 else hidden)  # type: ignore[no-untyped-call]
    if diverged:
        result = overfit(model, GRIDS, recipe=RECIPE)
        assert (result.verdict, result.iterations) == ("DIVERGED", 1)
        assert "the model raised RuntimeError" in result.judgement.reason
        return
    with pytest.raises(UserCodeError, match=rf'raised RuntimeError \("{text}"\) at update 2.*{HERE} line'):
        overfit(model, GRIDS, recipe=RECIPE)


@pytest.mark.parametrize(
    ("error", "wording"),
    [
        (SystemExit(4), r"raised SystemExit \(\"4\"\) from one-hot"),
        (AttributeError("'Net' object has no attribute 'fc2'"), r"raised AttributeError .*'fc2'.*from one-hot \(4, 3"),
        (TypeError("unsupported operand"), r"raised TypeError \(\"unsupported operand\"\) from one-hot"),
    ],
)
def test_an_exception_for_the_form_that_the_model_takes(error: BaseException, wording: str) -> None:
    # labels fail at the first layer, which says less
    with pytest.raises(UserCodeError, match=wording + rf".*{HERE} line") as caught:
        overfit(Net(lambda calls, hidden: fail(error)), GRIDS, recipe=RECIPE)
    assert caught.value.__cause__ is error


def test_one_grid_for_batch_statistics() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(90, 8), nn.BatchNorm1d(8), nn.Linear(8, 90), nn.Unflatten(1, (3, 5, 6))
    )
    with pytest.raises(UserCodeError, match=r"before the first update.*take two grids or more"):
        overfit(model, GRIDS[:1], classes=3)
    assert overfit(model, GRIDS[:2], classes=3, recipe=Recipe(init=None, iterations=2)).iterations == 2


def test_another_output_in_training_is_told() -> None:
    class Twofold(Net):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return (logits, logits) if self.training else {"logits": logits}

    with pytest.raises(
        ValueError, match=r"logits at 'logits' of a dict.*now another output.*the same form in training"
    ):
        overfit(Twofold(), GRIDS, recipe=RECIPE)


def test_an_exception_of_our_own_network_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BetaVAE, "decode", lambda self, z: fail(KeyError("ours")))
    with pytest.raises(KeyError):
        overfit(BetaVAE(3, 5, 6), GRIDS)


def test_a_full_memory_is_not_the_models_fault() -> None:
    full = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
    with pytest.raises(RuntimeError, match="can't allocate") as caught:
        overfit(Net(lambda calls, hidden: fail(full) if calls == 3 else None), GRIDS, recipe=RECIPE)
    assert caught.value is full
