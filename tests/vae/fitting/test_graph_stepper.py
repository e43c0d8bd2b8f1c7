"""Steps made a window at a time: the same records, stop and model as one by one; when a graph is chosen.

On the CPU the windows are made by plain calls of what a GPU captures; the capture itself needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

import vaefit.vae.fitting.cuda_graph
import vaefit.vae.fitting.setup
import vaefit.vae.optim.adam
from vaefit.vae import RECIPES, BetaVAE, OverfitResult, Recipe, overfit
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.errors import RunError
from vaefit.vae.fitting.cuda_graph import capture, choose_steps
from vaefit.vae.fitting.graph_stepper import GraphStepper, Ring
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.objective.objective import Objective
from vaefit.vae.optim.train_step import Step
from vaefit.vae.recipe import BetaRamp

GRIDS = synthesise(SyntheticSpec(grids=16, height=9, width=10))
DEFAULT, ADAM = RECIPES["default"], RECIPES["adam"]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CASES = {
    "exact": DEFAULT,
    "exact with Adam": ADAM,
    "target": replace(DEFAULT, stop_when="target"),
    "a target that comes before the rest": replace(ADAM, stop_when="target", target=0.05),
    "never": replace(DEFAULT, stop_when="never", iterations=23),
    "never with Adam": replace(ADAM, stop_when="never", iterations=23),
    "no update": replace(DEFAULT, iterations=0),
    "one update": replace(DEFAULT, iterations=1),
    "no clip, mean, cosine": replace(ADAM, clip=0.0, reduction="mean", lr_decay="cosine", iterations=17),
    "beta": replace(DEFAULT, beta=0.01, stop_when="never", iterations=13),
    "beta from step 10 on": replace(ADAM, beta_ramp=BetaRamp(0.95, 1, 0.5), stop_when="never", iterations=25),
    "the loss diverges": Recipe(lr=1e30, clip=0, stop_when="never", iterations=20),
    "the loss diverges with Adam": replace(ADAM, lr=1e30, clip=0, stop_when="never", iterations=20),
}


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Allow a requested graph on the CPU, in windows of so many steps."""

    def call(size: int) -> None:
        monkeypatch.setattr(vaefit.vae.fitting.cuda_graph, "obstacle", lambda *_: None)
        monkeypatch.setattr(vaefit.vae.fitting.setup, "GraphStepper", partial(GraphStepper, size=size))

    return call


def _run(
    recipe: Recipe, graph: bool, model: BetaVAE | None = None, device: torch.device = CPU, ignore: int | None = None
) -> tuple[OverfitResult, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = (model or BetaVAE(10, 9, 10)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    result = overfit(model, GRIDS, recipe=recipe, graph=graph, ignore_index=ignore)
    return result, {name: p.detach().clone() for name, p in model.named_parameters()}


def _assert_same(one: tuple[OverfitResult, dict[str, Tensor]], other: tuple[OverfitResult, dict[str, Tensor]]) -> None:
    (a, here), (b, there) = one, other
    # repr, because NaN is the same as NaN here
    assert [repr(record) for record in a.history] == [repr(record) for record in b.history]
    assert (a.judgement, a.iterations, a.reached) == (b.judgement, b.iterations, b.reached)
    np.testing.assert_array_equal(a.predictions, b.predictions)
    torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("name", CASES)
def test_windows_give_what_single_steps_give(windows: Callable[[int], None], name: str, size: int) -> None:
    expected = _run(CASES[name], graph=False)
    windows(size)
    found = _run(CASES[name], graph=True)
    assert (expected[0].start.steps.name, found[0].start.steps.name) == ("one by one", "graph")
    assert (expected[0].verdict == "DIVERGED") == ("diverges" in name)
    _assert_same(expected, found)


class Breaking(BetaVAE):
    """Its gradient is infinite from its sixth backward pass on, its loss never."""

    passes = 0

    def forward(self, grids: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits, mu, logvar = super().forward(grids, noise)
        if torch.is_grad_enabled():
            self.passes += 1
        return logits + (0.0 * self.mu.bias.sum()).sqrt() * float(self.passes > 5), mu, logvar


@pytest.mark.parametrize("size", [1, 4, 10])
@pytest.mark.parametrize("recipe", [DEFAULT, ADAM])
def test_a_gradient_that_is_not_finite_ends_at_the_same_parameters(
    windows: Callable[[int], None], recipe: Recipe, size: int
) -> None:
    expected = _run(recipe, False, Breaking(10, 9, 10))
    windows(size)
    found = _run(recipe, True, Breaking(10, 9, 10))
    assert "the gradient's norm is" in found[0].judgement.reason
    _assert_same(expected, found)


def test_ignored_cells_and_frozen_parameters(windows: Callable[[int], None]) -> None:
    def frozen() -> BetaVAE:
        torch.manual_seed(0)
        model = BetaVAE(10, 9, 10)
        model.logvar.requires_grad_(False)
        model.encoder[0].requires_grad_(False)
        return model

    recipe = replace(DEFAULT, iterations=14)
    expected = _run(recipe, False, frozen(), ignore=0)
    windows(10)
    _assert_same(expected, _run(recipe, True, frozen(), ignore=0))


def test_a_window_of_a_large_model_is_small(monkeypatch: pytest.MonkeyPatch, windows: Callable[[int], None]) -> None:
    recipe = replace(DEFAULT, iterations=4, stop_when="never")
    expected = _run(recipe, graph=False)
    windows(10)
    monkeypatch.setattr(vaefit.vae.fitting.graph_stepper, "MOST_SAVED", 1)
    _assert_same(expected, _run(recipe, graph=True))


def test_metrics_csv_is_the_same_byte_for_byte(vaefit_cli, dataset, tmp_path, windows) -> None:  # type: ignore[no-untyped-def]
    def metrics(name: str, *options: str) -> bytes:
        outcome = vaefit_cli("overfit", dataset, "--batch-size", "8", *options, "--out", tmp_path / name, "--json")
        assert outcome.json["verdict"] == "MEMORISED"
        return (tmp_path / name / "metrics.csv").read_bytes()

    expected = metrics("eager", "--no-graph")
    windows(10)
    assert metrics("graph", "--graph") == expected


@pytest.mark.parametrize(
    ("requested", "device", "recipe", "backend", "ours", "name", "reason"),
    [
        (None, CUDA, DEFAULT, "triton", True, "graph", "up to 10 steps at a time on cuda"),
        (True, CUDA, ADAM, "eager", True, "graph", "up to 10 steps"),
        (False, CUDA, DEFAULT, "triton", True, "one by one", "requested"),
        (None, CPU, DEFAULT, "eager", True, "one by one", "the model is on cpu"),
        (None, CUDA, DEFAULT, "triton", False, "one by one", "not a BetaVAE"),
        (None, CUDA, replace(DEFAULT, resample=True), "triton", True, "one by one", "draws its grids"),
        (None, CUDA, replace(DEFAULT, z="sample"), "triton", True, "one by one", "samples z"),
        (None, CUDA, DEFAULT, "compiled", True, "one by one", "the compiled backend is not captured"),
    ],
)
def test_the_choice_says_why(
    requested: bool | None,
    device: torch.device,
    recipe: Recipe,
    backend: str,
    ours: bool,
    name: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    choice = choose_steps(requested, device, recipe, backend, ours)
    assert choice.name == name
    assert reason in str(choice)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert requested or choose_steps(requested, device, recipe, backend, ours).name == "one by one"


def test_a_requested_graph_that_cannot_run(vaefit_cli, dataset, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RunError, match=r"graph: the steps cannot be a CUDA graph .*cpu.*graph=False"):
        overfit(BetaVAE(10, 9, 10), GRIDS, graph=True)
    outcome = vaefit_cli("overfit", dataset, "--device", "cpu", "--graph", "--out", tmp_path / "run")
    assert outcome.code == 3
    assert "the model is on cpu" in outcome.err
    assert outcome.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("recipe", [DEFAULT, ADAM])
def test_a_step_waits_for_no_device(recipe: Recipe, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data raise wherever a number is read; they take every path that a GPU's do."""
    rates = []
    monkeypatch.setattr(
        vaefit.vae.optim.adam, "adam", lambda *_, lr, **__: rates.append((lr.shape, lr.dtype, lr.device))
    )
    with torch.device("meta"):
        model, targets = BetaVAE(10, 9, 10), torch.zeros(4, 9, 10, dtype=torch.int64)
        adapter = find_adapter(model, targets, None)
        step = Step.build(model, adapter, Objective(torch.ones(10), backend="eager"), recipe)
    ring = Ring(10, 100, step.parameters)
    motion = GraphStepper(step, recipe, model.one_hot(targets), targets)
    for _ in range(2):
        motion._body(ring, minimised=beta > 0)
    assert rates == [(torch.Size([]), torch.float32, torch.device("meta"))] * 2
    with pytest.raises(RuntimeError, match="meta tensors"):
        ring.found[0, 0].item()


@needs_gpu
@pytest.mark.parametrize("name", CASES)
def test_a_graph_gives_what_single_steps_give(name: str) -> None:
    expected = _run(CASES[name], graph=False, device=CUDA)
    found = _run(CASES[name], graph=True, device=CUDA)
    assert (expected[0].start.steps.name, found[0].start.steps.name) == ("one by one", "graph")
    _assert_same(expected, found)


@needs_gpu
def test_a_capture_leaves_the_state_and_tells_of_a_wait() -> None:
    total, kept = torch.ones(3, device=CUDA), []

    def body() -> None:
        if not kept:
            kept.append(torch.zeros(3, device=CUDA))
        kept[0].add_(1)
        total.add_(kept[0])

    replay = capture(body, lambda: [total, *kept], CUDA)
    assert torch.equal(total.cpu(), torch.ones(3))
    for _ in range(2):
        replay()
    assert torch.equal(total.cpu(), torch.full((3,), 4.0))
    with pytest.raises(RunError, match=r"could not be captured .*--no-graph"):
        capture(lambda: print(total.sum().item()), lambda: [total], CUDA)
