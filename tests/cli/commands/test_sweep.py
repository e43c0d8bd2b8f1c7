"""`vaefit-cli sweep`: the grid it runs, what it leaves, and which knob it names."""

from __future__ import annotations

import csv
import json
import signal
import statistics
import subprocess
import sys
import time
from itertools import product

import numpy as np
import pytest
from PIL import Image

from vaefit.vae.sweep.knob_effects import SEEDS, TOGETHER, effects

SHORT = ("--batch-size", "4", "--iterations", "3")


@pytest.fixture(scope="module")
def swept(vaefit_cli, tmp_path_factory, grids, write_dataset):
    """A sweep over two knobs: its outcome, its folder and the dataset."""
    folder = tmp_path_factory.mktemp("sweep")
    data = write_dataset(folder / "grids.h5", grids=grids)
    knobs = ("--vary", "lr=0.002,1e-9", "--vary", "weights=none,global")
    outcome = vaefit_cli(
        "sweep",
        data,
        "--batch-size",
        "4",
        "--iterations",
        "60",
        *knobs,
        "--seeds",
        "2",
        "--out",
        folder / "s",
        "--json",
    )
    assert outcome.code == 0, outcome.err
    return outcome.json, folder / "s", data


def rows(folder):
    with (folder / "sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_combination_is_run_on_the_same_seeds(swept):
    found, folder, _ = swept
    combinations = [list(values) for values in product(("0.002", "1e-9"), ("none", "global"))]
    assert [setting["values"] for setting in found["settings"]] == combinations
    assert [run["values"] for run in found["runs"]] == [values for values in combinations for _ in range(2)]
    assert [(run["seed"], run["batch_seed"]) for run in found["runs"]] == [(0, 0), (1, 1)] * 4
    assert [(row["--lr"], row["--weights"]) for row in rows(folder)] == [tuple(run["values"]) for run in found["runs"]]


def test_a_run_is_the_run_of_overfit(swept, vaefit_cli, tmp_path):
    found, folder, data = swept
    run = found["runs"][3]
    options = ("--batch-size", "4", "--iterations", "60", "--lr", "0.002", "--weights", "global")
    alone = vaefit_cli(
        "overfit", data, *options, "--seed", "1", "--batch-seed", "1", "--out", tmp_path / "r", "--json"
    ).json
    assert (folder / run["folder"] / "metrics.csv").read_bytes() == (tmp_path / "r" / "metrics.csv").read_bytes()
    assert (run["verdict"], run["iterations"], run["exact"]) == (
        alone["verdict"],
        alone["iterations"],
        alone["reached"]["exact"],
    )


def test_medians_and_spread(swept):
    found, folder, _ = swept
    for setting, pair in zip(found["settings"], zip(*[iter(found["runs"])] * 2, strict=True), strict=True):
        assert setting["memorised"] == sum(run["verdict"] == "MEMORISED" for run in pair)
        for name in ("pixel_95", "worst_class_95", "exact"):
            steps = [float("inf") if run[name] is None else run[name] for run in pair]
            expected = (statistics.median(steps), min(steps), max(steps))
            shown = [float("inf") if setting[name][k] is None else setting[name][k] for k in ("median", "low", "high")]
            assert tuple(shown) == expected
    assert json.loads((folder / "sweep.json").read_text()) == found


def test_it_names_the_knob_that_made_the_difference(swept):
    found, _, _ = swept
    assert found["settings"][0]["memorised"] == 2, "the example must be one that works"
    assert found["effects"][0]["source"] == "lr"
    assert found["difference"].startswith("lr made the difference, ")
    assert sum(effect["share"] for effect in found["effects"]) == pytest.approx(1)
    assert " times chance: MEMORISED 4/4 with 0.002, 0/4 with 1e-9" in found["difference"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--vary", "lr=0.002"), "no knob was varied"),
        ((), "no knob was varied"),
        (
            ("--vary", "lr=0.002,1e-9", "--seeds", "1"),
            "one run a value cannot be told from chance, try --seeds 3: skill",
        ),
    ],
)
def test_what_cannot_be_told_is_not_said(vaefit_cli, dataset, tmp_path, options, sentence):
    outcome = vaefit_cli("sweep", dataset, *SHORT, "--seeds", "2", *options, "--out", tmp_path / "s", "--json")
    assert outcome.json["difference"].startswith(sentence)


def test_the_picture_and_the_run_folders(swept):
    found, folder, _ = swept
    with Image.open(folder / "sweep.png") as picture:
        picture.load()
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 3
    for run in found["runs"]:
        assert (folder / run["folder"] / "result.json").is_file()


def test_the_table_and_show_print_the_same(swept, vaefit_cli, tmp_path):
    _, folder, data = swept
    outcome = vaefit_cli(
        "sweep", data, *SHORT, "--vary", "gamma=0,2", "--seeds", "1", "--out", tmp_path / "s", "--quiet"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "gamma" in outcome.out
    assert "0/1" in outcome.out
    assert vaefit_cli("show", tmp_path / "s").out == outcome.out
    assert vaefit_cli("show", folder, "--json").json == json.loads((folder / "sweep.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vary", "values"),
    [
        ("betas=0.9,0.95;0.9,0.999", [["0.9,0.95"], ["0.9,0.999"]]),
        ("indices=1,2,3", [["1,2,3"]]),
        ("resample=true,false", [["true"], ["false"]]),
        ("allow-duplicates=false,true", [["false"], ["true"]]),
        ("--seed=5,6", [["5"], ["6"]]),
    ],
)
def test_values_of_every_kind(vaefit_cli, dataset, tmp_path, vary, values):
    found = vaefit_cli("sweep", dataset, *SHORT, "--vary", vary, "--seeds", "1", "--out", tmp_path / "s", "--json").json
    assert [setting["values"] for setting in found["settings"]] == values


@pytest.mark.slow
def test_data_is_a_knob_too_and_a_varied_seed_is_not_raised(vaefit_cli, dataset, tmp_path):
    arguments = ("--vary", f"data={dataset}", "--vary", "batch-seed=7,9", "--seeds", "2", "--out", tmp_path / "s")
    found = vaefit_cli("sweep", *SHORT, *arguments, "--json").json
    assert [(run["seed"], run["batch_seed"]) for run in found["runs"]] == [(0, 7), (1, 7), (0, 9), (1, 9)]


@pytest.mark.parametrize(
    ("arguments", "wording"),
    [
        (("--vary", "lr=0.1,abc"), "--lr: 'abc' is not a number, nor auto"),
        (("--vary", "lr=0.1,-1"), "a finite number > 0"),
        (("--vary", "speed=1"), "no option --speed"),
        (("--vary", "out=a,b"), "no option --out"),
        (("--vary", "lr"), "'lr' is not OPTION=V1,V2"),
        (("--vary", "lr=1,1"), "empty value, or one twice"),
        (("--vary", "lr=1", "--vary", "lr=2"), "varied twice"),
        (("--vary", "resample=yes"), "use true and false"),
        (("--seeds", "0"), "1 to 10000"),
        (("--speed", "3"), "--speed"),
        (("--lr",), "'--lr' requires an argument"),
    ],
)
def test_a_wrong_command_line_runs_nothing(vaefit_cli, dataset, tmp_path, arguments, wording):
    outcome = vaefit_cli("sweep", dataset, "--out", tmp_path / "s", *arguments)
    assert outcome.code == 2
    assert wording in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "vary", ["data=grids.h5,none.h5", "weights-file=none.json", "batch-seed=0,9223372036854775808"]
)
def test_a_wrong_name_ends_no_sweep_half_way(vaefit_cli, dataset, tmp_path, monkeypatch, vary):
    monkeypatch.chdir(dataset.parent)
    data = () if vary.startswith("data") else ("grids.h5",)
    outcome = vaefit_cli("sweep", *data, *SHORT, "--vary", vary, "--out", tmp_path / "s")
    assert outcome.code in (2, 3)
    assert not (tmp_path / "s").exists()


def test_seeds_that_rise_too_high_run_nothing(vaefit_cli, dataset, tmp_path):
    outcome = vaefit_cli("sweep", dataset, "--batch-seed", str(2**63 - 1), "--seeds", "2", "--out", tmp_path / "s")
    assert outcome.code == 2
    assert not (tmp_path / "s").exists()


def test_a_folder_in_use_is_not_touched(vaefit_cli, dataset, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine.txt").write_text("mine")
    arguments = ("sweep", dataset, *SHORT, "--seeds", "1", "--out", tmp_path / "s")
    outcome = vaefit_cli(*arguments)
    assert outcome.code == 3
    assert "not empty" in outcome.err
    assert vaefit_cli(*arguments, "--overwrite").code == 0
    assert (tmp_path / "s" / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_ctrl_c_keeps_the_runs_that_ended(dataset, tmp_path):
    folder = tmp_path / "s"
    # a shell in the background makes its children deaf to Ctrl-C
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    main = f"{hear}; from vaefit.cli import main; main()"
    command = [sys.executable, "-c", main, "sweep", str(dataset), *SHORT, "--seeds", "500", "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        patience = time.monotonic() + 60
        while not (folder / "sweep.csv").exists() or len(rows(folder)) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert 2 <= len(rows(folder)) < 500
    found = json.loads((folder / "sweep.json").read_text())
    assert found["interrupted"] is True
    assert len(found["runs"]) == len(rows(folder))
    assert f"interrupted after {len(rows(folder))} of 500 runs" in out


def test_effects_split_the_variance_of_ranks():
    values, numbers = zip(*product(product("ab", "xy"), range(3)), strict=True)
    by_knob = effects([(float(v[0] == "b"),) for v in values], values, numbers, ["first", "second"])
    assert [(e.source, round(e.share, 9)) for e in by_knob[:1]] == [("first", 1.0)]
    by_seed = effects([(float(n),) for n in numbers], values, numbers, ["first", "second"])
    assert (by_seed[0].source, round(by_seed[0].share, 9)) == (SEEDS, 1.0)
    together = effects([(float((v[0] == "b") != (v[1] == "y")),) for v in values], values, numbers, ["first", "second"])
    assert (together[0].source, round(together[0].share, 9)) == (TOGETHER, 1.0)
    assert effects([(1.0,)] * 12, values, numbers, ["first", "second"]) == ()


def test_effects_hold_against_a_textbook_analysis_of_variance():
    rng = np.random.default_rng(3)
    values, numbers = zip(*product(product("abc", "xy"), range(4)), strict=True)
    scores = rng.permutation(24).astype(float)
    grid = scores.reshape(3, 2, 4)
    total = ((grid - grid.mean()) ** 2).sum()
    first = 8 * ((grid.mean(axis=(1, 2)) - grid.mean()) ** 2).sum()
    second = 12 * ((grid.mean(axis=(0, 2)) - grid.mean()) ** 2).sum()
    seeds = 6 * ((grid.mean(axis=(0, 1)) - grid.mean()) ** 2).sum()
    rest = total - first - second - seeds
    found = {e.source: e for e in effects([(s,) for s in scores], values, numbers, ["first", "second"])}
    assert found["first"].share == pytest.approx(first / total)
    assert found["second"].share == pytest.approx(second / total)
    assert found[SEEDS].share == pytest.approx(seeds / total)
    assert found["first"].ratio == pytest.approx((first / 2) / (rest / (23 - 2 - 1 - 3)))


RAISING = """
from torch import nn

class Healthy(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(num_classes, num_classes, 1), 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 3:  # the first is before the first update
            self.fail()
        return self.conv(x)

    def fail(self):
        pass

class Key(Healthy):
    def fail(self):
        raise KeyError("mask")

class Nan(Healthy):
    def fail(self):
        raise ValueError("nan in mu")
"""


def test_a_run_in_which_the_model_raises_is_a_row_and_the_others_are_made(vaefit_cli, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(RAISING)
    models = ("--vary", "model=net.py:Key,net.py:Healthy,net.py:Nan", "--seeds", "1", "--lr", "0.01", *SHORT)
    outcome = vaefit_cli("sweep", dataset, *models, "--out", "s", "--json")
    assert outcome.code == 0, outcome.err
    key, healthy, nan = outcome.json["runs"]
    assert [run["verdict"] for run in (key, healthy, nan)] == ["ERROR", "LEARNING", "DIVERGED"]
    assert "the model raised KeyError (\"'mask'\") at update 2, rate 0.01, in net.py line 20" in key["error"]
    assert (key["worst_class_accuracy"], healthy["error"]) == (None, None)
    assert [row["verdict"] for row in rows(tmp_path / "s")] == ["ERROR", "LEARNING", "DIVERGED"]
    again = vaefit_cli("show", "s")
    assert again.code == 0
    assert "the model raised KeyError" in again.out

    alone = vaefit_cli("sweep", dataset, *models[:1], "model=net.py:Key,net.py:Nosuch", *models[2:], "--out", "t")
    assert alone.code == 3
    assert "the model raised KeyError" in alone.err
    assert not (tmp_path / "t" / "sweep.csv").exists()
