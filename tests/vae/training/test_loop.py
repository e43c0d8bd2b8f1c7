"""The training loop: its step is that of the check, its rows say what was measured, its end is the plan's."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vaefit.cache import class_weights
from vaefit.cache.errors import SettingError
from vaefit.vae.errors import RunError
from vaefit.vae.fitting.eager_stepper import EagerStepper
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.model.beta_vae import BetaVAE
from vaefit.vae.objective.objective import Measured, Objective
from vaefit.vae.optim.train_step import Step
from vaefit.vae.recipe import BetaCycles, BetaRamp, Recipe
from vaefit.vae.runs.training_run import TrainWatcher, run_training
from vaefit.vae.training.interrupt import StopRequest
from vaefit.vae.training.loop import Training
from vaefit.vae.training.prepare import recipe_for
from vaefit.vae.training.progress import Plan
from vaefit.vae.training.random_streams import augmentation_generator, latent_noise, seed_torch
from vaefit.vae.training.settings import RECIPES, TrainSettings
from vaefit.vae.training.validation import Validator

SMALL = {"batch_size": 30, "latent_dim": 4, "checkpoint_every": 1e9, "threads": 1}


class NoKeeper:
    """Keeps nothing."""

    def __init__(self):
        self.rows, self.validations, self.checkpoints = [], [], []

    def steps_row(self, row):
        self.rows.append(row)

    def validation_row(self, row):
        self.validations.append(row)

    def best(self, model, best):
        pass

    def checkpoint(self, checkpoint):
        self.checkpoints.append(checkpoint.step)


class OneBatch:
    """The same batch in every update."""

    def __init__(self, grids, steps):
        self.grids, self.steps = grids, steps

    def epoch(self, epoch, first=0):
        for _ in range(first, self.steps):
            yield self.grids


def built(grids, recipe, classes=10):
    """A step on a model that is the same at every call."""
    torch.manual_seed(3)
    model = BetaVAE(classes, *grids.shape[1:], latent_dim=4).to(memory_format=torch.channels_last)
    labels = torch.from_numpy(grids.astype(np.int64))
    weights = class_weights(np.bincount(grids.reshape(-1), minlength=classes))
    objective = Objective.build(weights, recipe, None, "auto", torch.device("cpu"))
    return Step.build(model, find_adapter(model, labels, classes), objective, recipe), labels


def trained(grids, recipe, updates, *, validate_every=10**6, patience=None, seed=0, heard=None):
    step, _ = built(grids, recipe)
    keeper = NoKeeper()
    validator = Validator(step, lambda: iter([grids]), len(grids), None)
    plan = Plan(updates, updates, validate_every, patience, 1e9)
    training = Training(step, recipe, plan, OneBatch(grids, updates), validator, keeper, seed, None, None)
    training.run(StopRequest(), heard)
    return training, keeper


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("change", [{}, {"beta": 0.5, "free_bits": 0.3}, {"lr_decay": "cosine", "warmup": 2}])
def test_steps_of_training_are_those_of_the_check_bit_for_bit(grids, optimizer, change):
    batch, updates = grids[:16], 4
    recipe = Recipe(optimizer=optimizer, iterations=updates, **change)
    step, labels = built(batch, recipe)
    inputs = step.adapter.inputs(labels, step.model)
    check = EagerStepper(step, recipe, inputs, labels, torch.Generator())
    losses = []
    for done in range(updates):
        found: Measured = check.measure(done)
        losses.append((found.loss, check.update(done)[1]))
    training, keeper = trained(batch, recipe, updates)
    (row,) = keeper.rows
    assert row.average.loss == sum(loss for loss, _ in losses) / updates
    assert row.average.grad_norm == sum(norm for _, norm in losses) / updates
    here = dict(training.step.model.named_parameters())
    for name, parameter in step.model.named_parameters():
        assert torch.equal(parameter, here[name]), name
    for mine, theirs in zip(step.state(), training.step.state(), strict=True):
        assert torch.equal(mine, theirs)


def test_training_ends_with_the_plan_and_validates_at_its_times(grids):
    training, keeper = trained(grids[:16], Recipe(iterations=7), 7, validate_every=3)
    assert [row.step for row in keeper.validations] == [0, 3, 6, 7]
    assert [row.epoch for row in keeper.validations] == [0, 1, 1, 1]
    assert [row.step for row in keeper.rows] == [3, 6, 7]
    assert training.progress.finished
    assert training.progress.step == 7
    assert keeper.validations[0].training is None
    assert keeper.validations[-1].training.loss == keeper.rows[-1].average.loss


def test_the_untrained_model_is_the_best_only_while_there_is_no_other(grids, monkeypatch):
    recipe = Recipe(iterations=2, lr=1e-12)
    training, keeper = trained(grids[:16], recipe, 2, validate_every=1)
    assert len({row.validation.accuracies.macro for row in keeper.validations}) == 1
    assert training.progress.best.step == 1


def test_it_stops_when_macro_accuracy_is_not_better_for_long(grids):
    training, keeper = trained(grids[:16], Recipe(iterations=9, lr=1e-12), 9, validate_every=1, patience=3)
    assert [row.step for row in keeper.validations] == [0, 1, 2, 3, 4]
    assert training.progress.stopped == "macro accuracy was not better in 3 validations"
    assert training.progress.finished


def test_a_loss_that_is_not_finite_stops_training_and_changes_nothing(grids):
    recipe = Recipe(iterations=5, lr=1e30, clip=0.0, optimizer="adam", warmup=0)
    before = {}

    def remember(run):
        before.update({n: p.detach().clone() for n, p in run.step.model.named_parameters()})

    training, _ = trained(grids[:16], recipe, 5, heard=remember)
    assert training.progress.diverged is not None
    assert not training.progress.finished
    assert f"at update {training.progress.step + 1}" in training.progress.diverged
    for name, parameter in training.step.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_request_to_stop_leaves_a_checkpoint_of_the_update_that_was_made(grids):
    stop, recipe = StopRequest(), Recipe(iterations=9)
    step, _ = built(grids[:16], recipe)
    keeper = NoKeeper()
    validator = Validator(step, lambda: iter([grids[:16]]), 16, None)
    plan = Plan(9, 9, 9, None, 1e9)
    training = Training(step, recipe, plan, OneBatch(grids[:16], 9), validator, keeper, 0, None, None)

    def ask(run):
        stop.requested = run.progress.step == 4

    with pytest.raises(KeyboardInterrupt):
        training.run(stop, ask)
    assert keeper.checkpoints == [0, 4]


def test_random_numbers_follow_from_seed_and_update_alone():
    first = latent_noise(1, 5, (2, 3)), augmentation_generator(1, 5).random(4)
    assert torch.equal(first[0], latent_noise(1, 5, (2, 3)))
    assert np.array_equal(first[1], augmentation_generator(1, 5).random(4))
    others = [latent_noise(2, 5, (2, 3)), latent_noise(1, 6, (2, 3))]
    assert not any(torch.equal(first[0], other) for other in others)
    seed_torch(0, 1)
    drawn = torch.rand(2)
    seed_torch(0, 1)
    assert torch.equal(drawn, torch.rand(2))


def test_beta_schedules_are_worked_out_from_the_epochs():
    settings = TrainSettings("x.h5", recipe=replace(RECIPES["default"], beta=2.0), beta_warmup=1.5)
    recipe = recipe_for(settings, updates=60, epoch=20)
    assert recipe.iterations == 60
    assert recipe.warmup == 6  # of 100: at most a tenth
    assert recipe.beta_ramp == BetaRamp(0.0, 3.0, 2.0)
    assert [recipe.beta_at(step) for step in (0, 15, 30, 59)] == pytest.approx([0, 1, 2, 2])
    cycles = recipe_for(replace(settings, beta_warmup=0.0, beta_cycles=2), updates=60, epoch=20).beta_ramp
    assert cycles == BetaCycles(60, 2, 2.0)
    assert [cycles.at(step) for step in (0, 7.5, 15, 29, 30, 45, 60)] == pytest.approx([0, 1, 2, 2, 0, 2, 2])


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--epochs", {"epochs": 0}), ("--split-seed", {"split_seed": -1}), ("--patience", {"patience": 0}),
        ("--validate-every", {"validate_every": 0}), ("--checkpoint-every", {"checkpoint_every": -1.0}),
        ("--precision", {"precision": "float16"}), ("--loader", {"loader": "disk"}), ("--workers", {"workers": 0}),
        ("--window", {"window": 0}), ("--beta-cycles", {"beta_cycles": -1}), ("--beta-warmup", {"beta_warmup": -1.0}),
        ("--weights", {"recipe": Recipe(weights="batch")}), ("--beta-warmup", {"beta_warmup": 1.0, "beta_cycles": 1}),
    ],
)  # fmt: skip
def test_a_wrong_setting_names_its_option(option, change):
    with pytest.raises(SettingError) as caught:
        TrainSettings("x.h5", **change)
    assert caught.value.where == option


@pytest.fixture
def run(dataset, tmp_path):
    """Train on the dataset, and give the summary and the folder."""

    def call(name="run", watcher=None, **changes):
        settings = TrainSettings(dataset, out=tmp_path / name, epochs=2, **{**SMALL, **changes})
        return run_training(settings, watcher), tmp_path / name

    return call


def rows(folder, name="metrics.csv"):
    with (folder / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_folder_holds_what_was_measured(run, grids):
    summary, folder = run()
    assert {f.name for f in folder.iterdir()} >= {
        "config.json", "metrics.csv", "steps.csv", "result.json", "reconstructions.png", "curves.png",
        "model.safetensors", "checkpoints",
    }  # fmt: skip
    assert summary.setup.split == {"train": 180, "val": 20, "test": 0}
    assert [(row["step"], row["epoch"]) for row in rows(folder)] == [("0", "0"), ("6", "1"), ("12", "2")]
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(summary.json()))
    best = rows(folder)[[row["step"] for row in rows(folder)].index(str(summary.best_step))]
    assert float(best["macro_accuracy"]) == summary.macro_accuracy
    assert [float(best[f"class_{c}"] or "nan") for c in range(10)] == pytest.approx(
        [np.nan if a is None else a for a in summary.class_accuracy], nan_ok=True
    )
    assert np.array(summary.confusion).sum() == 20 * 64
    assert summary.setup.weights.values == tuple(class_weights(np.bincount(grids.reshape(-1), minlength=10)))


def test_the_best_weights_are_those_of_the_best_validation(run, grids):
    found = {}

    def remember(training):
        best = training.progress.best
        if best.step == training.progress.step and best.step not in found:
            found[best.step] = {n: t.detach().clone() for n, t in training.step.model.state_dict().items()}

    summary, folder = run(watcher=TrainWatcher(update=remember), validate_every=1)
    kept = load_file(folder / "model.safetensors")
    assert kept.keys() == found[summary.best_step].keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in found[summary.best_step].items())


@pytest.mark.slow
def test_the_same_seeds_give_the_same_bytes(run):
    _, first = run("a", recipe=replace(RECIPES["default"], z="sample"), augment="rotate,colours")
    _, second = run("b", recipe=replace(RECIPES["default"], z="sample"), augment="rotate,colours")
    for name in ("metrics.csv", "steps.csv", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    _, third = run("c", seed=1, recipe=replace(RECIPES["default"], z="sample"), augment="rotate,colours")
    assert (first / "metrics.csv").read_bytes() != (third / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_narrow_arithmetic_trains_and_keeps_float32_weights(run):
    summary, folder = run(precision="bfloat16")
    assert summary.finished
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float32}


@pytest.mark.slow
def test_compile_compiles_the_network(run, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: asked.append(function) or function)
    _, plain = run("plain")
    _, compiled = run("compiled", compile=True)
    assert len(asked) == 1
    assert (plain / "model.safetensors").read_bytes() == (compiled / "model.safetensors").read_bytes()


def test_a_network_that_cannot_be_compiled_is_one_error(run, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def fail(*_, **__):
        def forward(*_, **__):
            raise BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), [])

        return forward

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(RunError, match="the network cannot be compiled here") as caught:
        run(compile=True)
    assert caught.value.where == "--compile"


@pytest.mark.slow
def test_check_and_training_in_one_folder_do_not_mix(run, vaefit_cli, dataset):
    _, folder = run()
    (folder / "mine.txt").write_text("mine")
    check = (
        "overfit",
        dataset,
        "--batch-size",
        "4",
        "--iterations",
        "1",
        "--out",
        folder,
        "--overwrite",
        "--tensorboard",
    )
    vaefit_cli(*check)
    assert not (folder / "checkpoints").exists()
    assert not (folder / "steps.csv").exists()
    assert vaefit_cli("evaluate", folder, "--checkpoint", "last", "--json").code == 3
    assert vaefit_cli("train", dataset, "--epochs", "1", "--out", folder, "--overwrite").code == 0
    assert not (folder / "tensorboard").exists()
    assert (folder / "mine.txt").read_text() == "mine"
