"""Tests of DATA arguments: the file and dataset that they name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaefit.cache import DataError, Location, class_counts, count_dataset
from vaefit.vae.loader.split import find_named_splits


@pytest.mark.parametrize(
    ("text", "file", "dataset"),
    [
        ("a.h5", "a.h5", None),
        ("a.h5:/grids", "a.h5", "grids"),
        ("dir/a.h5:/group/train.x", "dir/a.h5", "group/train.x"),
        ("C:/a.h5", "C:/a.h5", None),
        ("C:/a.h5:/g", "C:/a.h5", "g"),
    ],
)
def test_a_colon_and_a_slash_name_the_dataset(text: str, file: str, dataset: str | None) -> None:
    assert Location.parse(text) == Location(Path(file), dataset)


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("", "no name of a file"),
        ("a\0b", "no name"),
        ("a.h5:/", "after ':/'"),
        ("a.h5:", "after ':'"),
        ("*.h5:", "after ':'"),
        ("s3://bucket/grids.h5", "this is a URL"),
        ("https://example.org/grids.h5", "this is a URL"),
    ],
)
def test_what_names_nothing_is_refused(text: str, wording: str) -> None:
    with pytest.raises(DataError, match=wording):
        Location.parse(text)


def test_a_folder_that_ends_in_a_colon_is_a_folder(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    (tmp_path / "odd:").mkdir()
    file = write_dataset(tmp_path / "odd:" / "a.h5", grids=[[[0, 1], [1, 1]]])
    assert class_counts(str(file)).tolist() == [1, 3]


def test_a_forgotten_slash_is_noticed(dataset: Path) -> None:
    with pytest.raises(DataError, match=r"Did you mean .*grids\.h5:/grids\?"):
        class_counts(f"{dataset}:grids")
    with pytest.raises(DataError, match=r"Did you mean .*grids\.h5:/group/grids\?"):
        class_counts(f"{dataset}::/group/grids")


def test_a_colon_and_nothing_behind_it(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"grids\.h5:: no dataset is named after ':'\. Pass file\.h5:/dataset, or only f"
    ):
        class_counts(f"{dataset}:")
    odd = tmp_path / "odd.h5:"
    odd.write_bytes(dataset.read_bytes())
    assert class_counts(str(odd)).tolist() == class_counts(dataset).tolist()
    odd.unlink()
    odd.mkdir()
    with pytest.raises(DataError, match="a folder"):
        class_counts(str(odd))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DataError, match="no regular file"):
        class_counts(tmp_path / "pipe.h5")


def test_a_folder_whose_name_is_not_text_is_no_obstacle(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff")
    folder.mkdir()
    file = write_dataset(folder / "a.h5", grids=[[[0, 1], [1, 1]]])
    assert class_counts(file).tolist() == class_counts(file).tolist() == [1, 3]


TOO_LONG = "a" * 300


@pytest.mark.parametrize(
    "data", [TOO_LONG, f"{TOO_LONG}.h5:/grids", f"{TOO_LONG}*", Location(Path(TOO_LONG)), ["x.h5", TOO_LONG]]
)
def test_a_name_that_no_file_system_takes(data: str | Location | list[str]) -> None:
    with pytest.raises(DataError, match=r"^a{300}.*: File name too long\. Check the path and its permissions\.$"):
        class_counts(data)
    if not isinstance(data, (list, Location)):
        with pytest.raises(DataError, match="File name too long"):
            count_dataset(data)


def test_a_path_that_is_long_only_with_its_dataset(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    name = "/".join(["group" * 20] * 60)
    file = write_dataset(tmp_path / "a.h5", **{name: [[[0, 1], [1, 1]]]})
    assert class_counts(f"{file}:/{name}").tolist() == [1, 3]


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    # as root everything may be entered
    monkeypatch.setattr(Path, "stat", refuse)
    for data in (tmp_path / "a.h5", f"{tmp_path}/*.h5"):
        with pytest.raises(DataError, match="Permission denied"):
            class_counts(data)


GONE = """
import os, tempfile, h5py  # Python 3.13.0 cannot import h5py in such a folder
from vaefit.cache import DataError, class_counts, count_dataset, find_shards
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
for ask in (class_counts, count_dataset, find_shards):
    for data in ("a.h5", "*.h5", "a.h5:/grids"):
        try:
            ask(data)
        except DataError as error:
            print(error)
"""


def test_a_working_folder_that_is_gone() -> None:
    done = subprocess.run([sys.executable, "-c", GONE], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    assert {line for line in lines if "working folder" in line} == {
        "the working folder: No such file or directory. Change to a folder that exists, or pass absolute paths."
    }


@pytest.mark.parametrize("data", [5, 5.0, None, b"grids.h5", ["grids.h5", 5], {"a": 1}, np.zeros((2, 2, 2), int)])
def test_what_is_no_name_is_one_sentence(data: Any) -> None:
    for use in (class_counts, find_named_splits)[: 1 if isinstance(data, list) else 2]:
        with pytest.raises(DataError, match=r"^a dataset is named by a text or a path \(got .*Pass file\.h5"):
            use(data)
