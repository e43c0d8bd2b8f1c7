"""Tests of the legacy entry point `train_vae.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "train_vae.py"

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def train_vae(tmp_path: Path) -> RunScript:
    """Run `python train_vae.py` in a folder of its own."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_overfit_batch_is_the_check(train_vae: RunScript, dataset: Path, tmp_path: Path) -> None:
    done = train_vae("--overfit-batch", dataset, "--json", "--iterations", "2", "--out", tmp_path / "run")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert not found["passed"]
    assert found["iterations"] == 2
    assert found["weights"]["source"] == "global"
    assert (tmp_path / "run" / "reconstructions.png").exists()


@pytest.mark.slow
def test_weights_can_be_turned_off_with_a_warning(train_vae: RunScript, dataset: Path) -> None:
    done = train_vae("--overfit-batch", dataset, "--no-class-weights", "--json", "--iterations", "1")
    assert json.loads(done.stdout)["weights"]["source"] == "none"
    assert "class weights are off" in done.stderr


@pytest.mark.slow
def test_cached_weights_are_used_or_missed_aloud(train_vae: RunScript, dataset: Path) -> None:
    arguments = ("--overfit-batch", dataset, "--use-cached-weights", "--json", "--iterations", "1")
    missed = train_vae(*arguments)
    assert missed.returncode == 3
    assert "a scan was not allowed" in json.loads(missed.stdout)["error"]["what"]
    train_vae("--overfit-batch", dataset, "--iterations", "1")
    assert json.loads(train_vae(*arguments).stdout)["dataset"]["source"] == "cache"


def test_without_overfit_batch_it_trains(train_vae: RunScript, dataset: Path, tmp_path: Path) -> None:
    done = train_vae(dataset, "--epochs", "1", "--batch-size", "60", "--json", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iterations"] == 3
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_quick_test_is_one_epoch_of_2000_grids(train_vae: RunScript) -> None:
    done = train_vae("--quick-test", "--latent-dim", "2", "--json")
    found = json.loads(done.stdout)
    assert (found["epochs"], sum(found["split"].values()), found["dataset"]["grids"]) == (1, 2000, 80_000)


def test_a_quick_test_of_the_check_is_refused(train_vae: RunScript) -> None:
    done = train_vae("--overfit-batch", "--quick-test")
    assert done.returncode == 2
    assert "--quick-test is for training" in done.stderr
