"""`weights` under torchrun: what one process prints, and one clear error on every rank."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.ranks_of_a_job import run_job


def write(file: Path, grids: int, label: int = 2) -> Path:
    cells = np.zeros((grids, 8, 8), np.int16)
    cells[:, 0], cells[-1, 7, 7] = 1, label
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=cells, chunks=(10, 8, 8), compression="gzip", shuffle=True)
    return file


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A pattern of three shards."""
    for number, grids in enumerate((500, 20, 480)):
        write(tmp_path / f"train-{number}.h5", grids)
    return tmp_path / "train-*.h5"


def said(body: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(body, dict):
        return {key: said(value) for key, value in body.items() if key not in ("seconds", "threads", "ranks")}
    return [said(value) for value in body] if isinstance(body, list) else body


def kill_one(rank: int) -> None:
    """Rank 1 is killed while it counts."""
    from vaefit.cache.distributed.joint_count import JointCount
    from vaefit.vae.distributed import process_group

    process_group.PATIENCE = 0.2  # nobody has left word
    if rank == 1:
        JointCount._read = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]


def end_one(rank: int) -> None:
    """Rank 1 is asked to end while it counts, and the others wait for it."""
    from vaefit.cache.distributed.joint_count import JointCount
    from vaefit.vae.distributed import process_group

    process_group.PATIENCE = 0.2
    if rank == 1:
        JointCount._read = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # type: ignore[method-assign,assignment]


def read_copies(rank: int) -> None:
    """Rank 1 reads, under the paths of the shards, the files of one name in the folder `copies`."""
    from dataclasses import replace

    from vaefit.cache.distributed.joint_count import JointCount

    run = JointCount.run

    def elsewhere(self: JointCount) -> Any:
        self.locations = [replace(at, file=at.file.parent / "copies" / at.file.name) for at in self.locations]
        return run(self)

    if rank == 1:
        JointCount.run = elsewhere  # type: ignore[method-assign]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_json_is_that_of_one_process(ranks: int, vaefit_cli: Any, shards: Path) -> None:
    alone = vaefit_cli("weights", shards, "--json", "--verbose", "--all-schemes", "--rebuild")
    found = run_job(ranks, "weights", shards, "--json", "--verbose", "--all-schemes", "--rebuild")
    assert [(outcome.code, outcome.err) for outcome in found] == [(0, "")] * ranks
    assert [outcome.out for outcome in found[1:]] == [""] * (ranks - 1)
    assert said(found[0].json) == said(alone.json)
    assert found[0].json.get("ranks", 1) == ranks


def test_verify_and_export(vaefit_cli: Any, shards: Path, tmp_path: Path) -> None:
    vaefit_cli("weights", shards)
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    expected = vaefit_cli("weights", shards, "--verify", "--verbose", "--export", alone)
    found = run_job(2, "weights", shards, "--verify", "--verbose", "--export", together)
    assert [outcome.code for outcome in found] == [0, 0]
    assert together.read_bytes() == alone.read_bytes()
    assert "verified: a recount gives the same" in found[0].out
    assert "ranks   2 counted together" in found[0].out
    assert [line.split()[:2] for line in found[0].out.splitlines() if "ranks " not in line] == [
        line.split()[:2] for line in expected.out.splitlines()
    ]
    assert found[1].out == ""
    with h5py.File(tmp_path / "train-0.h5", "r+") as handle:
        handle["grids"][0, 5, 5] = 1
    found = run_job(2, "weights", shards, "--verify")
    assert [outcome.code for outcome in found] == [1, 1]
    assert "the recount of" in found[0].out


def test_a_wrong_label_that_one_rank_sees(vaefit_cli: Any, shards: Path) -> None:
    write(shards.with_name("train-2.h5"), 480, label=-7)
    found = run_job(3, "weights", shards)
    error = vaefit_cli("weights", shards).err
    expected = error.replace("error: ", "error: rank 1, ")
    assert [(outcome.code, outcome.err, outcome.out) for outcome in found] == [(3, expected, "")] * 3


def test_a_missing_file(shards: Path) -> None:
    found = run_job(2, "weights", shards, shards.with_name("zzz.h5"))
    assert [outcome.code for outcome in found] == [3, 3]
    for outcome in found:
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: rank 1, ")
        assert line.endswith("zzz.h5: the file does not exist. Check the path.")


def test_a_rank_that_reads_other_bytes(shards: Path) -> None:
    (shards.parent / "copies").mkdir()
    files = sorted(shards.parent.glob("*.h5"))
    copies = [Path(shutil.copy(file, shards.parent / "copies")) for file in files]
    found = run_job(2, "weights", shards, before=read_copies)
    assert [(outcome.code, outcome.err) for outcome in found] == [(0, "")] * 2
    for file in shards.parent.glob("*.json"):
        file.unlink()
    write(copies[2], 480, label=3)
    found = run_job(2, "weights", shards, before=read_copies)
    assert found[0].err == found[1].err
    for outcome in found:
        assert (outcome.code, outcome.out) == (3, "")
        (line,) = outcome.err.splitlines()
        assert line.startswith(f"error: rank 0, {files[2]}: the ranks of the job read different bytes under this path")
        assert "rank 1: " in line
        assert line.endswith("then run the command again.")
    assert not list(shards.parent.rglob("*.json"))


def test_a_rank_that_is_killed(shards: Path) -> None:
    first, killed, last = run_job(3, "weights", shards, before=kill_one)
    assert (killed.code, killed.err) == (-signal.SIGKILL, "")
    for outcome in (first, last):
        (line,) = outcome.err.splitlines()
        assert outcome.code == 3
        assert "another process of the job is gone" in line
        assert "torchrun's report says which" in line
    assert not list(shards.parent.glob("*.json"))


def test_a_rank_that_is_asked_to_end(shards: Path) -> None:
    for outcome in run_job(2, "weights", shards, before=end_one):
        assert (outcome.code, outcome.err) == (130, "error: interrupted. What was written so far is whole.\n")


@pytest.mark.slow
def test_torchrun_itself(vaefit_cli: Any, shards: Path) -> None:
    alone = vaefit_cli("weights", shards, "--json").json
    for file in shards.parent.glob("*.json"):
        file.unlink()
    job = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "vaefit.cli"]
    done = subprocess.run([*job, "weights", shards, "--json"], capture_output=True, text=True, timeout=120, check=True)
    assert said(json.loads(done.stdout)) == said(alone)


def test_a_process_by_itself_imports_nothing_of_it(shards: Path) -> None:
    script = """
import sys
from vaefit.cli import run
code = run(sys.argv[1:])
parts = ("torch", "vaefit.vae.distributed.", "vaefit.cache.distributed")
print(code, [name for name in sys.modules if name.startswith(parts)], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script, "weights", shards], capture_output=True, text=True, check=True)
    # a process learns from `launch`, which imports nothing, that it is by itself
    assert done.stderr == "0 ['vaefit.vae.distributed.launch']\n"
