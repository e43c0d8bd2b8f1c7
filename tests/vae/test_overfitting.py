"""`overfit` and `assert_memorises` from Python, on our network and on others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import vaefit.vae
from vaefit.cache import DataError
from vaefit.cache.errors import SettingError
from vaefit.vae import RECIPES, BetaVAE, Recipe, assert_memorises, overfit
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.errors import RunError
from vaefit.vae.fitting.result import Record

CORPUS = synthesise(SyntheticSpec(grids=64))


@pytest.fixture(autouse=True)
def _own_seed() -> None:
    torch.manual_seed(0)


def _batch(size: int = 8) -> NDArray[np.uint8]:
    return CORPUS[:size]


class Flat(nn.Module):
    """A network unlike ours: an embedding, one hidden layer, dropout, logits alone."""

    def __init__(self, classes: int = 10, side: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.classes, self.side = classes, side
        self.embed = nn.Embedding(classes, 4)
        self.hidden = nn.Linear(4 * side * side, 256)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(256, classes * side * side)

    def forward(self, grids: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(self.hidden(self.embed(grids).flatten(1))))
        return self.out(hidden).view(-1, self.classes, self.side, self.side)


def test_the_default_recipe_memorises_and_stops_when_exact() -> None:
    records: list[Record] = []
    result = overfit(BetaVAE(10, 16, 16), _batch(), on_step=records.append)
    assert result.verdict == "MEMORISED"
    assert result.passed
    assert result.accuracies.exact
    np.testing.assert_array_equal(result.predictions, _batch())
    assert result.reached.exact == result.iterations < 100
    assert result.weights.source == "batch"
    assert [r.step for r in records] == list(range(result.iterations + 1))
    assert records == list(result.history)
    assert records[-1].lr is None
    assert records[-1].grad_norm is None


def test_reached_is_the_first_step_at_which_the_reconstruction_gets_there() -> None:
    result = overfit(BetaVAE(10, 16, 16), _batch())
    pixel = [r.step for r in result.history if r.accuracies.pixel >= 0.95]
    worst = [r.step for r in result.history if min(a for a in r.accuracies.classes if a is not None) >= 0.95]
    assert result.reached.pixel_95 == pixel[0]
    assert result.reached.worst_class_95 == worst[0]
    assert result.predicted_steps(0) is not None


def test_the_fixed_batch_is_seen_whole_and_resampling_draws_from_it() -> None:
    class Spy(BetaVAE):
        def forward(self, grids: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
            if torch.is_grad_enabled() and self.training:
                seen.append(grids.shape[0])
                pictures.append(len(grids.flatten(1).unique(dim=0)))
            return super().forward(grids, noise)

    seen: list[int] = []
    pictures: list[int] = []
    overfit(Spy(10, 16, 16), _batch(16), recipe=Recipe(iterations=5, stop_when="never"))
    assert pictures == [16] * 6  # five updates and the last look
    seen.clear()
    pictures.clear()
    overfit(Spy(10, 16, 16), _batch(16), recipe=replace(RECIPES["classic"], iterations=20))
    assert seen == [16] * 20
    assert 8 < np.mean(pictures) < 14  # about 63 % of 16 a step


def test_z_is_sampled_only_where_the_recipe_says_so() -> None:
    batch, few = _batch(), {"iterations": 3, "stop_when": "never", "resample": False}
    sampled = overfit(BetaVAE(10, 16, 16), batch, recipe=replace(RECIPES["classic"], **few))
    mean = overfit(BetaVAE(10, 16, 16), batch, recipe=replace(RECIPES["classic"], z="mu", **few))
    assert all(r.train_loss == r.loss for r in mean.history[:-1])
    assert all(r.train_loss != r.loss for r in sampled.history[:-1])


def test_same_seed_same_history_and_another_seed_another() -> None:
    recipe = replace(RECIPES["classic"], iterations=4)
    losses = [
        [(r.loss, r.train_loss) for r in overfit(BetaVAE(10, 16, 16), _batch(), recipe=recipe, seed=seed).history]
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    overfit(BetaVAE(10, 16, 16), _batch(), recipe=Recipe(iterations=1))
    model = BetaVAE(10, 16, 16)
    assert not torch.equal(before, torch.get_rng_state())  # the models were built from it
    state = torch.get_rng_state()
    overfit(model, _batch(), recipe=replace(RECIPES["classic"], iterations=2))
    assert torch.equal(state, torch.get_rng_state())


def test_cudnn_is_told_to_repeat_itself_and_then_what_it_was_told_before() -> None:
    cudnn = torch.backends.cudnn
    before, seen = (cudnn.benchmark, cudnn.deterministic), []
    recipe = Recipe(iterations=1)
    overfit(BetaVAE(10, 16, 16), _batch(), recipe=recipe, on_step=lambda _: seen.append(cudnn.deterministic))
    assert seen == [True, True]
    assert (cudnn.benchmark, cudnn.deterministic) == before


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_foreign_model_keeps_its_initialisation_and_is_measured_without_dropout(dropout: float) -> None:
    model = Flat(dropout=dropout)
    start = model.hidden.weight.detach().clone()
    result = overfit(model, _batch(), recipe=Recipe(init=None, iterations=0))
    assert torch.equal(model.hidden.weight, start)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(_batch()).long()).argmax(dim=1).numpy()
    np.testing.assert_array_equal(result.predictions, expected)
    assert assert_memorises(model, _batch()).accuracies.exact


def test_the_assertion_carries_verdict_reason_and_next_step() -> None:
    with pytest.raises(
        AssertionError, match=r"LEARNING: not there yet: .* is needed. .*recipe=Recipe\(iterations=500\)"
    ):
        assert_memorises(BetaVAE(10, 16, 16), _batch(), recipe=Recipe(iterations=1))


def test_a_divergent_run_stops_at_once() -> None:
    result = overfit(BetaVAE(10, 16, 16), _batch(), recipe=Recipe(lr=1e30, clip=0, iterations=50, stop_when="never"))
    assert result.verdict == "DIVERGED"
    assert result.iterations < 50
    assert "--lr" in result.judgement.next
    assert not math.isfinite(result.history[-1].loss) or not math.isfinite(result.history[-1].grad_norm or 0)


def test_stopping_at_the_target_comes_before_exact() -> None:
    target = overfit(BetaVAE(10, 16, 16), _batch(16), recipe=Recipe(stop_when="target"))
    exact = overfit(BetaVAE(10, 16, 16), _batch(16))
    assert target.passed
    assert target.iterations < exact.iterations


def test_ignored_cells_count_nowhere() -> None:
    batch = _batch().astype(np.int64)
    batch[:, :4] = 77
    result = overfit(BetaVAE(10, 16, 16), batch, ignore_index=77)
    assert result.passed
    kept = batch != 77
    np.testing.assert_array_equal(result.predictions[kept], batch[kept])
    assert result.accuracies.predicted.sum() == kept.sum()


def test_a_model_that_hardly_began_is_learning() -> None:
    """Its pictures are all wrong, and all different."""
    result = overfit(BetaVAE(10, 16, 16), _batch(), recipe=Recipe(iterations=3))
    assert result.verdict == "LEARNING"
    assert result.skill is not None
    assert result.skill < 0
    assert result.variation is not None
    assert result.variation > 1


def test_a_batch_of_one_has_no_retrieval_no_skill_and_no_variation() -> None:
    result = overfit(BetaVAE(10, 16, 16), _batch(1))
    assert result.retrieval is None
    assert result.variation is None
    assert result.skill is None
    assert result.passed


@pytest.mark.parametrize(
    ("model", "batch", "error", "wording"),
    [
        (BetaVAE(3, 16, 16), CORPUS[:4], DataError, "outside the model's 3 classes"),
        (BetaVAE(10, 16, 16), CORPUS[0], DataError, r"\(B, H, W\) integer labels"),
        (BetaVAE(10, 16, 16), CORPUS[:2].astype(float), DataError, "dtype float64"),
        (nn.ReLU(), CORPUS[:2], RunError, "no parameter that can learn"),
        (nn.Sequential(nn.Embedding(10, 5)), CORPUS[:2], RunError, r"must return logits \(2, C, 16, 16\)"),
    ],
)
def test_what_does_not_fit_is_told_so(
    model: nn.Module, batch: NDArray[np.uint8], error: type[Exception], wording: str
) -> None:
    with pytest.raises(error, match=wording):
        overfit(model, batch)


def test_weights_must_fit_the_classes() -> None:
    with pytest.raises(SettingError, match="10 weights are needed"):
        overfit(BetaVAE(10, 16, 16), _batch(), weights=np.ones(9))
    with pytest.raises(SettingError, match="finite, not negative"):
        overfit(BetaVAE(10, 16, 16), _batch(), weights=[1.0] * 9 + [-1.0])


@pytest.mark.slow
def test_the_classic_recipe_collapses_under_beta_without_weights() -> None:
    recipe = replace(RECIPES["classic"], weights="none", beta=0.01, iterations=150)
    result = overfit(BetaVAE(10, 16, 16), CORPUS[:32], recipe=recipe)
    assert result.verdict == "COLLAPSED"
    assert result.judgement.collapsed_class == 0
    assert result.accuracies.pixel == pytest.approx(result.shares.background, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "classes"),
    [(1, 1, 2), (1, 9, 3), (3, 50, 5), (7, 11, 3), (30, 30, 21), (5, 6, 256), (33, 8, 10)],
)
def test_grids_of_any_size_are_memorised(height: int, width: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, classes, (4, height, width))
    cells[rng.random(cells.shape) < 0.8] = 0
    cells[:2, 0, 0] = 0, 1  # not all alike
    if height * width == 1:
        cells = cells[:2]
    result = overfit(BetaVAE(classes, height, width), cells)
    assert result.verdict == "MEMORISED", result.judgement.reason
    assert result.iterations < 100


def test_errors_of_the_arguments_speak_python() -> None:
    model, grids = BetaVAE(10, 16, 16), _batch()
    with pytest.raises(SettingError, match=r"^recipe: the recipe must be a Recipe \(got 'adam'\). Pass RECIPES\["):
        overfit(model, grids, recipe="adam")
    with pytest.raises(TypeError, match=r"no argument 'lr': .* Pass recipe=Recipe\(lr=0.1\)"):
        overfit(model, grids, lr=0.1)
    with pytest.raises(TypeError, match="no argument 'learning_rate'"):
        overfit(model, grids, learning_rate=0.1)


def test_errors_are_importable_from_the_package() -> None:
    names = ("DataError", "RunError", "SettingError", "VaefitError")
    assert all(issubclass(getattr(vaefit.vae, name), vaefit.vae.VaefitError) for name in names)
    assert {*names, "overfit", "Recipe"} <= set(dir(vaefit.vae))
