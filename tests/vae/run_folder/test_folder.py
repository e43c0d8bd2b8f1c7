"""The run folder under rivals, full disks and readers that go away."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.vae.data.hdf5_writer import write_grids
from vaefit.vae.errors import RunError
from vaefit.vae.run_folder.lock import LOCK
from vaefit.vae.run_folder.overfit_folder import OverfitFolder


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(_: int) -> Path:
        with OverfitFolder.claimed(None, overwrite=False) as folder:
            (folder.path / "result.json").touch()
        return folder.path

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(run, range(24)))
    assert len(set(paths)) == 24
    assert all([file.name for file in path.iterdir()] == ["result.json"] for path in paths)


def test_a_folder_that_was_given_up_is_gone_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with OverfitFolder.claimed(None, overwrite=False) as first:
        with OverfitFolder.claimed(None, overwrite=False) as second:
            pass
        assert first.path.is_dir()
        assert not second.path.exists()
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    with OverfitFolder.claimed(tmp_path / "mine", overwrite=False):
        pass
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_folder_in_use_is_left_alone_and_a_killed_process_holds_nobody_up(
    vaefit_cli: Callable[..., Any], dataset: Path, tmp_path: Path
) -> None:
    out, (reading, writing) = tmp_path / "run", os.pipe()
    if (holder := os.fork()) == 0:
        with OverfitFolder.claimed(out, overwrite=False):
            os.write(writing, b"held")
            time.sleep(600)
    os.read(reading, 4)
    short = ("--batch-size", "4", "--iterations", "1", "--quiet")
    lines = (("overfit", dataset, *short), ("train", dataset), ("sweep", dataset, *short, "--seeds", "1"))
    for line in lines:
        outcome = vaefit_cli(*line, "--out", out, "--overwrite", "--json")
        assert outcome.code == 3
        assert outcome.json["error"] == {
            "what": "another process writes in this run folder",
            "where": str(out),
            "got": f"process {holder} on {socket.gethostname()}",
            "do": "Wait until it ends, or pass another --out.",
        }
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert [file.name for file in out.iterdir()] == [LOCK]
    assert vaefit_cli(*lines[0], "--out", out).code in (0, 1)
    assert (out / "result.json").exists()
    assert not (out / LOCK).exists()


def test_rivals_hold_a_folder_one_after_another(tmp_path: Path) -> None:
    out, inside = tmp_path / "run", tmp_path / "inside"
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            code = 1
            try:
                for _ in range(60):
                    with suppress(RunError), OverfitFolder.claimed(out, overwrite=False):
                        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # FileExistsError beside another process
                        inside.unlink()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


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


@pytest.mark.slow
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
    found = json.loads(out)
    assert found == json.loads((folder / "result.json").read_text())
    assert found["interrupted"] is True
    assert metrics.read_text().count("\n") == found["iterations"] + 2
