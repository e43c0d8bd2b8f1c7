"""The fault drills, each with few cases: damaged files, kills, crowds, and changes behind the cache's back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fault_injection.corruption import Whole, damage
from tests.fault_injection.files import DATASET, MAIN, build
from tests.fault_injection.fuzz import BAD, SHARED_ERROR, UNCHECKED, judge
from tests.fault_injection.hdf5_checksum import lookup3, reseal, sealed
from tests.fault_injection.protocol import Report, Task
from tests.fault_injection.sandbox import Forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and namespaces of Linux")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["damage", "--count", "70", "--seed", "11"],
        ["numpy", "--count", "250", "--seed", "11"],
        ["kills", "--count", "4", "--chunks", "1000"],
        ["crowd", "--count", "1", "--processes", "6", "--chunks", "300"],
        ["edits", "--quick"],
        ["interrupted", "--quick"],
        ["rivals", "--quick"],
        ["mutants", "--quick"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_drill_finds_nothing_bad(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fault_injection", *arguments, "--keep", str(tmp_path), "--json"]
    # where the system has a disk in memory, the many small writes there need not wait for the real one
    memory = Path("/dev/shm")
    environment = {**os.environ, **({"TMPDIR": str(memory)} if os.access(memory, os.W_OK) else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.stdout, done.stderr
    for tally in json.loads(done.stdout):
        assert tally["cases"] > 0
        assert tally["bad"] == 0, tally
    assert done.returncode == 0
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_every_whole_layout_is_read_as_h5py_reads_it(tmp_path: Path) -> None:
    with Forks(tmp_path / "home") as forks:
        for name, paths in build(tmp_path / "files").items():
            folder = str(paths[0].parent)
            ours, plain = (forks.run(Task(do, MAIN, folder, DATASET)) for do in ("ours", "slices"))
            assert ours.end == "counts", (name, ours.text)
            assert ours.counts == plain.counts, name


def test_a_seed_gives_the_same_damage_again(tmp_path: Path) -> None:
    whole = Whole.of(build(tmp_path)["fixed array"][0])
    assert whole.fields
    assert len(whole.seals) > 3
    first, second, other = (damage(whole, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == second
    assert first != other
    assert first[0] != whole.data


def test_checksums_as_hdf5_makes_them() -> None:
    # Bob Jenkins' own examples
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert lookup3(b"") == 0xDEADBEEF
    data = bytearray(b"..OHDR with some bytes????..")
    reseal(data, 2, 22)
    assert sealed(bytes(data)) == [(2, 22)]


def test_forks_tell_how_a_task_ended(tmp_path: Path) -> None:
    (tmp_path / MAIN).write_bytes(b"no HDF5")
    with Forks(tmp_path / "home") as forks:
        task = Task("ours", MAIN, str(tmp_path), DATASET)
        assert forks.run(task).end == "error"
        assert "not HDF5" in forks.run(task).text
        assert forks.run(Task("slices", "absent.h5", str(tmp_path))).end == "error"
        killed = Task("rewrite", "absent.h5", str(tmp_path), kill_after=0.0)
        assert forks.run(killed).end == "killed"


@pytest.mark.parametrize(
    ("plain", "ours", "end", "bad"),
    [
        (Report("error"), Report("error", text="one line"), SHARED_ERROR, False),
        (Report("error"), Report("error", text="two\nlines"), BAD["several lines"], True),
        (Report("error"), Report("error", text="\x1b[2J"), BAD["several lines"], True),
        (Report("error"), Report("counts", {0: 1}), BAD["more"], True),
        (Report("crash"), Report("counts", {0: 1}), BAD["more"], True),
        (Report("time"), Report("counts", {0: 1}), UNCHECKED, False),
        (Report("counts", {0: 1}), Report("counts", {0: 2}), BAD["other"], True),
        (Report("counts", {0: 1}), Report("traceback"), BAD["traceback"], True),
        (Report("error"), Report("memory"), BAD["memory"], True),
        (Report("error"), Report("crash"), BAD["crash"], True),
        (Report("time"), Report("time"), BAD["time"], True),
    ],
)
def test_what_is_bad(plain: Report, ours: Report, end: str, bad: bool) -> None:
    assert judge(plain, ours) == (end, bad)
