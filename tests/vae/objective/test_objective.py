"""The objective and the closed form that it is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vaefit.vae.errors import RunError
from vaefit.vae.objective.objective import Losses, Objective, check_objective, kl_divergence
from vaefit.vae.recipe import FitReduction

WEIGHT = torch.tensor([0.1, 1.3, 1.6])


def _targets() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 3, (4, 5, 6))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("reduction", ["batch", "mean", "sum"])
def test_zero_logits_give_the_closed_form(reduction: FitReduction, gamma: float) -> None:
    targets = _targets()
    targets[0, 0] = 9
    kept = targets[targets != 9]
    total = sum(WEIGHT[c].item() for c in kept.tolist())
    by = {"batch": 4, "mean": kept.numel(), "sum": 1}[reduction]
    found = check_objective(Objective(WEIGHT, gamma, reduction, ignore_index=9), targets)
    assert found == pytest.approx((1 - 1 / 3) ** gamma * math.log(3) * total / by, rel=1e-5)


@dataclass(frozen=True)
class _Wrong(Objective):
    """An objective with a known mistake."""

    mistake: str = ""

    def __call__(
        self, logits: Tensor, targets: Tensor, mu: Tensor | None, logvar: Tensor | None, beta: float
    ) -> Losses:
        right = Objective(self.weight, self.gamma, self.reduction)
        if self.mistake == "twice":
            right = Objective(self.weight**2, self.gamma, self.reduction)
        elif self.mistake == "unweighted":
            right = Objective(torch.ones(3), self.gamma, self.reduction)
        elif self.mistake == "mean":
            right = Objective(self.weight, self.gamma, "mean")
        losses = right(logits, targets, mu, logvar, beta)
        if self.mistake == "torch":
            total = losses.total * targets.shape[0] / self.weight[targets].sum()
            return Losses(total, losses.focal, losses.kl, losses.counts, losses.logits)
        if self.mistake == "gamma":
            return Objective(self.weight, 1.0, self.reduction)(logits, targets, mu, logvar, beta)
        return losses


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("twice", "the weights are applied twice"),
        ("unweighted", "the weights are not applied"),
        ("mean", "by mean, not by batch"),
        ("torch", "by sum of weights, not by batch"),
        ("gamma", "not the focal loss with these weights"),
    ],
)
def test_a_mismatch_stops_and_names_the_likely_cause(mistake: str, named: str) -> None:
    with pytest.raises(RunError, match="closed form") as caught:
        check_objective(_Wrong(WEIGHT, 2.0, "batch", mistake=mistake), _targets())
    assert named in caught.value.do


def test_kl_is_summed_over_dimensions_and_averaged_over_the_batch() -> None:
    torch.manual_seed(1)
    mu, logvar = torch.randn(4, 3), torch.randn(4, 3)
    normal = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    each = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mu, logvar, "batch"), each.mean())
    torch.testing.assert_close(kl_divergence(mu, logvar, "mean"), each.mean())
    torch.testing.assert_close(kl_divergence(mu, logvar, "sum"), each.sum())


def test_beta_adds_the_divergence_and_its_gradient() -> None:
    mu = torch.ones(4, 3, requires_grad=True)
    logvar = torch.zeros(4, 3)
    logits = torch.zeros(4, 3, 5, 6)
    without = Objective(WEIGHT)(logits, _targets(), mu, logvar, 0.0)
    losses = Objective(WEIGHT)(logits, _targets(), mu, logvar, 0.5)
    assert without.kl is not None
    assert without.kl.item() == pytest.approx(1.5)  # recorded all the same
    assert losses.total.item() - without.total.item() == pytest.approx(0.5 * 1.5, abs=1e-4)
    (gradient,) = torch.autograd.grad(losses.total, mu)
    torch.testing.assert_close(gradient, torch.full((4, 3), 0.5 / 4))
