"""The comparison with the float64 reference before the first step: what it finds, and what it leaves alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaefit.vae.objective.objective
import vaefit.vae.objective.preflight
from vaefit.kernels import confusion_counts_reference, focal_loss_reference, focal_loss_with_counts
from vaefit.vae import BetaVAE, overfit
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.errors import RunError
from vaefit.vae.objective.objective import Objective
from vaefit.vae.objective.preflight import difference, preflight, random_like
from vaefit.vae.recipe import FitReduction

GRIDS = synthesise(SyntheticSpec(grids=8))
WEIGHT = torch.tensor([0.2, 1.0, 1.5, 1.3])
IGNORED = 9


def _logits(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(1))


def _targets() -> Tensor:
    targets = torch.randint(0, 4, (6, 5, 7), generator=torch.Generator().manual_seed(2))
    targets[:, 0, 0] = IGNORED
    return targets


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("reduction", ["batch", "mean", "sum"])
def test_what_is_right_is_far_within_the_tolerance(reduction: FitReduction, gamma: float, backend: Any) -> None:
    for scale in (0.0, 1e-3, 1.0, 30.0, 1e6):
        found = preflight(Objective(WEIGHT, gamma, reduction, IGNORED, backend), _logits(scale), _targets())
        assert found is not None
        assert found.agrees
        assert max(found.loss, found.gradient) < 5e-6


def test_a_model_that_knows_the_batch_is_no_alarm() -> None:
    targets = _targets().clamp(max=3)
    for margin in (5, 12, 17, 40):
        logits = margin * nn.functional.one_hot(targets, 4).permute(0, 3, 1, 2).float()
        found = difference(Objective(WEIGHT, 0.5, "batch"), logits, targets)
        assert found is not None
        assert found.agrees
        assert max(found.loss, found.gradient) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("reduction", ["batch", "mean", "sum"])
def test_other_dtypes(dtype: torch.dtype, reduction: FitReduction) -> None:
    found = preflight(Objective(WEIGHT, 2.0, reduction, IGNORED), _logits().to(dtype), _targets())
    assert found is not None
    assert found.loss < (1e-12 if dtype == torch.float64 else 1e-6)
    assert found.gradient < (1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps)


def test_the_drawn_logits_tie_and_saturate_and_leave_the_callers_random_state_alone() -> None:
    state = torch.get_rng_state()
    drawn = random_like(torch.zeros(32, 10, 16, 16).to(memory_format=torch.channels_last))
    assert torch.equal(state, torch.get_rng_state())
    assert drawn.is_contiguous(memory_format=torch.channels_last)
    top = drawn.topk(2, dim=1).values
    assert 0.03 < (top[:, 0] == top[:, 1]).float().mean() < 0.3
    p = drawn.softmax(dim=1)
    assert p.max() == 1
    assert p.min() < 1e-15


def test_a_batch_is_compared_whole_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Objective(WEIGHT, 2.0, "mean", IGNORED)
    whole = difference(objective, _logits(), _targets())
    monkeypatch.setattr(vaefit.vae.objective.preflight, "PART", 1)
    parts = difference(objective, _logits(), _targets())
    assert whole is not None
    assert parts is not None
    assert (parts.miscounted, parts.gradient) == (0, pytest.approx(whole.gradient, rel=1e-6))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_logits_without_a_finite_loss_are_left_to_the_verdict(value: float) -> None:
    assert difference(Objective(WEIGHT, 2.0, "sum", IGNORED), _logits() * value, _targets()) is None
    found = preflight(Objective(WEIGHT, 2.0, "sum", IGNORED), _logits() * value, _targets())
    assert found is not None
    assert found.agrees
    assert preflight(Objective(WEIGHT * 1e38, 2.0, "sum", IGNORED), _logits() * value, _targets()) is None


def test_an_ignored_cell_may_hold_anything() -> None:
    logits = _logits()
    logits[:, :, 0, 0] = math.nan
    found = difference(Objective(WEIGHT, 2.0, "mean", IGNORED), logits, _targets())
    assert found is not None
    assert found.agrees


def test_a_model_of_nan_diverges() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(10, 10, 1)

        def forward(self, grids: Tensor) -> Tensor:
            return math.nan * self.inner(nn.functional.one_hot(grids, 10).permute(0, 3, 1, 2).float())

    result = overfit(Broken(), GRIDS)
    assert result.verdict == "DIVERGED"
    assert result.preflight is not None  # of the drawn logits


Kernel = Callable[..., tuple[Tensor, Tensor]]


def _slope(logits: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The logits; their gradient goes through `change` on its way back."""
    passed = logits * 1.0
    if passed.requires_grad:
        passed.register_hook(change)
    return passed


def _gradient_of_a_class(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    factor = torch.ones(1, logits.shape[1], 1, 1)
    factor[:, 1] = 1 + 1e-4
    return focal_loss_with_counts(_slope(logits, lambda g: g * factor), *rest)


def _gradient_of_ignored_cells(logits: Tensor, targets: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    ignored = (targets == IGNORED).unsqueeze(1)
    return focal_loss_with_counts(_slope(logits, lambda g: g + 1e-3 * ignored), targets, *rest)


def _last_block_forgotten(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    def forget(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[-1, :, -1, -3:] = 0
        return gradient

    return focal_loss_with_counts(_slope(logits, forget), *rest)


def _nan(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    loss, counts = focal_loss_with_counts(logits, *rest)
    return loss * math.nan, counts


def _half_precision(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return focal_loss_with_counts(logits.bfloat16(), *rest)


def _clamped(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Right for all but the hopeless cells, which a fresh model does not have."""
    return focal_loss_with_counts(logits.clamp(min=-15), *rest)


def _highest_wins_ties(logits: Tensor, targets: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    loss, _ = focal_loss_with_counts(logits, targets, *rest)
    predictions = logits.shape[1] - 1 - logits.flip(1).argmax(dim=1)
    return loss, confusion_counts_reference(predictions, targets, rest[2], logits.shape[1])


def _loss_alone(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    loss, counts = focal_loss_with_counts(logits, *rest)
    return loss + 1e-4 * loss.detach(), counts


def _weights_of_another_run(
    logits: Tensor, targets: Tensor, weight: Tensor, gamma: float, ignore: int, reduction: FitReduction, *rest: Any
) -> tuple[Tensor, Tensor]:
    return focal_loss_with_counts(logits, targets, weight.flip(0), gamma, ignore, reduction, *rest)


def _reduction_of_the_gradient(
    logits: Tensor, targets: Tensor, weight: Tensor, gamma: float, ignore: int, reduction: FitReduction, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Divided by all the cells, those ignored as well."""
    loss, counts = focal_loss_with_counts(logits, targets, weight, gamma, ignore, reduction, *rest)
    wrong = focal_loss_reference(logits, targets, weight, gamma, ignore, "sum") / targets.numel()
    return loss.detach() + wrong - wrong.detach(), counts


BROKEN: dict[str, tuple[Kernel, str]] = {
    "the gradient of one class": (_gradient_of_a_class, "gradient 1e-04"),
    "the gradient of ignored cells": (_gradient_of_ignored_cells, "counts equal"),
    "the last block forgotten": (_last_block_forgotten, "gradient .e-0[123]"),
    "NaN": (_nan, "loss nan"),
    "half precision": (_half_precision, "gradient .e-0[123]"),
    "clamped logits": (_clamped, "counts equal"),
    "ties": (_highest_wins_ties, "of the counts differ"),
    "the loss alone": (_loss_alone, "loss 1e-04"),
    "other weights": (_weights_of_another_run, "loss .e[-+]0"),
    "another divisor": (_reduction_of_the_gradient, "gradient .e-0[123]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kernel, wording = BROKEN[name]
    objective = Objective(WEIGHT, 2.0, "mean", IGNORED)
    assert preflight(objective, _logits(0.1), _targets()) is not None
    monkeypatch.setattr(vaefit.vae.objective.objective, "focal_loss_with_counts", kernel)
    with pytest.raises(RunError, match=r"focal loss eager \(tensors are on cpu\): .* float64 reference") as caught:
        preflight(objective, _logits(0.1), _targets())
    assert "Pass --backend reference, and report it" in caught.value.do
    with pytest.raises(RunError, match=wording):
        preflight(objective, _logits(0.1), _targets())


def _wrong_after_the_closed_form(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _clamped(logits, *rest) if logits.any() else focal_loss_with_counts(logits, *rest)


def test_the_command_says_it_in_a_line_and_stops_where_it_is_wrong(vaefit_cli, dataset, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    arguments = ("overfit", dataset, "--batch-size", "4", "--iterations", "1", "--out", tmp_path / "run")
    lines = vaefit_cli(*arguments).out.splitlines()
    where = next(i for i, line in enumerate(lines) if line.startswith("focal loss  eager"))
    assert lines[where + 1].startswith("preflight   eager agrees with the float64 reference: loss ")
    assert lines[where + 1].endswith(", counts equal")
    assert lines[where + 2] == "steps       one by one (the model is on cpu)"
    found = json.loads((tmp_path / "run/result.json").read_text())["preflight"]
    assert found["miscounted"] == 0
    assert 0 < found["gradient"] < found["gradient_allowed"] == 1e-5

    before = (tmp_path / "run/metrics.csv").read_bytes()
    monkeypatch.setattr(vaefit.vae.objective.objective, "focal_loss_with_counts", _wrong_after_the_closed_form)
    stopped = vaefit_cli(*arguments, "--overwrite")
    assert (stopped.code, stopped.out) == (3, "")
    assert "not those of the float64 reference" in stopped.err
    assert (tmp_path / "run/metrics.csv").read_bytes() == before
    error = vaefit_cli(*arguments, "--overwrite", "--json").json["error"]
    assert error["where"] == "focal loss eager (tensors are on cpu)"


def test_a_cell_that_is_lost_on_the_way_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def losing(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        loss, counts = focal_loss_with_counts(logits, *rest)
        if calls > 6:
            counts = counts.clone()
            counts[0, 0] -= 1
        return loss, counts

    monkeypatch.setattr(vaefit.vae.objective.objective, "focal_loss_with_counts", losing)
    steps: list[int] = []
    with pytest.raises(RunError, match=r"hold 2,047 cells after 3 updates, but 2,048 cells .*backend='eager'"):
        overfit(BetaVAE(10, 16, 16), GRIDS, on_step=lambda record: steps.append(record.step))
    assert steps == [0, 1, 2]
