"""Errors that no other test reads: what, where, what was found, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import vaefit.vae
import vaefit.vae.runs.overfit_run
from vaefit.cache import DataError, Location, class_counts, class_weights
from vaefit.cache.errors import SettingError
from vaefit.kernels import confusion_counts, focal_loss
from vaefit.vae import BetaVAE, overfit
from vaefit.vae.data.batch import choose_batch
from vaefit.vae.data.hdf5_writer import refuse_existing
from vaefit.vae.errors import RunError


@pytest.fixture
def fails(vaefit_cli, monkeypatch, tmp_path):
    """Run a command that must fail; its exit code and its error, as one text and as JSON alike."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        plain, as_json = vaefit_cli(*arguments), vaefit_cli(*arguments, "--json")
        error = as_json.json["error"]
        assert plain.code == as_json.code == as_json.json["exit"]
        assert all(part.rstrip(".") in plain.err for part in error.values())
        return plain.code, error

    return call


def test_two_sources_of_weights(fails, dataset):
    code, error = fails("overfit", dataset, "--weights", "none", "--weights-file", "w.json")
    assert code == 2
    assert "--weights and --weights-file both say" in error["what"]


def test_a_dataset_of_one_class(fails, tmp_path, write_dataset):
    data = write_dataset(tmp_path / "flat.h5", grids=np.zeros((40, 4, 4), dtype=np.uint8))
    code, error = fails("overfit", data)
    assert code == 3
    assert error["what"].startswith("every counted cell holds one class")
    assert "--classes" in error["do"]


@pytest.mark.parametrize(
    ("raised", "what"),
    [
        (MemoryError(), "the model and the batch do not fit into memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "the model and the batch do not fit into memory"),
        (OSError(28, "No space left on device", "/somewhere"), "No space left on device"),
        (RuntimeError("unforeseen"), "this is a mistake in vaefit"),
    ],
)
def test_what_goes_wrong_inside(vaefit_cli, dataset, tmp_path, monkeypatch, raised, what):
    def broken(*_, **__):
        raise raised

    monkeypatch.setattr(vaefit.vae.runs.overfit_run, "overfit", broken)
    outcome = vaefit_cli("overfit", dataset, "--out", tmp_path / "run", "--json")
    assert outcome.code == outcome.json["exit"] == 3
    assert outcome.json["error"]["what"] == what
    assert ("Traceback" in outcome.err) == ("mistake" in what)
    assert not (tmp_path / "run").exists()


def test_memory_outside_the_fit(vaefit_cli, dataset, monkeypatch):
    def broken(*_, **__):
        raise MemoryError

    monkeypatch.setattr("vaefit.vae.data.counting.count_shards", broken)
    assert vaefit_cli("overfit", dataset, "--json").json["error"]["what"] == "this does not fit into memory"


@pytest.mark.parametrize("name", ["metrics.csv", "config.json"])
def test_a_folder_in_the_place_of_a_file_of_the_run(fails, dataset, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    code, error = fails("overfit", dataset, "--iterations", "1", "--out", tmp_path / "run", "--overwrite")
    assert code == 3
    assert error["what"] == "the file cannot be written"
    assert error["where"].endswith(name)
    assert error["do"] == "Check the permissions and the free space there."


def test_a_run_that_cannot_be_read(fails, vaefit_cli, dataset, tmp_path):
    vaefit_cli("overfit", dataset, "--batch-size", "4", "--iterations", "1", "--out", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "result.json").mkdir()
    code, error = fails("show", tmp_path / "run")
    assert (code, error["what"]) == (3, "the file cannot be read")
    assert error["where"].endswith("result.json")


def test_weights_that_cannot_be_written(fails, dataset, tmp_path):
    (tmp_path / "file").write_text("")
    code, error = fails("weights", dataset, "--export", tmp_path / "file" / "w.json")
    assert (code, error["what"]) == (3, "the weights cannot be written")
    assert error["where"].endswith("w.json")


def test_a_sweep_that_cannot_be_written(fails, dataset, tmp_path):
    (tmp_path / "s" / "sweep.csv").mkdir(parents=True)
    arguments = ("sweep", dataset, "--iterations", "1", "--seeds", "1", "--out", tmp_path / "s", "--overwrite")
    code, error = fails(*arguments)
    assert (code, error["what"]) == (3, "the file cannot be written")
    assert error["where"].endswith("sweep.csv")


class Answering(nn.Module):
    """Answers every batch with what it was given."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.parameter = answer, nn.Parameter(torch.ones(()))

    def forward(self, _):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "wording"),
    [
        (
            {"logits": 1},
            "must return logits (4, C, 8, 8) for this batch, from labels or from their one-hot form (got",
        ),
        ((torch.ones(1), torch.ones(1)), "(got a tuple with 0: (1,) float32, 1: (1,) float32)"),
        (torch.ones(4, 10, 8, 7), "(got a tensor (4, 10, 8, 7) float32). Its sides are not 8 x 8"),
        (torch.ones(4, 10), "(got a tensor (4, 10) float32). Reshape what it returns"),
    ],
)
def test_a_model_that_answers_something_else(grids, answer, wording):
    with pytest.raises(RunError) as caught:
        overfit(Answering(answer), grids[:4])
    assert wording in str(caught.value)
    assert caught.value.where == "Answering"


def test_a_model_that_cannot_learn(grids):
    with pytest.raises(RunError, match="Flatten: the model has no parameter that can learn"):
        overfit(nn.Flatten(), grids[:4])


@pytest.mark.parametrize("batch", [np.zeros((2, 3)), np.zeros((2, 3, 3)), np.zeros((0, 3, 3), dtype=int)])
def test_what_is_no_batch(batch):
    with pytest.raises(ValueError, match=r"batch: a batch is \(B, H, W\) integer labels, at least one \(got shape"):
        overfit(Answering(torch.ones(1)), batch)


LOGITS, LABELS, ELSEWHERE = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.device("meta")


@pytest.mark.parametrize(
    ("call", "wording"),
    [
        (lambda: focal_loss(LOGITS, LABELS.to(ELSEWHERE)), "targets are on meta, the logits on cpu. Move one of them."),
        (
            lambda: confusion_counts(LABELS, LABELS.to(ELSEWHERE), num_classes=3),
            "targets are on meta, the logits on cpu. Move one of them.",
        ),
        (
            lambda: focal_loss(LOGITS, LABELS, torch.ones(3).to(ELSEWHERE)),
            "weight is on meta, the logits on cpu. Move one of them.",
        ),
        (
            lambda: BetaVAE(10, 8, 8)(torch.zeros(2, 8, 7, dtype=torch.int64)),
            "grids have shape (2, 8, 7), but this model takes labels (B, 8, 8) or their one-hot form (B, 10, 8, 8).",
        ),
        (lambda: vaefit.vae.train, "module 'vaefit.vae' has no attribute 'train'"),
        (
            lambda: class_weights(np.array([3, 2**63], dtype=np.uint64)),
            f"counts: a class count is beyond 64 bits (got {2**63}). Pass counts below 2^63.",
        ),
        (
            lambda: class_weights([0, 0]),
            "counts: every class count is 0. There is nothing to weigh; check --ignore-index.",
        ),
        (
            lambda: class_weights([0.5, 1]),
            (
                "counts: class counts are non-negative integers, one a class (got dtype float64, shape (2,)). "
                "Pass an integer array (C,)."
            ),
        ),
        (
            lambda: choose_batch(Location.parse("any.h5"), np.ones(2, dtype=np.int64), size=0),
            "--batch-size: a batch holds at least one grid (got 0). Pass 1 or more.",
        ),
    ],
)
def test_wording_of_what_a_caller_gets_wrong(call, wording):
    with pytest.raises((ValueError, AttributeError)) as caught:
        call()
    assert str(caught.value) == wording


def parts(error):
    return error.what, error.where, error.got, error.do


def test_a_link_to_nothing(dataset):
    with h5py.File(dataset, "a") as handle:
        handle["linked"] = h5py.SoftLink("/absent")
    with pytest.raises(DataError) as caught:
        class_counts(f"{dataset}:/linked")
    what, where, _, do = parts(caught.value)
    assert (what, where) == ("the link leads to nothing that can be opened", f"{dataset}:/linked")
    assert do == "Check the file and the dataset that it names."


def test_a_file_that_is_being_written(dataset):
    fcntl = pytest.importorskip("fcntl")
    with dataset.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError) as caught:
            class_counts(dataset)
    what, where, got, do = parts(caught.value)
    assert (what, where) == ("the file is open for writing elsewhere", str(dataset))
    assert "unable to lock file" in got
    assert do.startswith("Close it there")


def test_a_file_without_the_right_to_read_it(dataset, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("vaefit.cache.hdf5.dataset.h5py.File", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError) as caught:
        class_counts(dataset, use_cache=False)
    assert parts(caught.value) == (
        "the file cannot be read",
        str(dataset),
        "Permission denied",
        "Check its permissions.",
    )


def test_a_damaged_index_of_the_file(dataset, monkeypatch):
    def broken(*_):
        raise RuntimeError("unable to synchronously open object (bad symbol table)")

    monkeypatch.setattr("vaefit.cache.hdf5.dataset._datasets", broken)
    with pytest.raises(DataError) as caught:
        class_counts(dataset)
    what, where, got, do = parts(caught.value)
    assert (what, where, do) == ("the file is damaged", str(dataset), "Take another copy of it, or write it anew.")
    assert "bad symbol table" in got


def test_counts_that_nothing_has_cached(fails, dataset):
    code, error = fails("weights", dataset, "--verify")
    assert (code, error["what"]) == (3, "there are no cached counts")
    assert error["do"] == f"Run `vaefit-cli weights {dataset}` first."
    code, error = fails("overfit", dataset, "--no-scan")
    assert (code, error["what"]) == (3, "no cached counts are true of this dataset, and a scan was not allowed")


def test_a_cached_file_of_another_version_is_ignored_aloud(vaefit_cli, dataset):
    file = Path(vaefit_cli("weights", dataset, "--json").json["cache_file"])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": "vaefit.counts/99"}))
    outcome = vaefit_cli("weights", dataset)
    assert outcome.code == 0
    assert "it has the schema vaefit.counts/99, this version reads vaefit.counts/" in outcome.err


def test_a_wrong_attribute_that_an_option_replaces_is_said_aloud(dataset, caplog):
    with h5py.File(dataset, "a") as handle:
        handle["grids"].attrs["classes"] = "ten"
    assert class_counts(dataset, classes=10).size == 10
    assert "the counts are not cached, for its attribute `classes` is wrong" in caplog.text


def test_an_output_that_is_there_already(tmp_path):
    (tmp_path / "out.h5").write_text("")
    with pytest.raises(RunError) as caught:
        refuse_existing(tmp_path / "out.h5", overwrite=False)
    assert str(caught.value) == f"{tmp_path / 'out.h5'}: the file exists. Pass --overwrite, or another name."
    with pytest.raises(RunError) as caught:
        refuse_existing(tmp_path, overwrite=True)
    assert str(caught.value) == f"{tmp_path}: this is a folder. Pass the name of a file."


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--indices", "3,x", "whole numbers"),
        ("--indices", "", "whole numbers"),
        ("--betas", "0.9", "2 numbers"),
        ("--beta-ramp", "1,2", "3 numbers"),
    ],
)
def test_lists_of_numbers(fails, dataset, option, value, wanted):
    code, error = fails("overfit", dataset, option, value)
    assert code == 2
    assert error["what"] == f"Invalid value for {option}: {value!r} is not {wanted} separated by commas"
    assert error["do"] == "See `vaefit-cli overfit --help`."


def test_a_command_is_missing(vaefit_cli):
    outcome = vaefit_cli("data")
    assert outcome.code == 2
    assert outcome.err.startswith("error: vaefit-cli data: a command is missing; there are synth, relabel, import")


@pytest.mark.parametrize("weights", [[1.0, -2.0], [float("nan"), 1.0], [0.0, 0.0]])
def test_weights_that_cannot_weigh(weights):
    with pytest.raises(SettingError) as caught:
        overfit(BetaVAE(2, 4, 4), np.arange(32).reshape(2, 4, 4) % 2, weights=weights)
    what, where, got, do = parts(caught.value)
    assert (what, where) == ("class weights are finite, not negative, and not all 0", "weights")
    assert got in ("-2.0 for class 1", "nan for class 0", "only zeros")
    assert do == "Mend them, or leave them out: they are derived from the counts then."
