"""A model that memorises its batch in training mode alone is told so, and measuring it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaefit.vae import OverfitResult, Recipe, overfit
from vaefit.vae.model.state import all_tensors, modes, training

GRIDS = np.random.default_rng(0).integers(0, 3, (8, 4, 4))
CELLS = 3 * 4 * 4


class Normed(nn.Module):
    """Two layers, between them a BatchNorm of numbers far from its first statistics, and dropout."""

    def __init__(self, momentum: float = 0.1, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(CELLS, 64), nn.Linear(64, CELLS)
        self.norm, self.dropout = nn.BatchNorm1d(64, momentum=momentum), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.first(x.flatten(1)) - 10).relu())
        return self.second(hidden).view(-1, 3, 4, 4)


class OtherHead(nn.Module):
    """Model that answers by another head in evaluation mode, which nothing trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(CELLS)
        self.trained, self.other = nn.Linear(CELLS, CELLS), nn.Linear(CELLS, CELLS)

    def forward(self, x: Tensor) -> Tensor:
        head = self.trained if self.training else self.other
        return head(self.norm(x.flatten(1))).view(-1, 3, 4, 4)


def run(model: nn.Module, iterations: int = 60, diagnose: bool = False) -> OverfitResult:
    torch.manual_seed(0)
    return overfit(model, GRIDS, recipe=Recipe(init=None, lr=0.02, iterations=iterations), diagnose=diagnose)


@pytest.mark.parametrize(
    ("momentum", "advice"),
    [
        (0.001, "slowly at momentum 0.001: give it a larger one in the model, such as 0.1, or try --iterations 4603."),
        (0.0, "Give its BatchNorm layers a momentum, such as 0.1."),
    ],
)
def test_batchnorm_that_lags_is_told_with_both_numbers(momentum: float, advice: str) -> None:
    result = run(Normed(momentum, dropout=0.2))
    assert result.verdict != "MEMORISED"
    start = f"in training mode 1.000 of the cells are right, in evaluation mode {result.accuracies.pixel:.3f}: "
    assert result.judgement.reason.startswith(f"{start}BatchNorm statistics lag; ")
    assert result.judgement.next.endswith(advice)
    assert run(Normed(0.1)).passed


def test_the_advised_updates_suffice() -> None:
    advice = run(Normed(0.01)).judgement.next
    assert run(Normed(0.01), int(advice.rstrip(".").rpartition(" ")[2])).passed


def test_another_head_is_told_apart_from_batchnorm() -> None:
    result = run(OtherHead())
    assert "in training mode 1.000 of the cells are right" in result.judgement.reason
    assert "the layers differ" in result.judgement.reason
    assert "self.training" in result.judgement.next
    assert result.without_gradient == ("other.weight", "other.bias")


def test_the_diagnosis_names_the_gap_without_reruns() -> None:
    found = run(Normed(0.001), diagnose=True).diagnosis
    assert found is not None
    assert found.cause == "too few steps"
    assert "BatchNorm statistics lag" in found.evidence
    assert found.fix == "--iterations 4603"
    assert found.controls == ()
    found = run(OtherHead(), diagnose=True).diagnosis
    assert found is not None
    assert (found.cause, found.where) == ("no gradient", "other")


def test_a_model_that_fails_in_both_modes_is_told_nothing_of_modes() -> None:
    assert "mode" not in run(Normed(0.001), 2).judgement.reason


def test_measuring_in_training_mode_changes_nothing() -> None:
    model = Normed(dropout=0.5)
    model.norm.eval()
    before, flags = {n: t.clone() for n, t in all_tensors(model).items()}, modes(model)
    with training(model, lambda module: not isinstance(module, nn.Dropout)):
        assert model.norm.training
        assert not model.dropout.training
        model(torch.randn(8, CELLS))
    assert modes(model) == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in all_tensors(model).items())
    model, state = Normed(0.001, dropout=0.5), torch.random.get_rng_state()
    overfit(model, GRIDS, recipe=Recipe(init=None, lr=0.02, iterations=3))
    assert torch.equal(torch.random.get_rng_state(), state)
