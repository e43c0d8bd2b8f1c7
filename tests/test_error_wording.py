"""Errors that no other test reads: what, where, what was found, and what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vaefit.vae.check
from vaefit.vae import overfit
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

    monkeypatch.setattr(vaefit.vae.check, "overfit", broken)
    outcome = vaefit_cli("overfit", dataset, "--out", tmp_path / "run", "--json")
    assert outcome.code == outcome.json["exit"] == 3
    assert outcome.json["error"]["what"] == what
    assert ("Traceback" in outcome.err) == ("mistake" in what)
    assert not (tmp_path / "run").exists()


def test_memory_outside_the_fit(vaefit_cli, dataset, monkeypatch):
    def broken(*_, **__):
        raise MemoryError

    monkeypatch.setattr(vaefit.vae.check, "count_dataset", broken)
    assert vaefit_cli("overfit", dataset, "--json").json["error"]["what"] == "this does not fit into memory"


@pytest.mark.parametrize("name", ["metrics.csv", "config.json"])
def test_a_folder_in_the_place_of_a_file_of_the_run(fails, dataset, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    code, error = fails("overfit", dataset, "--iterations", "1", "--out", tmp_path / "run", "--overwrite")
    assert code == 3
    assert error["what"] == "the file cannot be written"
    assert error["where"].endswith(name)


def test_a_run_that_cannot_be_read(fails, tmp_path):
    (tmp_path / "run" / "result.json").mkdir(parents=True)
    code, error = fails("show", tmp_path / "run")
    assert (code, error["what"]) == (3, "the file cannot be read")


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
        ({"logits": 1}, "must return logits (B, C, H, W), or (logits, mu, logvar) (got dict)"),
        ((torch.ones(1), torch.ones(1)), "(got tuple)"),
        (torch.ones(4, 10, 8, 7), "must return logits (4, C, 8, 8) for this batch (got shape (4, 10, 8, 7))"),
        (torch.ones(4, 10), "(got shape (4, 10))"),
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
