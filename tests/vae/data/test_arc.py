"""Tests of the errors of an ARC import: what, where, got, do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vaefit.cache import DataError
from vaefit.vae.data.arc import import_arc


def parts(error):
    return error.what, error.where, error.got, error.do


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("readme.txt", "", "no .json file"),
        ("task.json", '{"train": [{"input": [[0, 11]]}]}', "1 grids with labels outside 0..9"),
        ("task.json", '{"train": [{"input": [[0, 1], [2]]}]}', "1 grids that are not rectangles of integers"),
        ("task.json", '{"train": [{"input": [[0, true]]}]}', "1 grids that are not rectangles of integers"),
        ("task.json", '{"train": [{"input": [[true]]}]}', "1 grids that are not rectangles of integers"),
        ("task.json", '{"train": [{"input": [[0, 1.0]]}]}', "1 grids that are not rectangles of integers"),
        ("task.json", '{"train": [{"input": "01"}]}', "1 grids that are not rectangles of integers"),
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


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda file: file.symlink_to("/dev/zero")])
def test_an_arc_task_that_cannot_be_read(tmp_path, make):
    make(tmp_path / "task.json")
    with pytest.raises(DataError) as caught:
        import_arc(tmp_path)
    what, where, got, do = parts(caught.value)
    assert (what, where) == ("the task cannot be read", str(tmp_path / "task.json"))
    assert got
    assert do == "Make it readable, or move it out of the folder."
    with pytest.raises(DataError, match=r"this is not a folder of ARC tasks\. Pass a folder with \.json tasks in it\."):
        import_arc(tmp_path / "absent")
