"""`vaefit-cli train`: what it prints, that every option does something, and what bad input is told."""

from __future__ import annotations

import hashlib
import json
import re

import h5py
import numpy as np
import pytest

SHORT = ("--batch-size", "30", "--epochs", "1", "--latent-dim", "3", "--threads", "1")
NUMBER, MAYBE = (int, float), (int, float, type(None))
RESULT = {
    "kind": str, "finished": bool, "iterations": int, "best_step": int, "best_epoch": int, "pixel_accuracy": NUMBER,
    "macro_accuracy": NUMBER, "worst_class_accuracy": NUMBER, "class_accuracy": list, "confusion": list, "skill": MAYBE,
    "background_share": NUMBER, "kl_dimensions": list, "active_dimensions": int, "history": list, "warnings": list,
    "dataset": dict, "weights": dict, "split": dict, "backend": str, "device": str, "seconds": NUMBER, "run_dir": str,
}  # fmt: skip

# each, after SHORT, must end in other weights of the model than the options on the right
KNOBS = {
    "--recipe adam": "",
    "--recipe soft": "--gamma 0",
    "--epochs 2": "",
    "--batch-size 20": "",
    "--limit 100": "",
    "--val-share 0.2": "",
    "--test-share 0.3": "",
    "--split-seed 1": "",
    "--augment rotate": "",
    "--augment flip": "--augment rotate",
    "--augment colours": "--augment flip",
    "--seed 1": "",
    "--weights none": "",
    "--scheme inverse": "",
    "--scheme inverse --smooth 100": "--scheme inverse",
    "--scheme balanced": "",
    "--scheme effective --effective-b 0.5": "--scheme effective",
    "--weights-power 0.5": "",
    "--gamma 1": "",
    "--reduction mean": "",
    "--beta 1": "",
    "--beta 1 --beta-warmup 1": "--beta 1",
    "--beta 1 --beta-cycles 2": "--beta 1",
    "--beta 1 --free-bits 1": "--beta 1",
    "--z sample": "",
    "--init kaiming": "",
    "--optimizer adam": "",
    "--lr 0.01": "",
    "--lr auto": "",
    "--betas 0.5,0.9": "",
    "--warmup 0 --epochs 4": "--epochs 4",
    "--lr-decay none": "",
    "--lr-decay isqrt": "--lr-decay none",
    "--lr-decay isqrt --decay-steps 50": "--lr-decay isqrt",
    "--clip 0.001": "",
    "--patience 1 --validate-every 1 --lr 1e-12": "--validate-every 1 --lr 1e-12",
    "--precision bfloat16": "",
    "--loader stream --window 40": "--loader memory",
    "--latent-dim 4": "",
    "--classes 12": "",
    "--ignore-index 3": "",
}
# these are seen elsewhere in the result, or in tests of their own
SEEN = (
    "--checkpoint-every", "--compile", "--workers", "--model", "--model-arg", "--cache-dir", "--device", "--backend",
    "--threads", "--out", "--overwrite", "--json", "--quiet", "--resume", "--weights-file", "--no-scan", "--help",
    "--optimiser", "--rank-timeout", "--verbose",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, grids, write_dataset):
    """A folder with a dataset of chunks."""
    folder = tmp_path_factory.mktemp("train")
    with h5py.File(folder / "grids.h5", "w") as handle:
        handle.create_dataset("grids", data=grids, chunks=(20, 8, 8), compression="gzip")
    return folder


@pytest.fixture(scope="module")
def train(vaefit_cli, place):
    """Train on the dataset, once for the same options; give the outcome and a digest of what came out."""
    known = {}

    def call(options=""):
        if options not in known:
            out = place / f"run{len(known)}"
            outcome = vaefit_cli("train", place / "grids.h5", *SHORT, *options.split(), "--out", out, "--json")
            assert outcome.code == 0, outcome.err
            weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
            known[options] = outcome, f"{weights} {outcome.json['iterations']}"
        return known[options]

    return call


def test_the_json_has_its_keys(train, place, grids):
    found = train()[0].json
    assert {key: type(found[key]) for key, kind in RESULT.items() if not isinstance(found[key], kind)} == {}
    assert found["split"] == {"train": 180, "val": 20, "test": 0}
    assert found["dataset"]["counts"] == np.bincount(grids.reshape(-1)).tolist()
    assert found == json.loads((place / "run0" / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("options", "against"), KNOBS.items())
def test_a_knob_changes_the_outcome(train, options, against):
    assert train(options)[1] != train(against)[1]


@pytest.mark.parametrize("options", ["--loader memory", "--workers 2", "--checkpoint-every 0", "--validate-every 3"])
def test_these_change_no_weights(train, options):
    if options == "--validate-every 3":  # the best of more validations may be another
        assert train(options)[0].json["history"][-1]["loss"] == train()[0].json["history"][-1]["loss"]
    else:
        assert train(options)[1] == train()[1]


def test_every_option_is_used_here(vaefit_cli):
    listed = re.findall(r"^  (-.+?)(?:  |$)", vaefit_cli("train", "--help").out, re.MULTILINE)
    options = {option for entry in listed for option in re.findall(r"--[a-z][a-z-]+", entry)}
    used = {word for line in KNOBS for word in line.split()} | set(SHORT) | set(SEEN)
    assert sorted(options - used) == []


def test_the_weights_are_those_of_the_check_from_the_same_cached_file(vaefit_cli, dataset, tmp_path):
    check = vaefit_cli(
        "overfit", dataset, "--batch-size", "4", "--iterations", "1", "--out", tmp_path / "check", "--json"
    ).json
    found = vaefit_cli("train", dataset, *SHORT, "--out", tmp_path / "run", "--json").json
    assert found["weights"]["values"] == check["weights"]["values"]
    assert found["dataset"]["cache_file"] == check["dataset"]["cache_file"] is not None
    assert found["dataset"]["source"] == "cache"


def test_datasets_named_after_the_splits_are_the_splits(vaefit_cli, write_dataset, tmp_path, grids):
    file = write_dataset(tmp_path / "splits.h5", train=grids[:120], val=grids[120:150], test=grids[150:])
    found = vaefit_cli("train", file, *SHORT, "--out", tmp_path / "run", "--json").json
    assert found["split"] == {"train": 120, "val": 30, "test": 50}
    assert found["dataset"]["counts"] == np.bincount(grids.reshape(-1)).tolist()
    assert np.array(found["confusion"]).sum() == 30 * 64
    check = vaefit_cli(
        "overfit", file, "--batch-size", "4", "--iterations", "1", "--out", tmp_path / "check", "--json"
    ).json
    assert check["weights"]["values"] == found["weights"]["values"]


def test_people_are_told_what_is_trained(vaefit_cli, dataset, tmp_path):
    outcome = vaefit_cli("train", dataset, *SHORT, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "180 grids to train on, 20 to validate" in outcome.out
    assert "agrees with the float64 reference" in outcome.out


def test_without_weights_it_warns(vaefit_cli, dataset, tmp_path):
    outcome = vaefit_cli("train", dataset, *SHORT, "--weights", "none", "--out", tmp_path / "run")
    assert "class weights are off" in outcome.err


def test_a_run_that_diverges_is_exit_1_and_says_so(vaefit_cli, dataset, tmp_path):
    options = ("--recipe", "adam", "--lr", "1e30", "--clip", "0", "--warmup", "0")
    outcome = vaefit_cli("train", dataset, *SHORT, *options, "--out", tmp_path / "run", "--json")
    assert outcome.code == 1
    assert not outcome.json["finished"]
    assert "at update" in outcome.json["diverged"]


@pytest.mark.parametrize(
    ("options", "code", "where", "words"),
    [
        ("--batch-size 181", 2, "--batch-size", "larger than the split, which has 180 grids"),
        ("--val-share 0", 2, "--val-share", "no grid to validate on"),
        ("--val-share 0.001", 2, "--val-share", "no grid to validate on"),
        ("--val-share 1", 2, "--val-share", "cannot be used"),
        ("--val-share 0.6 --test-share 0.4", 2, "--val-share", "no grid left to train on"),
        ("--limit 0", 2, "--limit", "cannot be used"),
        ("--beta-warmup 1", 2, "--beta", "cannot be used"),
        ("--beta 1 --beta-cycles 4", 2, "--beta-cycles", "cannot be used"),
        ("--epochs 0", 2, "--epochs", "cannot be used"),
        ("--augment turn", 2, "--augment", "no such augmentation"),
        ("--weights batch", 2, "--weights", "cannot be used"),
        ("--recipe classic", 2, "--recipe", "cannot be used"),
        ("--precision float16", 2, "--precision", "cannot be used"),
        ("--beta-warmup 1 --beta-cycles 1", 2, "--beta-warmup", "cannot be used"),
        ("--beta-cycles x", 2, "", "valid integer"),
        ("--device cuda", 3, "--device", "no CUDA device"),
        ("--backend triton", 3, "--backend", "cannot run"),
        ("--classes 4", 3, "", "outside the 4 classes"),
    ],
)
def test_bad_input_is_one_clear_error(vaefit_cli, place, tmp_path, options, code, where, words):
    out = tmp_path / "run"
    outcome = vaefit_cli("train", place / "grids.h5", *SHORT, *options.split(), "--out", out, "--json")
    assert outcome.code == code, outcome.out
    error = outcome.json["error"]
    assert words in error["what"]
    assert where in error["where"]
    assert not out.exists()


def test_a_scan_can_be_forbidden(vaefit_cli, dataset, tmp_path):
    outcome = vaefit_cli("train", dataset, *SHORT, "--no-scan", "--out", tmp_path / "run", "--json")
    assert outcome.code == 3
    assert "a scan was not allowed" in outcome.json["error"]["what"]


def test_a_folder_that_holds_something_is_not_overwritten(vaefit_cli, dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    outcome = vaefit_cli("train", dataset, *SHORT, "--out", tmp_path / "run", "--json")
    assert (outcome.code, outcome.json["error"]["what"]) == (3, "the run folder is not empty")
    assert vaefit_cli("train", dataset, *SHORT, "--out", tmp_path / "run", "--overwrite").code == 0
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"


def test_a_resumed_run_keeps_its_settings(vaefit_cli, dataset, tmp_path):
    out = tmp_path / "run"
    first = vaefit_cli("train", dataset, *SHORT, "--gamma", "1", "--out", out, "--json").json
    again = vaefit_cli("train", "--resume", out, "--json")
    assert (again.code, again.json["history"]) == (0, first["history"])
    assert vaefit_cli("train", dataset, "--resume", out, "--gamma", "1", "--workers", "2", "-q").code == 0
    for option, value, before in (("--gamma", "2", "1.0"), ("--epochs", "3", "1"), ("--lr", "1", "0.002")):
        refused = vaefit_cli("train", "--resume", out, option, value, "--json")
        assert refused.code == 2
        assert refused.json["error"]["where"] == option
        assert f"begun with {before}" in refused.json["error"]["got"]


@pytest.mark.parametrize(("content", "what"), [(None, "no such run folder"), ("{", "not whole JSON")])
def test_what_cannot_be_resumed(vaefit_cli, tmp_path, content, what):
    folder = tmp_path / "run"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    outcome = vaefit_cli("train", "--resume", folder, "--json")
    assert outcome.code == 3
    assert what in outcome.json["error"]["what"]


def test_a_model_of_ones_own_trains_and_goes_on(vaefit_cli, dataset, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class Own(nn.Module):\n"
        "    def __init__(self, num_classes, width=8):\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Conv2d(num_classes, width, 3, padding=1), nn.Dropout(0.1),\n"
        "                                 nn.Conv2d(width, num_classes, 1))\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
    )
    model = ("--model", f"{tmp_path}/own.py:Own", "--model-arg", "width=4")
    outcome = vaefit_cli("train", dataset, *SHORT[:4], *model, "--out", tmp_path / "run", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["kl_dimensions"] is None
    assert outcome.json["lr_reason"].startswith(f"{outcome.json['lr']:g} of 6 rates")
    again = vaefit_cli("train", "--resume", tmp_path / "run", "--json")
    assert again.json["history"] == outcome.json["history"]
