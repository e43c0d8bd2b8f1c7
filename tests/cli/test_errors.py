"""Tests of wrong input: one clear error, the right exit code, and nothing half made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

USAGE, COULD_NOT_RUN = 2, 3

CHOICES = {
    "--recipe": "default classic",
    "--init": "kaiming rescaled default",
    "--z": "mu sample",
    "--weights": "global batch none",
    "--scheme": "sqrt_inverse inverse balanced effective none",
    "--reduction": "batch mean",
    "--lr-decay": "isqrt none cosine",
    "--stop-when": "exact target never",
    "--device": "auto cpu cuda",
    "--backend": "auto triton compiled eager reference",
}
OUT_OF_RANGE = {
    "--lr": "0 nan",
    "--gamma": "-1",
    "--betas": "1,2 x 0.5",
    "--beta": "-0.5",
    "--beta-ramp": "1,2 1,2,-3",
    "--free-bits": "-1 nan",
    "--batch-size": "0 x",
    "--target": "2 0",
    "--indices": "3,x",
    "--clip": "-1",
    "--smooth": "-1",
    "--effective-b": "1.5",
    "--warmup": "-1",
    "--iterations": "-1",
    "--latent-dim": "0",
    "--threads": "0",
    "--classes": "1 257",
    "--seed": "-1",
    "--batch-seed": "-1",
    "--ignore-index": "x",
}
WRONG_VALUES = [(option, "wrong") for option in CHOICES]
WRONG_VALUES += [(option, value) for option, values in OUT_OF_RANGE.items() for value in values.split()]

ZEROS = np.zeros((4, 8, 8), dtype=np.uint8)
RUN_FILES = (
    "config.json", "metrics.csv", "result.json", "report.html", "reconstructions.png", "curves.png",
    "model.safetensors",
)  # fmt: skip


@pytest.fixture
def fails(vaefit_cli, tmp_path, monkeypatch):
    """Run a command that must fail, for people and with --json; return the parts of its error."""
    monkeypatch.chdir(tmp_path)

    def check(code, *arguments):
        human = vaefit_cli(*arguments)
        machine = vaefit_cli(*arguments, "--json")
        assert (human.code, machine.code) == (code, code), human.err + machine.out
        errors = [line for line in human.err.splitlines() if not line.startswith("note: ")]
        assert len(errors) == 1, human.err
        assert errors[0].startswith("error: ")
        assert "error" not in machine.err
        found = machine.json
        assert set(found) == {"error", "exit"}
        assert found["exit"] == code
        parts = found["error"]
        assert set(parts) == {"what", "where", "got", "do"}
        assert all(isinstance(part, str) for part in parts.values())
        assert parts["what"]
        assert parts["where"]
        assert all(part in errors[0] for part in parts.values())
        assert not (tmp_path / "runs").exists(), "a failed run left a folder"
        return parts

    return check


@pytest.fixture
def blank(tmp_path, grids, write_dataset):
    """The small dataset with grid 7 all background."""
    cells = grids.copy()
    cells[7] = 0
    return write_dataset(tmp_path / "blank.h5", grids=cells)


# the command line alone is wrong


@pytest.mark.parametrize(("option", "value"), WRONG_VALUES)
def test_a_wrong_value_names_its_option(fails, dataset, option, value):
    assert option in " ".join(fails(USAGE, "overfit", dataset, option, value).values())


@pytest.mark.parametrize("option", CHOICES)
def test_a_wrong_word_lists_the_right_ones(fails, dataset, option):
    sentence = " ".join(fails(USAGE, "overfit", dataset, option, "wrong").values())
    assert [word for word in CHOICES[option].split() if word not in sentence] == []


@pytest.mark.slow
def test_a_wrong_value_is_repeated_with_advice(fails, dataset):
    silent = []
    for option, value in WRONG_VALUES:
        parts = fails(USAGE, "overfit", dataset, option, value)
        # Python may write a number anew: -1 as -1.0
        got = value.split(",")[0] in parts["what"].replace(option, "") + parts["got"]
        silent += [] if got and parts["do"] else [f"{option} {value}: {parts}"]
    assert silent == []


@pytest.mark.parametrize("option", ["--seed", "--ignore-index"])
def test_a_number_beyond_64_bits(fails, dataset, option):
    assert option in " ".join(fails(USAGE, "overfit", dataset, option, str(2**64)).values())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["overfit", "--no-such-option"], "--no-such-option"),
        (["no-such-command"], "no-such-command"),
        (["overfit", "a.h5", "b.h5"], "b.h5"),
        (["weights", "--scheme", "wrong"], "--scheme"),
        (["weights", "--smooth", "-1"], "--smooth"),
        (["weights", "--effective-b", "2"], "--effective-b"),
        (["weights", "--verify", "--rebuild"], "--verify"),
        (["data", "synth"], "out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_command_line(fails, dataset, arguments, named):
    if arguments[0] == "weights":
        arguments = ["weights", dataset, *arguments[1:]]
    parts = fails(USAGE, *arguments)
    assert named in " ".join(parts.values()).lower()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([1.0] * 9, "10"),
        ([1.0] * 11, "10"),
        ([1.0] * 3 + [float("nan")] + [1.0] * 6, "class 3"),
        ([1.0] * 8 + [-2.0, 1.0], "-2"),
        ([1.0] * 9 + [float("inf")], "class 9"),
        ([0.0] * 10, "zero"),
        ([[1.0] * 10], "10"),
    ],
    ids=["short", "long", "nan", "negative", "infinite", "zeros", "nested"],
)
@pytest.mark.parametrize("ending", ["json", "npy"])
def test_wrong_weights_in_a_file(fails, dataset, tmp_path, values, named, ending):
    file = tmp_path / f"weights.{ending}"
    if ending == "json":
        file.write_text(json.dumps(values))
    else:
        np.save(file, np.array(values))
    parts = fails(USAGE, "overfit", dataset, "--weights-file", file)
    assert file.name in parts["where"]
    assert named in parts["what"] + parts["got"]


def test_an_option_without_its_value(vaefit_cli):
    run = vaefit_cli("overfit", "--json", "--batch-size")
    assert (run.code, run.json["exit"]) == (USAGE, USAGE)
    assert "--batch-size" in run.json["error"]["what"]


# it could not run: data


@pytest.mark.parametrize("command", ["overfit", "weights"])
@pytest.mark.parametrize(
    ("datasets", "suffix", "named"),
    [
        ({}, "", ["(N, H, W)"]),
        ({"grids": ZEROS}, ":/other", ["/grids"]),
        ({"first": ZEROS, "second": ZEROS}, "", ["/first", "/second"]),
        ({"grids": ZEROS[0]}, "", ["(8, 8)"]),
        ({"grids": ZEROS[0]}, ":/grids", ["(8, 8)"]),
        ({"grids": ZEROS[None]}, ":/grids", ["(1, 4, 8, 8)"]),
        ({"grids": ZEROS + 0.5}, "", ["0.5", "whole number"]),
        ({"grids": ZEROS + 0.5}, ":/grids", ["0.5", "whole number"]),
        ({"grids": ZEROS[:0]}, "", ["empty", "(0, 8, 8)"]),
        ({"deep/grids": ZEROS}, ":/deep", ["group", "/deep/grids"]),
    ],
    ids=["none", "misnamed", "several", "rank 2", "rank 2 named", "rank 4", "float", "float named", "empty", "group"],
)
def test_a_file_without_usable_grids(fails, tmp_path, write_dataset, command, datasets, suffix, named):
    file = write_dataset(tmp_path / "odd.h5", **datasets)
    parts = fails(COULD_NOT_RUN, command, f"{file}{suffix}")
    assert "odd.h5" in parts["where"]
    assert parts["do"]
    assert [text for text in named if text not in " ".join(parts.values())] == []


@pytest.mark.parametrize("command", ["overfit", "weights"])
def test_a_file_that_is_not_there(fails, tmp_path, command):
    parts = fails(COULD_NOT_RUN, command, tmp_path / "absent.h5")
    assert "exist" in parts["what"]
    assert "absent.h5" in parts["where"]
    assert parts["do"]


@pytest.mark.parametrize("command", ["overfit", "weights"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_not_hdf5(fails, tmp_path, command, content):
    file = tmp_path / "text.h5"
    file.write_bytes(content)
    parts = fails(COULD_NOT_RUN, command, file)
    assert "HDF5" in parts["what"]
    assert "text.h5" in parts["where"]


def test_a_folder_instead_of_a_file(fails, tmp_path):
    assert "folder" in fails(COULD_NOT_RUN, "overfit", tmp_path)["what"]


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("command", ["overfit", "weights"])
def test_a_label_outside_the_classes_is_located(fails, tmp_path, grids, write_dataset, command, declared):
    cells = grids.copy()
    cells[17, 3, 5] = 11
    file = write_dataset(tmp_path / "grids.h5", grids=cells)
    option = ["--classes", "10"]
    if declared:
        with h5py.File(file, "a") as handle:
            handle["grids"].attrs["classes"] = 10
        option = []
    parts = fails(COULD_NOT_RUN, command, file, *option)
    sentence = " ".join(parts.values())
    for text in ("grids.h5", "/grids", "grid 17", "row 3", "column 5", "11", "10 classes", "--classes 12"):
        assert text in sentence


@pytest.mark.parametrize("command", ["overfit", "weights"])
def test_a_negative_label_is_located(fails, vaefit_cli, tmp_path, grids, write_dataset, command):
    cells = grids.astype(np.int8)
    cells[4, 0, 7] = -1
    file = write_dataset(tmp_path / "signed.h5", grids=cells)
    sentence = " ".join(fails(COULD_NOT_RUN, command, file).values())
    for text in ("signed.h5", "grid 4", "row 0", "column 7", "-1"):
        assert text in sentence
    assert vaefit_cli("weights", file, "--ignore-index", "-1").code == 0


def test_fewer_distinct_grids_than_the_batch(fails, vaefit_cli, tmp_path, grids, write_dataset):
    file = write_dataset(tmp_path / "repeats.h5", grids=np.tile(grids[:3], (20, 1, 1)))
    parts = fails(COULD_NOT_RUN, "overfit", file, "--batch-size", "8")
    assert "3 distinct" in parts["what"]
    assert "8" in parts["got"]
    assert "--allow-duplicates" in parts["do"]
    allowed = ("--allow-duplicates", "--iterations", "1", "--out", tmp_path / "run", "--json")
    run = vaefit_cli("overfit", file, "--batch-size", "8", *allowed)
    assert run.code == 1
    assert len(run.json["batch"]["indices"]) == 8


@pytest.mark.parametrize("indices", ["200", "3,200", "-1"])
def test_an_index_beyond_the_dataset(fails, dataset, indices):
    parts = fails(COULD_NOT_RUN, "overfit", dataset, "--indices", indices)
    sentence = " ".join(parts.values())
    assert indices.rpartition(",")[2] in sentence
    assert "199" in sentence


def test_equal_grids_at_the_indices(fails, dataset):
    assert "--allow-duplicates" in fails(COULD_NOT_RUN, "overfit", dataset, "--indices", "3,5,3")["do"]


def test_a_batch_without_a_cell_that_counts(fails, blank):
    parts = fails(COULD_NOT_RUN, "overfit", blank, "--indices", "7", "--ignore-index", "0")
    assert "ignore" in " ".join(parts.values())


@pytest.mark.parametrize("name", ["w.json", "w.npy", "w.safetensors"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "a named pipe"),
        (lambda file: file.symlink_to("/dev/zero"), "a device"),
        (lambda file: (file.touch(), os.truncate(file, 1 << 40)), "at most 67,108,864 are read"),
    ],
)
def test_a_weights_file_that_is_no_small_regular_file(fails, dataset, tmp_path, name, make, words):
    make(tmp_path / name)
    parts = fails(COULD_NOT_RUN, "overfit", dataset, "--weights-file", tmp_path / name)
    assert (parts["what"], parts["where"]) == ("the weights cannot be read", str(tmp_path / name))
    assert words in parts["got"]


def test_a_weights_file_that_is_not_there(fails, dataset, tmp_path):
    parts = fails(COULD_NOT_RUN, "overfit", dataset, "--weights-file", tmp_path / "absent.npy")
    assert "absent.npy" in parts["where"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(fails, dataset):
    parts = fails(COULD_NOT_RUN, "overfit", dataset, "--device", "cuda")
    assert "cuda" in parts["got"]
    assert "--device cpu" in parts["do"]


def test_triton_on_the_cpu(fails, dataset):
    sentence = " ".join(fails(COULD_NOT_RUN, "overfit", dataset, "--device", "cpu", "--backend", "triton").values())
    assert "triton" in sentence
    assert "cpu" in sentence


def test_a_run_folder_that_is_not_empty(fails, dataset, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    parts = fails(COULD_NOT_RUN, "overfit", dataset, "--out", folder)
    assert str(folder) in parts["where"]
    assert "--overwrite" in parts["do"]
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_overwrite_replaces_a_run_and_nothing_else(vaefit_cli, dataset, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    for name in RUN_FILES:
        (folder / name).write_text("old")
    run = vaefit_cli("overfit", dataset, "--batch-size", "4", "--iterations", "1", "--out", folder, "--overwrite")
    assert run.code == 1
    assert (folder / "notes.txt").read_text() == "kept"
    assert all((folder / name).read_bytes() != b"old" for name in RUN_FILES)
    assert {file.name for file in folder.iterdir()} == {"notes.txt", *RUN_FILES}


@pytest.mark.parametrize("tail", ["", "run", "deep/run"])
def test_a_file_where_the_run_folder_should_be(fails, dataset, tmp_path, tail):
    file = tmp_path / "file"
    file.write_text("kept")
    parts = fails(COULD_NOT_RUN, "overfit", dataset, "--out", file / tail)
    assert str(file / tail) in parts["where"]
    assert parts["do"]
    assert file.read_text() == "kept"


CANNOT_START = {
    "no data": ["absent.h5"],
    "a label outside": ["blank.h5", "--classes", "2"],
    "a large batch": ["blank.h5", "--batch-size", "500"],
    "no such grid": ["blank.h5", "--indices", "999"],
    "all cells ignored": ["blank.h5", "--indices", "7", "--ignore-index", "0"],
    "too few weights": ["blank.h5", "--weights-file", "short.json"],
    # finite in float64, not in the float32 that the loss is taken in
    "preflight": ["blank.h5", "--weights-file", "huge.json"],
    "backend": ["blank.h5", "--device", "cpu", "--backend", "triton"],
}


@pytest.mark.parametrize("case", CANNOT_START)
@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "--overwrite"])
def test_a_run_that_cannot_start_changes_nothing(vaefit_cli, blank, tmp_path, monkeypatch, case, earlier):
    monkeypatch.chdir(tmp_path)
    Path("short.json").write_text("[1, 2]")
    Path("huge.json").write_text(json.dumps([1e300] * 10))
    folder = Path("new/run")
    if earlier:
        folder.mkdir(parents=True)
        for name in (*RUN_FILES, "notes.txt"):
            (folder / name).write_text("old")
    run = vaefit_cli("overfit", *CANNOT_START[case], "--out", folder, "--overwrite", "--json")
    assert run.code in (USAGE, COULD_NOT_RUN)
    assert run.json["exit"] == run.code
    if not earlier:
        assert not Path("new").exists()
        return
    assert {file.name for file in folder.iterdir()} == {*RUN_FILES, "notes.txt"}
    assert all(file.read_text() == "old" for file in folder.iterdir())


# a cached file that cannot be used is no error, but never passed over in silence


def _cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def _edited(file):
    content = json.loads(file.read_text())
    content["labels"][0] += 1
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "ruin",
    [_cut, _edited, lambda f: f.write_bytes(b""), lambda f: f.write_text("[1, 2]"), lambda f: f.write_bytes(b"\xff")],
    ids=["cut", "edited", "empty", "foreign", "not text"],
)
@pytest.mark.parametrize("command", ["weights", "overfit"])
def test_a_torn_cached_file_is_rebuilt_aloud(vaefit_cli, dataset, tmp_path, ruin, command):
    first = vaefit_cli("weights", dataset, "--json").json
    file = Path(first["cache_file"])
    ruin(file)
    run = ("--batch-size", "4", "--iterations", "0", "--out", tmp_path / "run") if command == "overfit" else ()
    again = vaefit_cli(command, dataset, *run, "--json")
    found = again.json["dataset"] if command == "overfit" else again.json
    assert found["counts"] == first["counts"]
    assert file.name in again.err
    assert "ignored" in again.err
    third = vaefit_cli("weights", dataset, "--json")
    assert third.json["source"] == "cache"
    assert third.json["counts"] == first["counts"]
    assert third.err == ""


RAISING = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, after=3, text="boom"):
        super().__init__()
        self.conv, self.after, self.text, self.calls = nn.Conv2d(num_classes, num_classes, 1), after, text, 0

    def forward(self, x):
        self.calls += self.training or self.after < 0
        if self.calls > abs(self.after) and (self.training or self.after < 0):
            helper(self.text)
        return self.conv(x)

class Custom(Net):
    def state_dict(self, *args, **kwargs):
        raise KeyError("no state")

def helper(text):
    raise ValueError(text)
"""


def test_an_exception_of_the_users_model_is_hers_in_every_command(fails, vaefit_cli, dataset, tmp_path):
    (tmp_path / "net.py").write_text(RAISING)
    model = ("--model", "net.py:Net", "--batch-size", "8", "--lr", "0.01", "--overwrite")
    moment, where = "at update 3, rate 0.01", "net.py line 20"
    for command in ("overfit", "train"):
        error = fails(3, command, dataset, *model, "--out", "run")
        assert error["where"] == "Net"
        assert error["what"] == f'the model raised ValueError ("boom") {moment}, in {where}'
        assert error["do"].startswith("Mend it there.")
    shown = vaefit_cli("overfit", dataset, *model, "-v", "--out", "run").err
    assert shown.index("Traceback of your code") < shown.index("error: Net: the model raised")
    assert [line for line in shown.splitlines() if "File" in line] == [
        f'  File "{tmp_path / "net.py"}", line 12, in forward',
        f'  File "{tmp_path / "net.py"}", line 20, in helper',
    ]
    diverged = vaefit_cli("train", dataset, *model, "--model-arg", "text=nan in mu", "--out", "run", "--json")
    assert diverged.code == 1
    assert f'the model raised ValueError ("nan in mu") {moment}' in diverged.json["diverged"]
    shown = vaefit_cli("overfit", dataset, *model, "--model-arg", "text=nan in mu", "-v", "--out", "run")
    assert shown.code == 1
    assert "in helper" in shown.err
    assert "DIVERGED" in shown.out


def test_an_exception_of_the_users_model_after_the_run(fails, vaefit_cli, dataset, tmp_path):
    (tmp_path / "net.py").write_text(RAISING)
    model = ("--model", "net.py:Net", "--model-arg", "after=-100000", "--batch-size", "8", "--iterations", "2")
    assert vaefit_cli("overfit", dataset, *model, "--out", "run").code == 1
    (tmp_path / "net.py").write_text(RAISING.replace("self.after < 0", "True").replace("abs(self.after)", "2"))
    error = fails(3, "evaluate", "run", "--out", "measured")
    assert error["what"] == 'the model raised ValueError ("boom"), in net.py line 20'
    (tmp_path / "net.py").write_text(RAISING)
    error = fails(3, "overfit", dataset, *model, "--model", "net.py:Custom", "--out", "other", "--overwrite")
    assert error["what"].startswith("the model raised KeyError")
