"""The range test passes over the rates at which a model raises, and leaves an exception at every rate to the run."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from vaefit.vae import overfit
from vaefit.vae.errors import UserCodeError
from vaefit.vae.recipe import Recipe

GRIDS = np.random.default_rng(0).integers(0, 3, (4, 5, 6))


class Limited(nn.Module):
    """Model that raises where its hidden layer grows beyond a limit in training."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.into, self.out, self.limit = nn.Linear(90, 32), nn.Linear(32, 90), limit

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x.flatten(1))
        if self.training and hidden.abs().max() > self.limit:
            raise KeyError("too large")
        logits: Tensor = self.out(hidden.relu()).view(-1, 3, 5, 6)
        return logits


def test_a_rate_that_raises_is_passed_over() -> None:
    result = overfit(Limited(2.0), GRIDS, classes=3, recipe=Recipe(init=None, lr="auto", iterations=12))
    tested = result.start.range_test
    assert tested is not None
    raised = [rate for rate, loss in tested.losses if loss is None]
    assert raised
    assert max(raised) == tested.losses[-1][0]
    assert tested.rate not in raised


def test_an_exception_at_every_rate_is_that_of_the_run() -> None:
    class Broken(Limited):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and self.out.weight.grad is not None:
                raise KeyError("grad")
            return super().forward(x)

    with pytest.raises(UserCodeError, match=r"raised KeyError .* at update 2, rate 0\.0001"):
        overfit(Broken(1e9), GRIDS, classes=3)
