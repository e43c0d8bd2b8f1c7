"""Tests that the examples run as scripts and print the promised warnings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path) -> str:
    """Run an example in an empty folder on one thread; return its output."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def test_every_example_is_run_here() -> None:
    networks = {"transformer.py", "unet.py"}  # in test_models.py
    assert {path.name for path in EXAMPLES.glob("*.py")} - networks == {
        "train_with_monitor.py",
        "lightning_callback.py",
    }


def test_train_with_monitor(tmp_path: Path) -> None:
    printed = run("train_with_monitor.py", tmp_path)
    mishap = re.search(r"step (\d+): the weight of class 2 is 0 from now on", printed)
    warnings = re.findall(r"^WARNING step (\d+): class (\d) died: its recall was 0\.\d\d and is 0\.0", printed, re.M)
    assert mishap is not None
    (step,) = (int(step) for step, label in warnings if label == "2")
    assert int(mishap[1]) < step <= int(mishap[1]) + 20


def test_lightning_callback(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    printed = run("lightning_callback.py", tmp_path)
    warning = re.search(r"^WARNING step (\d+): (class \d died|the output does not depend)", printed, re.M)
    assert warning is not None
    assert 180 < int(warning[1]) <= 200
    assert f"stopped after {warning[1]} of 240 steps" in printed
