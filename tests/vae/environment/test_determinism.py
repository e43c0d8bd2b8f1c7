"""A fit gives the same numbers in every context of its caller, and leaves the context as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vaefit.kernels import focal_loss_with_counts
from vaefit.vae import RECIPES, BetaVAE, CollapseMonitor, OverfitResult, Recipe, overfit
from vaefit.vae.errors import RunError

GRIDS = np.random.default_rng(0).integers(0, 4, (6, 8, 8))
FEW = Recipe(iterations=3, stop_when="never")
OWN = Recipe(init=None, lr="auto", beta=0.01, iterations=3, stop_when="never")


class Drawing(nn.Module):
    """A network that draws from torch's global generator: dropout, and z even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        self.mu, self.logvar, self.out = nn.Linear(512, 5), nn.Linear(512, 5), nn.Linear(5, 256)

    def forward(self, one_hot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.conv(one_hot).flatten(1)
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        return self.out(z).view(-1, 4, 8, 8), mu, logvar


@contextmanager
def _set(get: Callable[[], Any], change: Callable[[Any], None], value: Any) -> Iterator[None]:
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


@contextmanager
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _default(dtype: torch.dtype) -> AbstractContextManager[None]:
    return _set(torch.get_default_dtype, torch.set_default_dtype, dtype)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "bfloat16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16 autocast": lambda: torch.autocast("cpu", dtype=torch.float16),
    "no autocast": lambda: torch.autocast("cpu", enabled=False),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "float64": lambda: _default(torch.float64),
    "bfloat16": lambda: _default(torch.bfloat16),
    "device meta": lambda: torch.device("meta"),
    "deterministic": lambda: _set(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
    "warnings are errors": _warnings_are_errors,
    "numpy raises": lambda: np.errstate(all="raise"),
}


def _seen_by_caller() -> list[Any]:
    return [
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_rng_state().tolist(),
    ]


def _model(kind: type[nn.Module] = Drawing) -> nn.Module:
    torch.manual_seed(1)
    return kind() if kind is not BetaVAE else BetaVAE(4, 8, 8)


def _numbers(result: OverfitResult) -> list[Any]:
    return [result.verdict, *((r.loss, r.kl, r.train_loss, r.grad_norm) for r in result.history)]


CASES = {
    "ours": (BetaVAE, FEW),
    "classic": (BetaVAE, Recipe(**{**vars(RECIPES["classic"]), "iterations": 3})),
    "theirs": (Drawing, OWN),
}
EXPECTED = {name: _numbers(overfit(_model(kind), GRIDS, recipe=recipe)) for name, (kind, recipe) in CASES.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", CONTEXTS)
def test_every_context_of_the_caller_gives_the_same_numbers(case: str, name: str) -> None:
    kind, recipe = CASES[case]
    model = _model(kind)
    with CONTEXTS[name]():
        before = _seen_by_caller()
        result = overfit(model, GRIDS, recipe=recipe)
        assert _seen_by_caller() == before
    assert _numbers(result) == EXPECTED[case]


@settings(max_examples=8)
@given(st.lists(st.sampled_from(sorted(CONTEXTS)), min_size=2, max_size=4), st.sampled_from(sorted(CASES)))
def test_contexts_within_contexts(names: list[str], case: str) -> None:
    kind, recipe = CASES[case]
    model = _model(kind)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(CONTEXTS[name]())
        before = _seen_by_caller()
        result = overfit(model, GRIDS, recipe=recipe)
        assert _seen_by_caller() == before
    assert _numbers(result) == EXPECTED[case]


@pytest.mark.slow
def test_a_diagnosis_gives_the_same_in_every_context() -> None:
    recipe = Recipe(iterations=2, lr=1e-9)
    expected = overfit(_model(BetaVAE), GRIDS, recipe=recipe, diagnose=True).diagnosis
    model = _model(BetaVAE)
    with torch.inference_mode(), torch.autocast("cpu"), _default(torch.float64), torch.device("meta"):
        assert overfit(model, GRIDS, recipe=recipe, diagnose=True).diagnosis == expected is not None


def test_fits_in_threads_give_what_one_alone_gives() -> None:
    state = torch.get_rng_state()
    models = [_model(kind) for kind, _ in CASES.values() for _ in range(2)]
    recipes = [recipe for _, recipe in CASES.values() for _ in range(2)]
    torch.set_rng_state(state)
    with ThreadPoolExecutor(len(models)) as pool:
        found = list(pool.map(lambda model, recipe: overfit(model, GRIDS, recipe=recipe), models, recipes))
    assert [_numbers(result) for result in found] == [EXPECTED[case] for case in CASES for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)


class Narrow(Drawing):
    """A network that computes in bfloat16 by an autocast of its own."""

    def forward(self, one_hot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(one_hot)


def test_an_autocast_inside_a_model_casts_the_parameters_of_each_step() -> None:
    expected = _numbers(overfit(_model(Narrow), GRIDS, recipe=OWN))
    assert expected != EXPECTED["theirs"]
    model = _model(Narrow)
    inputs = torch.rand(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.eval()(inputs)  # autocast keeps its casts of the parameters
        assert _numbers(overfit(model, GRIDS, recipe=OWN)) == expected
        with torch.no_grad():
            torch.manual_seed(0)
            found = model(inputs)[1]
    torch.manual_seed(0)
    torch.testing.assert_close(model(inputs)[1], found, rtol=0, atol=0)  # not of the casts before the fit


def test_what_the_callbacks_draw_and_set_changes_no_number() -> None:
    model = _model()

    def disturb(_: object) -> None:
        torch.randn(3)
        model.eval()

    result = overfit(model, GRIDS, recipe=OWN, on_start=disturb, on_step=disturb)
    assert _numbers(result) == EXPECTED["theirs"]


def test_a_model_in_evaluation_mode_is_trained_and_frozen_parts_stay_so() -> None:
    assert _numbers(overfit(_model().eval(), GRIDS, recipe=OWN)) == EXPECTED["theirs"]
    model = _model()
    norm = model.get_submodule("conv.1").eval()
    before = {name: value.clone() for name, value in norm.named_buffers()}
    overfit(model, GRIDS, recipe=OWN)
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())


def test_parameters_that_no_gradient_can_change_are_refused() -> None:
    with torch.inference_mode():
        model = BetaVAE(4, 8, 8)
    with pytest.raises(RunError, match=r"BetaVAE: .*made under torch.inference_mode.* Build the model outside it"):
        overfit(model, GRIDS)
    advised = BetaVAE(4, 8, 8)
    advised.load_state_dict(model.state_dict())
    assert overfit(advised, GRIDS, recipe=FEW).iterations == 3
    with torch.device("meta"), pytest.raises(RunError, match="on the device meta, which holds no numbers"):
        overfit(BetaVAE(4, 8, 8), GRIDS)


@pytest.mark.parametrize("name", CONTEXTS)
def test_loss_counts_and_monitor_are_the_same_in_every_context(name: str) -> None:
    def seen() -> list[Any]:
        monitor = CollapseMonitor(num_classes=4, every=2, warmup=0)
        found: list[Any] = []
        for _ in range(4):
            loss, counts = focal_loss_with_counts(logits, targets, [1.0, 2.0, 3.0, 4.0])
            found += [loss.item(), counts.tolist(), *monitor.update(counts, logits, targets, loss=loss * torch.inf)]
        resumed = CollapseMonitor(num_classes=4, every=2, warmup=0)
        resumed.load_state_dict(monitor.state_dict())
        return [*found, *resumed.update(counts, logits, targets), resumed.step]

    targets = torch.from_numpy(GRIDS)
    logits = torch.zeros(6, 4, 8, 8).index_fill(1, torch.tensor(2), 5.0)
    expected = seen()
    assert len(expected) > 10  # two kinds of warnings
    with CONTEXTS[name]():
        assert seen() == expected
