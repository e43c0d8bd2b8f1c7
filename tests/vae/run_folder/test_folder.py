"""The run folder under rivals, full disks and readers that go away."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.vae.data.hdf5_writer import write_grids
from vaefit.vae.errors import RunError
from vaefit.vae.run_folder.overfit_folder import OverfitFolder


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: OverfitFolder.claim(None, overwrite=False).path, range(24)))
    assert len(set(paths)) == 24
    assert all(path.is_dir() for path in paths)


def test_a_folder_that_was_given_up_is_gone_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = OverfitFolder.claim(None, overwrite=False)
    second = OverfitFolder.claim(None, overwrite=False)
    second.release()
    assert first.path.is_dir()
    assert not second.path.exists()
    first.release()
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    OverfitFolder.claim(tmp_path / "mine", overwrite=False).release()
    assert (tmp_path / "mine").is_dir()


def test_a_full_disk_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "grids.h5"
    old, new = (np.full((3, 8, 8), label, dtype=np.uint8) for label in (1, 2))
    write_grids(file, old, 10, "test")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(RunError, match="No space left") as caught:
        write_grids(file, new, 10, "test", overwrite=True)
    assert caught.value.where == str(file)
    with h5py.File(file) as handle:
        np.testing.assert_array_equal(handle["grids"][:], old)
    assert [path.name for path in tmp_path.iterdir()] == ["grids.h5"]


def test_a_full_disk_at_the_end_names_the_file(
    vaefit_cli: Callable[..., object], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vaefit_cli("weights", dataset)
    monkeypatch.setattr(os, "fsync", _full)
    outcome = vaefit_cli("overfit", dataset, "--iterations", "1", "--out", tmp_path / "run", "--json")
    assert outcome.code == 3  # type: ignore[attr-defined]
    error = outcome.json["error"]  # type: ignore[attr-defined]
    assert error["where"] == str(tmp_path / "run" / "config.json")
    assert "No space left" in error["got"]


def test_a_reader_that_goes_away_does_not_cost_the_run(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "vaefit.cli", "overfit", str(dataset), "--iterations", "2", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert json.loads((out / "result.json").read_text())["iterations"] == 2


def test_ctrl_c_leaves_whole_files(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["--batch-size", "4", "--stop-when", "never", "--iterations", "100000", "--out", str(folder), "--json"]
    # a shell in the background makes its children deaf to Ctrl-C
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    main = f"{hear}; from vaefit.cli import main; main()"
    command = [sys.executable, "-c", main, "overfit", str(dataset), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        metrics, patience = folder / "metrics.csv", time.monotonic() + 60
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert metrics.read_bytes().endswith(b"\n")
    assert len({line.count(",") for line in metrics.read_text().splitlines()}) == 1
    assert json.loads((folder / "config.json").read_text())
    assert not (folder / "result.json").exists()
    found = json.loads(out)
    assert found["exit"] == 130
    assert set(found["error"]) == {"what", "where", "got", "do"}
