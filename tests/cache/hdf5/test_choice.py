"""Tests of the choice of the labels among the datasets of a file, and of the notes on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, count_shards

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, (64, 16, 16)).astype("u1")
GREY = RNG.integers(0, 256, (64, 16, 16)).astype("u1")
COUNTS = np.bincount(LABELS.reshape(-1)).tolist()
NUMBERS = np.arange(64)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of these datasets; two underscores in a name are a group's slash."""

    def make(**datasets: Any) -> Path:
        with h5py.File(tmp_path / "d.h5", "w") as handle:
            for name, cells in datasets.items():
                handle[name.replace("__", "/")] = cells
        return tmp_path / "d.h5"

    return make


@pytest.mark.parametrize(
    ("datasets", "taken"),
    [
        ({"images": GREY, "labels": LABELS[..., None]}, "/labels"),
        ({"images": GREY, "labels": LABELS[:, None]}, "/labels"),
        ({"image": GREY, "segMask": LABELS}, "/segMask"),
        ({"raw__0": GREY, "gt__0": LABELS.astype("i8")}, "/gt/0"),
        ({"x": GREY, "y": LABELS.astype("f4")}, "/y"),
        ({"a": GREY, "b": LABELS}, "/b"),
        ({"a": GREY, "b": LABELS.astype("f4")}, "/a"),
        ({"scans": GREY, "data": LABELS}, "/data"),
        ({"images": GREY}, "/images"),
        ({"data": LABELS, "class_weights": np.ones(4)}, "/data"),
        ({"mask": LABELS, "label": NUMBERS}, "/mask"),
        ({"grids": LABELS, "ids": NUMBERS, "note": b"text"}, "/grids"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_what_is_taken(made: Callable[..., Path], datasets: dict[str, Any], taken: str) -> None:
    file = made(**datasets)
    for source in ("scan", "cache"):
        found = count_shards(file)
        assert (found.source, found.dataset) == (source, taken)
        others = {f"/{name.replace('__', '/')}" for name, cells in datasets.items() if np.ndim(cells)} - {taken}
        assert set(found.passed_over) == others
    cells = datasets[taken[1:].replace("/", "__")]
    assert found.counts.tolist() == np.bincount(cells.reshape(-1).astype("i8")).tolist()
    assert count_shards(f"{file}:{taken}").passed_over == ()


@pytest.mark.parametrize(
    ("datasets", "listed"),
    [
        ({"train__labels": LABELS, "test__labels": LABELS}, {"train/labels", "test/labels"}),
        ({"a": LABELS, "b": LABELS}, {"a", "b"}),
        ({"images": GREY, "ids": NUMBERS}, {"images", "ids"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_several_could_be_meant(made: Callable[..., Path], datasets: dict[str, Any], listed: set[str]) -> None:
    file = made(**datasets)
    with pytest.raises(DataError) as caught:
        count_shards(file)
    assert all(f"{file}:/{name} (" in caught.value.do for name in listed)


def test_one_label_an_image_is_named_and_refused(made: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"d\.h5:/labels: grids are three dimensions.*\(64,\)"):
        count_shards(made(images=GREY, labels=NUMBERS))


def test_the_check_names_it(vaefit_cli: Any, made: Callable[..., Path], tmp_path: Path) -> None:
    file = made(images=GREY, labels=LABELS[..., None])
    shown = vaefit_cli("overfit", file, "--batch-size", "8", "--iterations", "1", "--out", tmp_path / "run", "--json")
    assert (shown.json["dataset"]["name"], shown.json["dataset"]["passed_over"]) == ("/labels", ["/images"])
    assert shown.json["dataset"]["counts"] == COUNTS
    assert "shape (64, 16, 16, 1) is read as (64, 16, 16)" in shown.err
    told = vaefit_cli("show", tmp_path / "run").out
    assert f"data        {file}:/labels: 64 grids of 16 x 16, 4 classes\npassed over /images\n" in told
    shown = vaefit_cli("weights", file, "--classes", "4")
    assert "shape (64, 16, 16, 1) is read as (64, 16, 16)" in shown.err
    assert f"{file}:/labels: 64 grids" in shown.out
    assert "passed over /images" in shown.out


def test_named_splits_are_no_images(made: Callable[..., Path], vaefit_cli: Any, tmp_path: Path) -> None:
    file = made(
        images__train=GREY, images__val=GREY, labels__train=LABELS[..., None], labels__val=LABELS[:8, ..., None]
    )
    shown = vaefit_cli("overfit", file, "--iterations", "1", "--batch-size", "4", "--out", tmp_path / "run", "--json")
    assert shown.json["dataset"]["classes"] == 4
    assert shown.json["dataset"]["grids"] == 72
