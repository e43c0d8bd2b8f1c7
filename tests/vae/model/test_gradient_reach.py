"""Parameters that no update changes are named on every verdict, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaefit.vae import BetaVAE, OverfitResult, Recipe, assert_memorises, overfit
from vaefit.vae.model.gradient_reach import layers_of

GRIDS = np.random.default_rng(0).integers(0, 3, (8, 4, 4))
CELLS = 3 * 4 * 4


class Coder(nn.Module):
    """An encoder and a decoder of one layer each; subclasses change the way between them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(CELLS, 16), nn.Linear(16, CELLS)

    def decode(self, hidden: Tensor) -> Tensor:
        return self.decoder(hidden).view(-1, 3, 4, 4)

    def forward(self, x: Tensor) -> object:
        return self.decode(self.encoder(x.flatten(1)).relu())


class CutOff(Coder):
    def forward(self, x: Tensor) -> object:
        with torch.no_grad():
            hidden = self.encoder(x.flatten(1)).relu()
        return self.decode(hidden)


class TimesZero(Coder):
    """Its gradient exists and is 0."""

    def forward(self, x: Tensor) -> object:
        hidden = self.encoder(x.flatten(1))
        return self.decode(x.flatten(1)[:, :16] + 0 * hidden)


class Gated(Coder):
    """At the first step alone the gate of zero stops the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> object:
        return self.decode(x.flatten(1)[:, :16] + self.gate * self.encoder(x.flatten(1)))


class SometimesSkipped(Coder):
    """A layer that every other step leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.middle, self.calls = nn.Linear(16, 16), 0

    def forward(self, x: Tensor) -> object:
        self.calls += self.training
        hidden = self.encoder(x.flatten(1)).relu()
        return self.decode(self.middle(hidden) if self.training and self.calls % 2 else hidden)


class WithLatent(Coder):
    def __init__(self) -> None:
        super().__init__()
        self.logvar = nn.Linear(CELLS, 16)

    def forward(self, x: Tensor) -> object:
        mu = self.encoder(x.flatten(1))
        return self.decode(mu), mu, self.logvar(x.flatten(1))


class PlainList(Coder):
    def __init__(self) -> None:
        super().__init__()
        self.middle = [nn.Linear(16, 16), nn.Linear(16, 16)]
        self.unused = [nn.Linear(2, 2)]
        self.itself = [self.encoder]

    def forward(self, x: Tensor) -> object:
        return self.decode(self.middle[1](self.middle[0](self.encoder(x.flatten(1))).relu()))


def run(model: nn.Module, iterations: int = 30) -> OverfitResult:
    return overfit(model, GRIDS, recipe=Recipe(init=None, lr=0.02, iterations=iterations))


@pytest.mark.parametrize("model", [CutOff, TimesZero])
def test_a_part_without_gradient_is_named_on_every_verdict(model: type[Coder]) -> None:
    result = run(model(), 300)
    assert result.passed
    assert result.without_gradient == ("encoder.weight", "encoder.bias")
    assert result.not_updated.notes == ("no gradient reaches 784 of 1,600 parameters: encoder",)
    with pytest.raises(AssertionError, match="Note: no gradient reaches 784 of 1,600 parameters: encoder"):
        assert_memorises(model(), GRIDS, recipe=Recipe(init=None, lr=0.02, iterations=1), diagnose=False)


@pytest.mark.parametrize("model", [Coder, Gated, SometimesSkipped, WithLatent, lambda: BetaVAE(3, 4, 4)])
def test_a_part_that_any_update_changes_is_not_named(model: type[nn.Module]) -> None:
    result = run(model())
    assert result.without_gradient == ()
    assert result.not_updated.notes == ()


def test_frozen_parameters_are_named_as_such() -> None:
    model = Coder()
    model.encoder.requires_grad_(False)
    result = run(model, 0)
    assert result.without_gradient == ("encoder.weight", "encoder.bias")
    assert result.not_updated.notes == ("784 of 1,600 parameters are frozen: encoder",)


def test_layers_in_a_plain_list_are_named_if_the_model_uses_them() -> None:
    result = run(PlainList())
    assert set(result.without_gradient) == {f"middle.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")}
    (note,) = result.not_updated.notes
    assert note.startswith("no update changes 544 parameters that model.parameters() does not give: middle; keep")


@pytest.mark.slow
def test_the_diagnosis_names_layers_in_a_plain_list_where_nothing_else_is_the_cause() -> None:
    class Narrow(PlainList):
        """The hidden layers let one number through."""

        def __init__(self) -> None:
            super().__init__()
            for layer in self.middle:
                nn.init.constant_(layer.weight, 0.1)

    found = overfit(Narrow(), GRIDS, recipe=Recipe(init=None, lr=0.002, iterations=60), diagnose=True).diagnosis
    assert found is not None
    assert (found.cause, found.where) == ("no gradient", "middle")
    assert found.fix == "Keep them in an nn.ModuleList or nn.ModuleDict."


def test_layers_are_named_by_the_largest_part_that_is_named_as_a_whole() -> None:
    every = [name for name, _ in BetaVAE(4, 8, 8).named_parameters()]
    assert layers_of((name for name in every if name.startswith("encoder")), every) == "encoder"
    assert layers_of(("encoder.0.weight", "encoder.0.bias", "mu.bias"), every) == "encoder.0, mu.bias"
    assert layers_of((name for name in every if name.endswith("bias")), every).endswith("and 8 more")
