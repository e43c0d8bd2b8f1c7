"""What a DATA argument names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vaefit.cache import DataError, Location, class_counts


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
    ("text", "wording"), [("", "no name of a file"), ("a\0b", "no name"), ("a.h5:/", "after ':/'")]
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


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DataError, match="no regular file"):
        class_counts(tmp_path / "pipe.h5")


def test_a_folder_whose_name_is_not_text_is_no_obstacle(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff")
    folder.mkdir()
    file = write_dataset(folder / "a.h5", grids=[[[0, 1], [1, 1]]])
    assert class_counts(file).tolist() == class_counts(file).tolist() == [1, 3]
