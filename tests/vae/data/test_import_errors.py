"""What is said of files that grids cannot be imported from: what, where, what was found, and what to do."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest

from vaefit.cache import DataError
from vaefit.cache.errors import SettingError
from vaefit.vae.data.arc import import_arc
from vaefit.vae.data.numpy_import import NumpyGrids


def parts(error):
    return error.what, error.where, error.got, error.do


def saved(**arrays):
    """A `.npz` as bytes; a `.npy` where the array has no name."""
    stream = io.BytesIO()
    if "npy" in arrays:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy tells of version 3 of its format
            np.save(stream, arrays["npy"])
    else:
        np.savez(stream, **arrays)
    return stream.getvalue()


GRIDS = np.zeros((2, 3, 4), dtype=np.uint8)
STRUCTURED = np.zeros(2, dtype=[("\u0142", "u1")])  # the name of the field asks for version 3 of the format
NO_NUMPY = "the file is not a numpy file, or it is damaged"


@pytest.mark.parametrize(
    ("content", "key", "what", "got", "do"),
    [
        (saved(npy=GRIDS), "a", "a .npy file holds one array without a name", "a", "Leave --key out."),
        (
            saved(a=GRIDS, b=GRIDS),
            None,
            "2 arrays could be the grids",
            "a (2, 3, 4) uint8, b (",
            "Name one with --key.",
        ),
        (
            saved(a=GRIDS[0], b=GRIDS[1]),
            None,
            "no array of integers (N, H, W) is in the file",
            "a (3, 4) uint8, b (",
            "Name one with --key.",
        ),
        (
            saved(npy=STRUCTURED),
            None,
            NO_NUMPY,
            "version (3, 0) of the npy format holds structured arrays",
            "Pass an array saved by numpy.save, or arrays saved by numpy.savez.",
        ),
        (
            saved(npy=np.array(["0", "1"])),
            None,
            "the labels are not integers",
            "dtype <U1, shape (2,)",
            "Store them as an integer dtype.",
        ),
    ],
)
def test_numpy_files(tmp_path, content, key, what, got, do):
    file = tmp_path / "grids.npz"
    file.write_bytes(content)
    with pytest.raises((DataError, SettingError)) as caught:
        NumpyGrids.find(file, key)
    found = caught.value
    assert (found.what, found.do) == (what, do)
    assert got in found.got
    assert found.where == ("--key" if isinstance(found, SettingError) else str(file))


def test_a_numpy_file_without_the_right_to_read_it(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "grids.npy"
    np.save(file, GRIDS)
    monkeypatch.setattr("vaefit.vae.data.numpy_import._header", refuse)
    with pytest.raises(DataError) as caught:
        NumpyGrids.find(file)
    assert parts(caught.value) == ("the file cannot be read", str(file), "Permission denied", "Check its permissions.")


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("readme.txt", "", "no .json file"),
        ("task.json", '{"train": [{"input": [[0, 11]]}]}', "1 grids with labels outside 0..9"),
        ("task.json", '{"train": [{"input": [[0, 1], [2]]}]}', "1 grids that are not rectangles of integers"),
        ("task.json", json.dumps({"test": [{"input": [[0] * 31]}]}), "1 grids larger than 16 x 16"),
        ("task.json", "[]", "1 files that are not ARC tasks"),
    ],
)
def test_arc_tasks_without_a_grid(tmp_path, name, text, got):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        import_arc(tmp_path)
    do = "Check the folder, or raise --max-side."
    assert parts(caught.value) == ("no grid was found", str(tmp_path), got, do)


def test_an_arc_task_that_cannot_be_read(tmp_path):
    (tmp_path / "task.json").mkdir()
    with pytest.raises(DataError) as caught:
        import_arc(tmp_path)
    what, where, got, do = parts(caught.value)
    assert (what, where) == ("the task cannot be read", str(tmp_path / "task.json"))
    assert got
    assert do == "Make it readable, or move it out of the folder."
    with pytest.raises(DataError, match=r"this is not a folder of ARC tasks\. Pass a folder with \.json tasks in it\."):
        import_arc(tmp_path / "absent")
