"""`vaefit-cli overfit --from RUN`: can the settings of a run memorise?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TRAINED = {
    "gamma": 1.5, "reduction": "mean", "scheme": "inverse", "optimizer": "adam", "lr": 0.004, "betas": [0.8, 0.9],
    "clip": 0.5, "z": "sample", "beta": 0.3, "free_bits": 0.1, "init": "kaiming", "smooth": 2.0,
}  # fmt: skip
SHORT = ("--iterations", "2", "--batch-size", "4")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, vaefit_cli: Callable[..., Any], grids: Any, write_dataset: Any
) -> Path:
    """A folder with the data, a training run with settings of its own, and a check."""
    folder = tmp_path_factory.mktemp("from")
    data = write_dataset(folder / "grids.h5", grids=grids)
    options = [
        word
        for name, value in TRAINED.items()
        for word in (f"--{name.replace('_', '-')}", ",".join(map(str, value)) if name == "betas" else value)
    ]
    train = ("--epochs", "1", "--batch-size", "32", "--latent-dim", "6", "--classes", "11", "--ignore-index", "3")
    more = ("--beta-warmup", "0.5", "--warmup", "90", "--augment", "flip")
    assert vaefit_cli("train", data, *options, *train, *more, "--out", folder / "run", "--quiet").code == 0
    vaefit_cli(
        "overfit", data, "--indices", "3,5,7", "--beta-ramp", "0,1,1", "--z", "sample", "--seed", "4",
        "--iterations", "6", "--out", folder / "check", "--quiet",
    )  # fmt: skip
    return folder


@pytest.fixture
def overfit(place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run `overfit --from` a run in `place`; give the outcome, and what its config.json holds."""

    def call(run: str | Path, *arguments: str | Path) -> tuple[Any, dict[str, Any]]:
        out = tmp_path / "out"
        done = vaefit_cli("overfit", "--from", place / run, *arguments, "--out", out, "--overwrite", "--json")
        file = out / "config.json"
        return done, json.loads(file.read_text()) if file.exists() else {}

    return call


def test_every_setting_is_that_of_the_training_run(place: Path, overfit: Callable[..., Any]) -> None:
    done, config = overfit("run", *SHORT)
    recipe, settings = config["recipe"], config["settings"]
    assert {name: recipe[name] for name in TRAINED} == TRAINED
    assert (recipe["beta_ramp"], recipe["lr_decay"], recipe["stop_when"], recipe["warmup"]) == (
        None,
        "cosine",
        "exact",
        0,
    )
    assert (recipe["iterations"], recipe["resample"]) == (2, False)
    assert [settings[name] for name in ("latent_dim", "classes", "ignore_index")] == [6, 11, 3]
    assert settings["data"] == str(place / "grids.h5")
    assert done.json["iterations"] == 2
    assert f"--from {place / 'run'}, a training run: data {place / 'grids.h5'}" in done.err
    assert "--augment flip is left out" in done.err
    assert "given here: --batch-size, --iterations" in done.err


def test_the_check_keeps_its_own_batch_and_updates(overfit: Callable[..., Any]) -> None:
    done, config = overfit("run", "--lr", "1e300")  # which ends it at once
    assert config["settings"]["batch_size"] == 32
    assert (config["recipe"]["iterations"], config["recipe"]["warmup"]) == (500, 25)
    assert "warm-up 25 instead of 90" in done.err


def test_the_weights_are_those_of_the_training_run(place: Path, overfit: Callable[..., Any]) -> None:
    cached = place / "grids.h5.vaefit.json"
    before = json.loads(cached.read_bytes())["labels"]
    done, _ = overfit("run", *SHORT, "--no-scan")
    trained = json.loads((place / "run" / "config.json").read_text())["weights"]
    assert np.array(done.json["weights"]["values"]).tobytes() == np.array(trained).tobytes()
    assert done.json["dataset"]["source"] == "cache"
    assert json.loads(cached.read_bytes())["labels"] == before


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("--lr 0.01 --gamma 2", {"lr": 0.01, "gamma": 2.0, "optimizer": "adam"}),
        ("--warmup 90 --lr-decay none", {"warmup": 90, "lr_decay": "none"}),
        ("--scheme balanced", {"scheme": "balanced", "weights": "global"}),
        ("--weights none", {"weights": "none", "gamma": 1.5}),
        ("--beta 0", {"beta": 0.0, "z": "sample"}),
        ("--resample", {"resample": True}),
        ("--latent-dim 9 --classes 12 --seed 3", {"latent_dim": 9, "classes": 12, "seed": 3}),
        ("--batch-size 5", {"batch_size": 5}),
    ],
)
def test_what_is_typed_wins(overfit: Callable[..., Any], typed: str, found: dict[str, Any]) -> None:
    done, config = overfit("run", *SHORT, *typed.split())
    everything = {**config["recipe"], **config["settings"]}
    assert {name: everything[name] for name in found} == found
    assert typed.split()[0] in done.err.partition("given here: ")[2]


def test_other_data(overfit: Callable[..., Any], write_dataset: Any, grids: Any, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other.h5", grids=grids[:40])
    assert overfit("run", other, *SHORT)[0].json["dataset"]["grids"] == 40


def test_a_check_is_made_again(place: Path, overfit: Callable[..., Any], tmp_path: Path) -> None:
    done, _ = overfit("check")
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == (place / "check" / "metrics.csv").read_bytes()
    assert ", a check: every setting that changes a number is taken from it" in done.err
    _, config = overfit("check", "--beta", "0.2", "--batch-size", "4")
    assert (config["recipe"]["beta"], config["recipe"]["beta_ramp"], config["settings"]["indices"]) == (0.2, None, None)


def test_a_rate_that_was_found_is_taken(place: Path, overfit: Callable[..., Any], tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["lr"] = "auto"
    (run / "config.json").write_text(json.dumps(config))
    assert overfit(run, *SHORT)[0].json["lr"] == 0.004


def test_a_sweep_over_runs(place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path) -> None:
    done = vaefit_cli(
        "sweep", "--vary", f"from={place / 'run'},{place / 'check'}", *SHORT, "--seeds", "1",
        "--out", tmp_path / "sweep", "--json",
    )  # fmt: skip
    assert done.code == 0
    configs = [json.loads(file.read_text()) for file in sorted((tmp_path / "sweep").rglob("config.json"))]
    assert {config["recipe"]["gamma"] for config in configs} == {1.5, 2.0}


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("run", "--recipe", "default"), 2, "--from and --recipe both say"),
        (("run", "--weights", "none", "--weights-file", "w.json"), 2, "--weights and --weights-file"),
        (("run", "--lr", "0"), 2, "the value cannot be used"),
        (("nowhere",), 3, "there is no such run folder"),
        ((".",), 3, "this is not the folder of a run"),
    ],
)
def test_one_clear_error(overfit: Callable[..., Any], arguments: tuple[str, ...], code: int, what: str) -> None:
    done, config = overfit(*arguments)
    assert (done.code, config, "Traceback" in done.err) == (code, {}, False)
    assert what in done.json["error"]["what"]
