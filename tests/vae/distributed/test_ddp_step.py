"""Tests that training with several processes gives the results of one process."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import rank_faults
from tests.ranks_of_a_job import run_job

KNOBS = [
    "--batch-size",
    "16",
    "--latent-dim",
    "4",
    "--validate-every",
    "2",
    "--optimizer",
    "adam",
    "--test-share",
    "0.1",
]
MORE = ["--augment", "rotate,flip,colours", "--z", "sample", "--beta", "0.01", "--free-bits", "0.1"]


def rows(run, name="metrics.csv"):
    with (run / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def close(left, right, rtol=2e-4):
    """The numbers of two CSV files agree."""
    assert len(left) == len(right) > 1
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if a[key] or b[key]:
                # an argmax between two that are nearly equal may go either way
                atol = 2e-3 if "accuracy" in key or key.startswith("class_") or key == "skill" else 1e-6
                wide = 10 * rtol if "norm" in key else rtol
                assert float(a[key]) == pytest.approx(float(b[key]), rel=wide, abs=atol), (key, a["step"])


def errors(outcome):
    return [line for line in outcome.err.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """60 grids by 8 x 8 in chunks of 4."""
    rng = np.random.default_rng(4)
    cells = rng.integers(0, 5, (60, 8, 8), dtype=np.uint8)
    cells[rng.random(cells.shape) < 0.8] = 0
    file = tmp_path_factory.mktemp("data") / "grids.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=cells, chunks=(4, 8, 8), compression="gzip")
    return file


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "more"), [(2, []), (3, MORE)])
def test_losses_and_weights_are_those_of_one_process_on_the_same_batches(vaefit_cli, numbered, tmp_path, ranks, more):
    command = ["train", numbered, *KNOBS, *more, "--epochs", "2", "--json"]
    one = vaefit_cli(*command, "--out", tmp_path / "one").json
    outcomes = run_job(ranks, *command, "--out", tmp_path / "more")
    assert [outcome.code for outcome in outcomes] == [0] * ranks
    assert [outcome.out for outcome in outcomes[1:]] == [""] * (ranks - 1)
    found = outcomes[0].json
    assert found["ranks"] == ranks
    assert found["iterations"] == one["iterations"] == 6
    close(rows(tmp_path / "more"), rows(tmp_path / "one"))
    close([*rows(tmp_path / "more", "steps.csv")] * 2, [*rows(tmp_path / "one", "steps.csv")] * 2)
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("more", "one"))
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, others[name], rtol=2e-3, atol=2e-4)
    assert (tmp_path / "more" / "report.html").is_file()
    assert json.loads((tmp_path / "more" / "config.json").read_text())["ranks"] == ranks


@pytest.mark.slow
def test_ranks_that_stream_go_on_as_if_they_had_not_been_stopped(numbered, tmp_path):
    command = ["train", numbered, *KNOBS, "--epochs", "2", "--loader", "stream", "--window", "10"]
    for outcome in run_job(2, *command, "--out", tmp_path / "whole"):
        assert outcome.code == 0
    stopped = run_job(2, *command, "--out", tmp_path / "run", before=rank_faults.asked_to_stop)
    assert [outcome.code for outcome in stopped] == [130, 130]
    assert all("train --resume" in outcome.err for outcome in stopped)
    (refused, *_) = run_job(3, "train", "--resume", tmp_path / "run")
    assert refused.code == 3
    assert "goes on with as many processes as it began with (got 3, begun with 2)" in refused.err
    # torchrun restarts the job with the same command; a restart must not continue the run of another job
    config = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(config.replace('"job": "', '"job": "other '))
    (refused, *_) = run_job(2, *command, "--out", tmp_path / "run", restarts=1)
    assert "the run folder is not empty" in refused.err
    (tmp_path / "run" / "config.json").write_text(config)
    assert [outcome.code for outcome in run_job(2, *command, "--out", tmp_path / "run", restarts=1)] == [0, 0]
    for name in ("metrics.csv", "steps.csv", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_from_memory_another_number_of_ranks_goes_on_with_the_same_batches(vaefit_cli, numbered, tmp_path):
    command = ["train", numbered, *KNOBS, "--epochs", "2"]
    assert vaefit_cli(*command, "--out", tmp_path / "whole").code == 0
    stopped = run_job(2, *command, "--out", tmp_path / "run", before=rank_faults.asked_to_stop)
    assert [outcome.code for outcome in stopped] == [130, 130]
    found = vaefit_cli("train", "--resume", tmp_path / "run")
    assert found.code == 0
    assert "began with ranks: 2, and goes on with 1" in found.err
    close(rows(tmp_path / "run"), rows(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            rank_faults.unreadable,
            "error: rank 1, x.h5:/grids: grids 3 to 4 cannot be read (got no disk). Check the disk",
        ),
        (rank_faults.mistaken, "AssertionError: never here"),
        (rank_faults.killed, "error: another process of the job is gone"),
        pytest.param(
            rank_faults.killed_at_the_start, "error: another process of the job is gone", marks=pytest.mark.slow
        ),
    ],
)
def test_a_rank_that_fails_is_the_one_error_of_all(numbered, tmp_path, fault, expected):
    out = tmp_path / "run"
    outcomes = run_job(2, "train", numbered, *KNOBS, "--out", out, "--json", before=fault)
    alive = outcomes[:1] if fault in (rank_faults.killed, rank_faults.killed_at_the_start) else outcomes
    assert [outcome.code for outcome in alive] == [3] * len(alive)
    for outcome in alive:
        (line,) = errors(outcome) if outcome is not outcomes[0] else [json.dumps(outcome.json)]
        for word in expected.removeprefix("error: rank 1, x.h5:/grids: ").removeprefix("error: ").split(" (got ")[:1]:
            assert word in line
    if fault is not rank_faults.killed_at_the_start:
        assert run_job(2, "train", "--resume", out)[0].code == 0


@pytest.mark.parametrize(
    ("other", "got"),
    [
        (rank_faults.with_another_seed, "--seed: the ranks of the job were started differently (got 0 on rank 0, 3 on"),
        pytest.param(
            rank_faults.counting,
            "(got vaefit-cli train on rank 0, vaefit-cli weights on rank 1)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_ranks_that_were_started_differently_have_one_error(other, got):
    outcomes = run_job(3, "train", "grids.h5", before=other)
    assert len({outcome.err for outcome in outcomes}) == 1
    for outcome in outcomes:
        assert (outcome.code, outcome.out) == (3, "")
        (line,) = outcome.err.splitlines()
        assert got in line


@pytest.mark.slow
def test_ranks_with_other_weights_or_another_device_have_one_error(numbered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, weights in ((tmp_path, [1, 1, 1, 1, 1]), (tmp_path / "copies", [9, 1, 1, 1, 1])):
        folder.mkdir(exist_ok=True)
        (folder / "weights.json").write_text(json.dumps(weights))
    for outcome in run_job(2, "train", numbered, before=rank_faults.with_other_weights):
        assert outcome.code == 3
        (line,) = errors(outcome)
        assert re.search("--weights-file: .* weights.json with sha256 .* on rank 0, weights.json with sha256", line)
    for outcome in run_job(2, "train", numbered, *KNOBS, before=rank_faults.on_another_device):
        assert outcome.code == 3
        (line,) = errors(outcome)
        assert "--device: the ranks of the job were started differently (got cpu on rank 0, meta on rank 1)" in line


def test_a_copy_with_other_bytes_is_an_error_though_the_counts_are_cached(vaefit_cli, numbered, tmp_path):
    file, copy = tmp_path / "grids.h5", tmp_path / "copies" / "grids.h5"
    copy.parent.mkdir()
    shutil.copy(numbered, file)
    shutil.copy(numbered, copy)
    with h5py.File(copy, "r+") as handle:
        handle["grids"][7, 3, 3] = 0 if handle["grids"][7, 3, 3] else 1
    assert vaefit_cli("weights", file).code == 0
    outcomes = run_job(2, "train", file, *KNOBS, "--out", tmp_path / "run", before=rank_faults.reading_a_copy)
    for outcome in outcomes:
        assert outcome.code == 3
        (line,) = errors(outcome)
        assert f"{file}: the ranks of the job read different bytes under this path" in line
    assert not (tmp_path / "run").exists()


def test_wrong_calls_are_one_error_on_every_rank(numbered, tmp_path):
    for outcome in run_job(3, "train", tmp_path / "absent.h5"):
        assert outcome.code == 3
        assert len(errors(outcome)) == 1
        assert "the file does not exist" in outcome.err
    for outcome in run_job(2, "train", numbered, "--epochs", "0"):
        assert outcome.code == 2
        assert len(errors(outcome)) == 1
    for outcome in run_job(3, "train", numbered, "--batch-size", "2", "--out", tmp_path / "run"):
        assert outcome.code == 2
        assert "the batch has no grid for each rank (got 2 over 3 ranks)" in outcome.err
    for outcome in run_job(3, "train", numbered, "--val-share", "0.02", "--batch-size", "8", "--out", tmp_path / "run"):
        assert outcome.code == 2
        assert "there is no grid for each rank to validate on (got 1 over 3 ranks)" in outcome.err
    assert not (tmp_path / "run").exists()
    for outcome in run_job(2, "doctor"):
        assert outcome.code == 2
        assert "doctor runs in one process" in outcome.err


@pytest.mark.slow
def test_a_single_process_imports_only_what_detects_a_job(numbered, tmp_path):
    script = """
import sys
from vaefit.cli import run
code = run(sys.argv[1:])
print(code, [name for name in sys.modules if "vaefit.vae.distributed." in name])
"""
    call = [
        sys.executable,
        "-c",
        script,
        "train",
        str(numbered),
        *KNOBS,
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0 ['vaefit.vae.distributed.launch']"
