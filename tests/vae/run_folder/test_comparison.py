"""`vaefit-cli show` and `compare` where runs are of training, or of both kinds."""

from __future__ import annotations

import json
import shutil

import pytest

CHECK = ("--batch-size", "4", "--iterations", "3")
TRAIN = ("--batch-size", "16", "--epochs", "1", "--validate-every", "4", "--threads", "1")


@pytest.fixture(scope="module")
def runs(vaefit_cli, tmp_path_factory, grids, write_dataset):
    """Run folders by name, and what their commands printed."""
    folder = tmp_path_factory.mktemp("compare")
    data = write_dataset(folder / "grids.h5", grids=grids)
    made = {
        "check": ("overfit", *CHECK),
        "train": ("train", *TRAIN),
        "again": ("train", *TRAIN),
        "slow": ("train", *TRAIN, "--lr", "1e-5"),
        "plain": ("train", *TRAIN, "--weights", "none", "--gamma", "0", "--beta", "0.1", "--beta-warmup", "1"),
        "mean": ("train", *TRAIN, "--reduction", "mean"),
        "bits": ("train", *TRAIN, "--free-bits", "0.5"),
    }
    printed = {name: vaefit_cli(a[0], data, *a[1:], "--out", folder / name) for name, a in made.items()}
    assert all(done.code in (0, 1) for done in printed.values())
    return folder, printed


@pytest.fixture
def compared(runs, vaefit_cli):
    """Return what `compare --json` says of two runs by their names."""
    folder, _ = runs
    return lambda first, second: vaefit_cli("compare", folder / first, folder / second, "--json").json


@pytest.mark.parametrize("name", ["train", "plain"])
def test_show_prints_what_train_printed(runs, vaefit_cli, name):
    folder, printed = runs
    outcome = vaefit_cli("show", folder / name)
    assert (outcome.code, outcome.out, outcome.err) == (0, printed[name].out, "")
    assert printed[name].out.splitlines()[-1].startswith(f"run   {folder / name}: report.html, ")
    found = vaefit_cli("show", folder / name, "--json").json
    assert found == json.loads((folder / name / "result.json").read_text())


def test_a_training_run_that_was_not_finished(runs, vaefit_cli, tmp_path):
    folder, _ = runs
    place = tmp_path / "killed"
    shutil.copytree(folder / "train", place)
    (place / "result.json").unlink()
    for command in (("show", place), ("compare", folder / "train", place)):
        outcome = vaefit_cli(*command)
        assert outcome.code == 3
        assert "metrics.csv of 4 validations, newest checkpoint of update 11" in outcome.err
        assert f"`vaefit-cli train --resume {place}`" in outcome.err
    shutil.rmtree(place / "checkpoints")
    (place / "metrics.csv").unlink()
    outcome = vaefit_cli("show", place, "--json")
    assert outcome.json["error"]["got"] == "metrics.csv of 0 validations, no checkpoint yet"


def test_a_training_result_that_was_changed(runs, vaefit_cli, tmp_path):
    folder, _ = runs
    shutil.copytree(folder / "train", tmp_path / "run")
    file = tmp_path / "run" / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "best_step": "five"}))
    outcome = vaefit_cli("show", tmp_path / "run")
    assert outcome.code == 3
    assert "$.best_step" in outcome.err


def test_a_check_and_its_training_have_the_same_objective(compared, runs):
    found = compared("check", "train")
    assert found["same_objective"] is True
    assert all(left == right for left, right in found["objective"].values())
    folder, _ = runs
    stored = [
        json.loads((folder / name / "result.json").read_text())["weights"]["values"] for name in ("check", "train")
    ]
    assert found["objective"]["weights"] == stored
    assert (found["kinds"], found["same_weights"], found["same_data"]) == (["overfit", "train"], True, True)
    assert (found["same_batch"], found["batch"], found["first_different_step"]) == (None, None, None)
    assert set(found["settings"]) == {"batch-size", "warmup", "lr-decay", "threads"}
    own = found["own_settings"]
    assert {"batch-seed", "iterations", "target"} <= own[0].keys()
    assert {"epochs", "limit", "val-share"} <= own[1].keys()
    assert not own[0].keys() & own[1].keys()
    assert not {"verdict", "retrieval", "loss"} & found["results"].keys()
    assert found["results"]["iterations"] == [3, 11]
    assert "steps" not in found["environment"]
    other = compared("train", "check")
    assert other["own_settings"] == own[::-1]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("slow", set()),
        ("bits", set()),  # beta is 0
        ("plain", {"weights", "source", "scheme", "gamma", "beta"}),
        ("mean", {"reduction"}),
    ],
)
@pytest.mark.parametrize("other", ["check", "train"])
def test_the_parts_of_the_objective_that_differ(compared, other, name, parts):
    found = compared(other, name)
    assert {part for part, (left, right) in found["objective"].items() if left != right} == parts
    assert found["same_objective"] is not bool(parts)


def test_a_weight_that_differs_in_its_last_bit(compared, runs, tmp_path, vaefit_cli):
    folder, _ = runs
    shutil.copytree(folder / "train", tmp_path / "run")
    file = tmp_path / "run" / "result.json"
    result = json.loads(file.read_text())
    result["weights"]["values"][3] *= 1 + 2**-52
    file.write_text(json.dumps(result))
    found = vaefit_cli("compare", folder / "train", tmp_path / "run", "--json").json
    assert (found["same_objective"], found["same_weights"]) == (False, False)


def test_two_training_runs_are_compared_row_by_row(compared):
    same = compared("train", "again")
    assert (same["settings"], same["first_different_step"], same["own_settings"]) == ({}, None, [{}, {}])
    assert all(left == right for name, (left, right) in same["results"].items() if name != "seconds")
    slow = compared("train", "slow")
    assert (set(slow["settings"]), slow["first_different_step"]) == ({"lr"}, 4)
    assert {"loss", "best_step", "active_dimensions"} <= slow["results"].keys()


def test_compare_for_people_begins_with_the_objective(runs, vaefit_cli):
    folder, _ = runs
    lines = vaefit_cli("compare", folder / "check", folder / "train").out.splitlines()
    assert lines[0].startswith("objective  the same: loss focal, weights (bytes equal), source global, scheme sqrt")
    assert not [line for line in lines if line.startswith(("batch ", "metrics"))]
    only = [line for line in lines if line.startswith("only ")]
    assert [line.split()[1] for line in only] == ["overfit", "train"]
    first = vaefit_cli("compare", folder / "check", folder / "plain").out.splitlines()[0]
    parts = ("different: weights (global sqrt_inverse, ratio", "gamma (2 | 0)", "beta (0 | beta 0.1, beta-warmup 1)")
    for part in (*parts, "the same: loss focal, reduction batch"):
        assert part in first
