"""Diagnosis: the probes of a failed model, the cost and side effects of reruns, and the choice of a cause.

tests/diagnosis_cases/test_cases.py checks that the right cause is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaefit.vae import RECIPES, BetaVAE, OverfitResult, Recipe, assert_memorises, overfit
from vaefit.vae.data.batch import Batch
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.diagnosis import gradient_flow, model_probes
from vaefit.vae.diagnosis.failed_run import FailedRun
from vaefit.vae.diagnosis.find_cause import find_cause
from vaefit.vae.diagnosis.reruns import TIMES
from vaefit.vae.errors import RunError
from vaefit.vae.metrics.diagnosis import Diagnosis
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.model.gradient_reach import layers_of
from vaefit.vae.model.state import Snapshot

GRIDS = synthesise(SyntheticSpec(grids=16, height=8, width=8, classes=4)).astype(np.int64)
SHORT = Recipe(iterations=3)


class Tiny(nn.Module):
    """A dense layer each way; `between` acts on the hidden units."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.between = between
        self.first, self.second = nn.Linear(256, 64), nn.Linear(64, 256)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x.flatten(1)))).view(-1, 4, 8, 8)


def _failed_run(model: nn.Module, recipe: Recipe = SHORT, batch: Batch | None = None) -> FailedRun:
    batch = batch or Batch(GRIDS, ())
    adapter = find_adapter(model, torch.from_numpy(batch.grids), 4)
    before = Snapshot.from_model(model)
    result = overfit(model, batch, recipe=recipe)
    return FailedRun(model, adapter, batch, result.weights, result.recipe, None, 0, "auto", before, result)


def _failed(recipe: Recipe = SHORT, diagnose: bool = True) -> tuple[BetaVAE, OverfitResult]:
    torch.manual_seed(0)
    model = BetaVAE(4, 8, 8)
    return model, overfit(model, GRIDS, recipe=recipe, diagnose=diagnose)


def test_the_model_is_left_as_the_run_itself_left_it() -> None:
    plain, expected = _failed(diagnose=False)
    model, result = _failed()
    assert result.diagnosis is not None
    assert len(result.diagnosis.controls) >= 1
    assert [r.loss for r in result.history] == [r.loss for r in expected.history]
    assert expected.diagnosis is None
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.training == plain.training


def test_a_run_that_passes_has_no_diagnosis() -> None:
    result = overfit(BetaVAE(4, 8, 8), GRIDS, diagnose=True)
    assert result.passed
    assert result.diagnosis is None


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    model = BetaVAE(4, 8, 8)
    state = torch.get_rng_state()
    assert overfit(model, GRIDS, recipe=SHORT, diagnose=True).diagnosis is not None
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_diagnosis_every_time() -> None:
    assert _failed()[1].diagnosis == _failed()[1].diagnosis


@pytest.mark.slow
def test_the_fix_is_the_next_step_and_fixes_the_run() -> None:
    _, result = _failed(replace(Recipe(), lr=1e-8, iterations=100))
    found = result.diagnosis
    assert found is not None
    assert (found.cause, found.fix) == ("learning rate", "--lr 0.002")
    assert result.judgement.next == "Try --lr 0.002."
    assert found.controls[-1].mended
    assert found.controls[-1].option == found.fix
    assert str(found) == f"learning rate: {found.evidence}"
    assert overfit(BetaVAE(4, 8, 8), GRIDS, recipe=Recipe(iterations=100)).passed


@pytest.mark.slow
def test_several_wrong_settings_are_separated_from_the_harmless_ones() -> None:
    """The rate and the clip each suffice to fail; the initialisation does not matter beside them."""
    recipe = replace(RECIPES["adam"], lr=1e-8, clip=1e-12, init="kaiming", iterations=120)
    found = _failed(recipe)[1].diagnosis
    assert found is not None
    assert found.cause == "learning rate"
    assert found.fix == "--lr 0.002 --clip 1"
    assert "--init" not in found.fix


@pytest.mark.slow
def test_controls_keep_to_their_budget() -> None:
    model = nn.Sequential(nn.Conv2d(4, 1, 8), nn.ConvTranspose2d(1, 4, 8))  # one number a grid is too few
    result = overfit(model, GRIDS, recipe=Recipe(init=None, iterations=200), diagnose=True)
    found = result.diagnosis
    assert found is not None
    assert not result.passed
    assert len(found.controls) >= 4
    assert sum(c.updates for c in found.controls) <= TIMES * 200


def test_no_numbers_from_the_first_step_on() -> None:
    class Broken(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0.0 * 0.0

    result = overfit(Broken(), GRIDS, recipe=Recipe(init=None, iterations=50), diagnose=True)
    assert result.verdict == "DIVERGED"
    assert result.iterations == 0
    found = result.diagnosis
    assert found is not None
    assert any(f.name == "first output that is not finite" and f.suspicious for f in found.findings)


@pytest.mark.slow
def test_the_assertion_carries_the_cause_and_can_go_without() -> None:
    recipe = Recipe(lr=1e-8, iterations=60)
    found = r"^LEARNING: .*Cause: learning rate: worst class .*Try recipe=Recipe\(lr=0\.002\)\.$"
    with pytest.raises(AssertionError, match=found):
        assert_memorises(BetaVAE(4, 8, 8), GRIDS, recipe=recipe)
    with pytest.raises(AssertionError, match=r"^LEARNING: ") as caught:
        assert_memorises(BetaVAE(4, 8, 8), GRIDS, recipe=recipe, diagnose=False)
    assert "Cause" not in str(caught.value)


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (torch.relu, {"unused.weight", "unused.bias"}),
        (torch.detach, {"first.weight", "first.bias", "unused.weight", "unused.bias"}),
        (torch.round, {"first.weight", "first.bias", "unused.weight", "unused.bias"}),
    ],
)
def test_parameters_that_no_gradient_reaches(between: Callable[[Tensor], Tensor], expected: set[str]) -> None:
    failed = _failed_run(Tiny(between), Recipe(init=None, iterations=1))
    assert set(gradient_flow.blocked_parameters(failed)) == expected


def test_no_gradient_of_our_own_network_is_missing_and_zeros_are_not_held_against_it() -> None:
    model = BetaVAE(4, 8, 8)
    assert gradient_flow.blocked_parameters(_failed_run(model)) == ()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert gradient_flow.blocked_parameters(_failed_run(model, Recipe(init=None, iterations=1))) == ()
    model.decoder.requires_grad_(False)
    blocked = gradient_flow.blocked_parameters(_failed_run(model, Recipe(iterations=1)))
    assert layers_of(blocked, dict(model.named_parameters())) == "decoder"


def test_what_zeroing_and_shuffling_z_changes() -> None:
    model = BetaVAE(4, 8, 8)
    assert overfit(model, GRIDS).passed
    failed = _failed_run(model, Recipe(init=None, iterations=0))
    use = model_probes.latent_use(failed)
    assert use is not None
    assert min(use) > 0.01
    logits = failed.model(failed.inputs())[0].argmax(1)
    shuffled = model.decode(model.encode(failed.inputs())[0].roll(1, dims=0)).argmax(1)
    assert use[1] == pytest.approx(float((logits != shuffled).float().mean()))
    assert model_probes.latent_use(_failed_run(Tiny(), Recipe(init=None, iterations=0))) is None
    with torch.no_grad():
        model.decoder[0].weight.zero_()
    assert model_probes.latent_use(_failed_run(model, Recipe(init=None, iterations=0))) == (0.0, 0.0)
    assert model_probes.spread(_failed_run(model, Recipe(init=None, iterations=0))).follows is False


def test_dead_units_saturated_means_and_absent_classes_are_counted() -> None:
    model = BetaVAE(4, 8, 8)
    with torch.no_grad():
        model.encoder[0].bias[:20] = -1e3
        model.mu.weight.zero_()
        model.mu.bias.fill_(7.0)
    failed = _failed_run(model, Recipe(init=None, iterations=0))
    dead, saturated = model_probes.dead_units_finding(failed), model_probes.saturation_finding(failed)
    assert dead is not None
    assert saturated is not None
    assert dead.found.startswith("20 of 32 units of encoder.1 ")
    assert dead.suspicious
    assert saturated.found.startswith("100.0 % of mu is at its limit of 5")
    only = _failed_run(model, SHORT, Batch(np.minimum(GRIDS, 1), ()))
    assert model_probes.absent_finding(only).found == "2 of 4 classes occur; not class 2, 3"


def test_drawing_in_training_is_seen() -> None:
    quiet, dropout = Tiny(), Tiny(lambda x: nn.functional.dropout(x, 0.5, training=model.training))
    model = dropout
    assert not model_probes.samples_in_training(_failed_run(quiet, Recipe(init=None, iterations=1)))
    assert model_probes.samples_in_training(_failed_run(dropout, Recipe(init=None, iterations=1)))


@pytest.mark.parametrize(
    ("squash", "words"),
    [
        (lambda x: torch.softmax(x, dim=1), "they sum to 1 over the classes"),
        (torch.sigmoid, "they all lie between 0 and 1"),
        (lambda x: torch.relu(4 * x - 4), "a ReLU?"),
        (lambda x: 1e-4 * x, "root mean square"),
        (lambda x: x, ""),
    ],
)
def test_logits_that_look_like_something_else(squash: Callable[[Tensor], Tensor], words: str) -> None:
    class Squashed(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return squash(super().forward(x))

    found = model_probes.logits_finding(_failed_run(Squashed(), Recipe(init=None, iterations=0)))
    assert words in found.found
    assert found.suspicious == bool(words)


def test_squashed_logits_are_the_cause() -> None:
    class Squashed(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(super().forward(x), dim=1)

    torch.manual_seed(1)  # with seeds 0 and 2 a higher rate fixes the run too, and is named
    result = overfit(Squashed(), GRIDS, recipe=Recipe(init=None, lr=1e-4, iterations=40), diagnose=True)
    assert result.diagnosis is not None
    assert result.diagnosis.cause == "loss or weights wrong"
    assert "softmax" in result.judgement.next


def test_a_change_that_helps_is_run_for_as_long_as_the_run_itself() -> None:
    """The run memorises with beta 0 alone, but not within a share of the budget."""
    recipe = Recipe(beta=1.0, init="kaiming", gamma=50.0, lr=1.0, iterations=300)
    failed = replace(_failed_run(BetaVAE(4, 8, 8)), recipe=recipe)
    assert not failed.result.passed
    lengths = []

    def slow(*_: object, recipe: Recipe, **__: object) -> OverfitResult:
        helps = recipe.beta == 0 and (recipe.init, recipe.gamma, recipe.lr) == ("kaiming", 50.0, 1.0)
        if helps:
            lengths.append(recipe.iterations)
        done = helps and recipe.iterations == 300
        judgement = replace(failed.result.judgement, verdict="MEMORISED" if done else "LEARNING")
        accuracies = replace(failed.result.accuracies, worst=1.0 if done else 0.4 if helps else 0.0)
        return replace(failed.result, judgement=judgement, accuracies=accuracies, iterations=recipe.iterations)

    found = find_cause(failed, slow)
    assert (found.cause, found.fix) == ("KL too strong", "--beta 0")
    assert len(lengths) == 2, "a share of the budget first, then the whole length"
    assert lengths[0] < lengths[1] == 300


def test_a_model_that_raises_in_a_rerun_costs_no_result(said: Callable[[], str]) -> None:
    class Tired(Tiny):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 60:
                raise RuntimeError("cache exhausted")
            return super().forward(x)

    result = overfit(Tired(), GRIDS, recipe=Recipe(init=None, lr=1e-8, iterations=20), diagnose=True)
    assert result.iterations == 20
    assert result.verdict == "LEARNING"
    assert "cache exhausted" in said()


def test_logits_without_any_gradient_are_reported_before_the_first_step() -> None:
    class Hard(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(super().forward(x).argmax(1), 4).permute(0, 3, 1, 2).float()

    with pytest.raises(RunError, match=r"no gradient leads from the logits to any parameter.*argmax"):
        overfit(Hard(), GRIDS)


def test_a_batch_of_one_class_gives_a_warning(said: Callable[[], str]) -> None:
    overfit(BetaVAE(4, 8, 8), np.zeros((3, 8, 8), dtype=int), recipe=SHORT)
    assert "every cell of the batch that counts holds class 0: the verdict of this run is meaningless" in said()


def test_the_words_of_a_diagnosis() -> None:
    found = Diagnosis("no gradient", "encoder", "the gradient is 0 for 4 of 10 parameters", "Look for a detach.")
    assert str(found) == "no gradient in encoder: the gradient is 0 for 4 of 10 parameters"
    assert found.advice == "Look for a detach."
    assert replace(found, fix="--lr 1").advice == "Try --lr 1."
    assert replace(found, fix=None).advice.endswith("try --batch-size 2.")


@pytest.mark.slow
def test_the_command_names_the_cause(vaefit_cli, dataset, tmp_path) -> None:
    arguments = ("overfit", dataset, "--lr", "1e-8", "--iterations", "60", "--out", tmp_path / "run", "--overwrite")
    failed = vaefit_cli(*arguments, "--diagnose", "--json")
    assert failed.code == 1
    diagnosis = failed.json["diagnosis"]
    assert (diagnosis["cause"], diagnosis["fix"]) == ("learning rate", "--lr 0.002")
    assert "worst class" in diagnosis["evidence"]
    assert {"findings", "controls", "skipped", "where"} <= set(diagnosis)
    shown = vaefit_cli("show", tmp_path / "run")
    assert "cause learning rate: worst class" in shown.out
    assert "next  Try --lr 0.002." in shown.out
    assert "the same run, changed" in shown.out
    without = vaefit_cli(*arguments)
    assert "--diagnose finds out why" in without.out
    passed = vaefit_cli("overfit", dataset, "--diagnose", "--json", "--out", tmp_path / "well")
    assert passed.code == 0
    assert passed.json["diagnosis"] is None


def test_a_frozen_table_is_no_cause() -> None:
    class Placed(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.randn(256), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x.flatten(1) + self.places).view_as(x))

    torch.manual_seed(0)
    found = overfit(Placed(), GRIDS, recipe=Recipe(init=None, lr=1e-5, iterations=80), diagnose=True).diagnosis
    assert found is not None
    assert found.cause == "learning rate"
    assert "places" in found.findings[0].found


def test_what_a_caller_raises_in_a_rerun_reaches_the_caller() -> None:
    def stop(change: str, record: object) -> None:
        raise KeyError(change)

    with pytest.raises(KeyError, match="more steps"):
        overfit(Tiny(), GRIDS, recipe=Recipe(init=None, lr=1e-8, iterations=20), diagnose=True, on_control=stop)


def test_drawing_models_leave_the_callers_random_state_alone() -> None:
    model = Tiny(lambda x: nn.functional.dropout(x, 0.5, training=model.training))
    state = torch.get_rng_state()
    assert overfit(model, GRIDS, recipe=Recipe(init=None, lr=1e-8, iterations=5), diagnose=True).diagnosis is not None
    assert torch.equal(state, torch.get_rng_state())


def test_a_snapshot_holds_what_state_dict_leaves_out() -> None:
    class Partial(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(x)

        def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
            return {"first.bias": self.first.bias}

    model = Partial()
    model.first.eval()
    before = Snapshot.from_model(model)
    weight = model.second.weight.detach().clone()
    overfit(model, GRIDS)
    assert not torch.equal(model.second.weight, weight)
    before.restore(model)
    assert torch.equal(model.second.weight, weight)
    assert model.seen == 0
    assert (model.training, model.first.training) == (True, False)


def test_a_cut_encoder_is_the_cause_though_a_rate_may_hide_it() -> None:
    model = Tiny(torch.detach)
    found = gradient_flow.blocked_parameters(_failed_run(model, Recipe(init=None, iterations=1)))
    failed = _failed_run(model, Recipe(init=None, iterations=1))
    assert set(gradient_flow.cut_off(failed, found)) == {"first.weight", "first.bias"}  # not those of `unused`
    model.first.requires_grad_(False)
    assert gradient_flow.cut_off(failed, found) == ()
    result = overfit(Tiny(torch.detach), GRIDS, recipe=Recipe(init=None, lr=1e-3, iterations=60), diagnose=True)
    assert result.diagnosis is not None
    assert result.diagnosis.cause == "no gradient"
    assert result.diagnosis.controls == ()
