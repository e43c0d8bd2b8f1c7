"""A check that Ctrl-C or SIGTERM ends has a whole folder with the verdict so far, or none."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from vaefit.vae import overfit
from vaefit.vae.recipe import Recipe
from vaefit.vae.runs.overfit_run import Watcher, run_overfit
from vaefit.vae.settings import CheckSettings
from vaefit.vae.sweep.folder import read_sweep
from vaefit.vae.sweep.plan import Knob, Plan, Setting
from vaefit.vae.sweep.run import run_sweep

PRESSED = """
import signal, torch
class Pressed(torch.nn.Conv2d):
    def __init__(self, num_classes, height, width, at, times=1):
        super().__init__(num_classes, num_classes, 3, padding=1)
        self.calls, self.at, self.times = 0, at, times
    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return super().forward(x)
"""
ENDLESS = ("--batch-size", "4", "--iterations", "1000", "--stop-when", "never", "--lr", "0.001", "--json")
SHORT = Recipe(iterations=40, stop_when="never")


@pytest.fixture
def pressed(vaefit_cli, dataset, tmp_path):
    """A check with a model that presses Ctrl-C in one of its calls in training mode; the first is before step 1."""
    (tmp_path / "pressed.py").write_text(PRESSED)

    def call(at, times=1, *options):
        model = ("--model", f"{tmp_path / 'pressed.py'}:Pressed", "--model-arg", f"at={at}")
        out = ("--out", tmp_path / "run", *options)
        return vaefit_cli("overfit", dataset, *ENDLESS, *model, "--model-arg", f"times={times}", *out)

    return call


def test_ctrl_c_ends_with_the_verdict_so_far(pressed, vaefit_cli, tmp_path):
    outcome, run = pressed(at=12), tmp_path / "run"
    assert outcome.code == 130
    found = outcome.json
    assert found == json.loads((run / "result.json").read_text())
    assert found["interrupted"] is True
    assert found["verdict"] == "LEARNING"
    updates = found["iterations"]
    assert 0 < updates <= 12
    assert found["reason"].startswith(f"interrupted after {updates} of up to 1000 updates; not there yet: ")
    assert found["next"].endswith(f"try --iterations {updates}.")
    assert (run / "metrics.csv").read_text().count("\n") == updates + 2
    files = {"config.json", "report.html", "reconstructions.png", "curves.png", "model.safetensors"}
    assert files <= {file.name for file in run.iterdir()}
    assert "interrupted" in (run / "report.html").read_text()
    assert "s, interrupted\n" in vaefit_cli("show", run).out
    both = vaefit_cli("compare", run, run, "--json").json
    assert both["results"]["interrupted"] == [True, True]
    # the advice: the same steps, ended by itself
    ended = pressed(10**6, 1, "--iterations", str(updates), "--overwrite").json
    assert (ended["interrupted"], ended["pixel_accuracy"]) == (False, found["pixel_accuracy"])


def test_before_the_first_step_nothing_is_written(pressed, tmp_path):
    outcome = pressed(at=1)
    assert outcome.code == 130
    assert outcome.json["error"]["what"] == "interrupted"
    assert outcome.json["exit"] == 130
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("an earlier run")
    assert pressed(1, 1, "--overwrite").code == 130
    assert {file.name: file.read_text() for file in (tmp_path / "run").iterdir()} == {"result.json": "an earlier run"}


def test_a_second_ctrl_c_ends_at_once(pressed, tmp_path):
    outcome = pressed(at=12, times=2)
    assert outcome.code == 130
    assert outcome.json["error"]["what"] == "interrupted"
    assert not (tmp_path / "run" / "result.json").exists()


def test_sigterm_ends_a_run_as_ctrl_c_does(dataset, tmp_path):
    def press(record):
        if record.step == 5:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    settings = CheckSettings(dataset, SHORT, batch_size=4, out=tmp_path / "run")
    result = run_overfit(settings, Watcher(step=press)).result
    assert (result.interrupted, result.iterations) == (True, 6)
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_in_the_diagnosis_keeps_the_verdict(dataset, tmp_path):
    settings = CheckSettings(dataset, Recipe(iterations=2), batch_size=4, out=tmp_path / "run", diagnose=True)
    result = run_overfit(settings, Watcher(control=lambda *_: signal.raise_signal(signal.SIGINT))).result
    assert result.interrupted
    assert (result.iterations, result.diagnosis) == (2, None)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["interrupted"] is True


def test_from_python_ctrl_c_is_raised_and_the_model_stays_usable(grids, tmp_path):
    from vaefit.vae import BetaVAE

    def press(record):
        if record.step == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    model = BetaVAE(10, 8, 8)
    try:
        with pytest.raises(KeyboardInterrupt):
            overfit(model, grids[:4], recipe=SHORT, on_step=press)
    finally:
        signal.signal(signal.SIGINT, before)
    assert overfit(model, grids[:4], recipe=Recipe(init=None, iterations=1)).history[0].step == 0


@pytest.mark.parametrize(
    ("run", "step", "ended"), [pytest.param(2, 5, 2, marks=pytest.mark.slow), (0, 5, 0), (1, 0, 1)]
)
def test_a_sweep_keeps_the_runs_that_ended(dataset, tmp_path, run, step, ended):
    """The first step of a run comes after its preparation, and Ctrl-C in that is no different from one in a step."""

    def begins(place, values, number):
        if (place, step) == (run, 0):
            signal.raise_signal(signal.SIGINT)
        return Watcher(step=lambda record: (place, record.step) == (run, step) and signal.raise_signal(signal.SIGINT))

    settings = CheckSettings(dataset, SHORT, batch_size=4)
    plan = Plan((Knob("seed", ("0",)),), (Setting(("0",), settings),), 4)
    outcome = run_sweep(plan, tmp_path / "sweep", begins=begins)
    assert outcome.interrupted
    assert len(outcome.runs) == ended
    assert outcome.difference == f"interrupted after {ended} of 4 runs: no option is compared"
    assert read_sweep(tmp_path / "sweep") == outcome
    results = [json.loads(file.read_text()) for file in sorted((tmp_path / "sweep").glob("*/result.json"))]
    assert [found["interrupted"] for found in results] == [False] * ended + [True] * (step > 0)


def test_the_command_and_the_date_are_kept(vaefit_cli, dataset, tmp_path):
    out = tmp_path / "a run"
    vaefit_cli("overfit", dataset, "--batch-size", "4", "--iterations", "1", "--out", out)
    config = json.loads((out / "config.json").read_text())
    assert config["command"] == f"vaefit-cli overfit {dataset} --batch-size 4 --iterations 1 --out '{out}'"
    page = Path(out, "report.html").read_text()
    assert config["date"] in page
    assert "--iterations 1 --out" in page
    assert config["versions"]["torch"] in page
