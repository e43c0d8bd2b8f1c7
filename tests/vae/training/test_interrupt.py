"""A run that is asked to stop leaves a checkpoint, and says how to go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_exit_130(dataset, tmp_path, number):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "vaefit.cli", "train", str(dataset), "--out", str(folder), "--epochs", "100000"]
    started = subprocess.Popen(
        [*command, "--batch-size", "20", "--latent-dim", "3", "--threads", "1", "--json", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(folder / "steps.csv", started)
    started.send_signal(number)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    error = json.loads(out)["error"]  # one object, and no other
    assert error["do"] == f"Go on with `vaefit-cli train --resume {folder}`."
    assert err == ""
    kept = max((folder / "checkpoints").iterdir())
    last = int(kept.name[5:14])
    rows = (folder / "steps.csv").read_text().splitlines()
    assert last >= int(rows[-1].split(",")[0]) > 0


def wait_for(file: Path, process):
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text().count("\n") > 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
