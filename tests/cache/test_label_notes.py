"""Labels that hardly are classes: void labels, gaps, attributes; each note names an option that works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, class_counts, count_shards

CLASSES = np.random.default_rng(0).integers(0, 21, (64, 16, 16))
VOID = np.random.default_rng(1).random(CLASSES.shape) < 0.05


def write(file: Path, cells: Any, **attributes: Any) -> Path:
    with h5py.File(file, "w") as handle:
        handle["mask"] = cells
        handle["mask"].attrs.update(attributes)
    return file


@pytest.mark.parametrize(("void", "dtype"), [(255, "u1"), (65535, "u2"), (127, "i1"), (99, "i4")])
def test_a_label_far_above_the_others(void: int, dtype: str, tmp_path: Path, said: Callable[[], str]) -> None:
    file = write(tmp_path / "voc.h5", np.where(VOID, void, CLASSES).astype(dtype))
    assert class_counts(file).size == void + 1
    advice = re.search(r"0 to 20, which makes \d+ classes; .*pass --ignore-index (\d+)", said())
    assert advice
    counts = class_counts(file, ignore_index=int(advice[1]))
    assert counts.tolist() == np.bincount(CLASSES[~VOID]).tolist()
    assert said().count("far above") == 1


@pytest.mark.parametrize(
    "cells",
    [CLASSES, np.where(CLASSES == 20, 22, CLASSES), np.arange(256).reshape(4, 8, 8), CLASSES == 3],
    ids=["all", "one absent", "256 classes", "bool"],
)
def test_nothing_is_said_of_classes(cells: Any, tmp_path: Path, said: Callable[[], str]) -> None:
    class_counts(write(tmp_path / "all.h5", cells.astype("u1")))
    class_counts(write(tmp_path / "given.h5", np.where(VOID, 255, CLASSES)), classes=256)
    class_counts(write(tmp_path / "declared.h5", np.where(VOID, 255, CLASSES), classes=256))
    assert said() == ""


@pytest.mark.parametrize(
    ("labels", "note"),
    [((0, 255), "0 and 255 only"), ((0, 205, 420, 600, 820, 850), "6 labels up to 850 make 851 classes")],
)
def test_gaps_are_closed_by_the_advice(labels: tuple[int, ...], note: str, tmp_path: Path, vaefit_cli: Any) -> None:
    cells = np.random.default_rng(0).integers(0, len(labels), (64, 8, 8))
    file = write(tmp_path / "gaps.h5", np.array(labels, "u2")[cells])
    shown = vaefit_cli("weights", file)
    assert shown.code == 0
    assert note in shown.err
    assert f"{labels[-1] + 1 - len(labels)} classes without a cell are not shown" in shown.out or labels[-1] < 256
    words = re.search("`vaefit-cli (data relabel DATA NEW.h5 --renumber)`", shown.err)[1].split()
    words[2], words[3] = str(file), str(tmp_path / "new.h5")
    assert vaefit_cli(*words).code == 0
    counted = vaefit_cli("weights", tmp_path / "new.h5", "--json")
    assert counted.json["counts"] == np.bincount(cells.reshape(-1)).tolist()
    assert "classes" not in counted.err


def test_too_many_classes_for_a_loss(tmp_path: Path, vaefit_cli: Any) -> None:
    file = write(tmp_path / "atlas.h5", np.random.default_rng(0).choice([0, 205, 600, 820], (64, 8, 8)))
    shown = vaefit_cli("overfit", file, "--out", tmp_path / "run", "--json")
    assert shown.code == 3
    assert "4 labels up to 820, and the loss takes 256 classes" in shown.json["error"]["what"]
    assert "relabel DATA NEW.h5 --renumber" in shown.json["error"]["do"]
    assert "--ignore-index" not in shown.out + shown.err


def test_one_label_above_none_is_nothing_to_learn(tmp_path: Path, vaefit_cli: Any) -> None:
    shown = vaefit_cli("overfit", write(tmp_path / "full.h5", np.full((4, 8, 8), 255)), "--json")
    assert (shown.code, "every counted cell holds one class" in shown.json["error"]["what"]) == (3, True)


@pytest.mark.parametrize("labels", [(-1, 0, 1), (-1, -2, 0), (0, 1, 70_000, 80_000), (0, 1, 2**63 + 1)])
def test_no_advice_leads_to_the_next_label(labels: tuple[int, ...], tmp_path: Path) -> None:
    cells = np.array(labels, "u8" if labels[-1] > 2**63 else "i8")[np.arange(64 * 16).reshape(64, 4, 4) % len(labels)]
    file = write(tmp_path / "outside.h5", cells)
    with pytest.raises(DataError) as caught:
        class_counts(file)
    assert int(caught.value.got) in labels
    assert "negative" not in caught.value.what or int(caught.value.got) < 0
    ignored = re.search(r"--ignore-index (\S+),", caught.value.do)
    outside = [label for label in labels if not 0 <= label < 1 << 16]
    if len(outside) == 1 and labels[-1] < 2**63:
        assert ignored
        assert class_counts(file, ignore_index=int(ignored[1])).sum() < cells.size
    else:
        assert "--renumber" in caught.value.do


@pytest.mark.slow
def test_attributes_declare_the_ignored_label_aloud(tmp_path: Path, vaefit_cli: Any, said: Callable[[], str]) -> None:
    cells, kept = np.where(VOID, 255, CLASSES).astype("u1"), np.bincount(CLASSES[~VOID]).tolist()
    file = write(tmp_path / "landcover.nc", cells, _FillValue=np.uint8(255))
    for source in ("scan", "cache"):
        found = count_shards(file)
        assert (found.counts.tolist(), found.source, found.ignore_index) == (kept, source, 255)
    assert said().count(f"`_FillValue` says that label 255 is ignored, {VOID.sum():,} cells") == 2
    assert class_counts(file, ignore_index=7).size == 256, "the option beats the attribute"
    write(file, np.where(VOID, -9, CLASSES), ignore_index=-9, _FillValue=3)
    assert class_counts(file).tolist() == kept
    run = vaefit_cli("overfit", file, "--iterations", "2", "--batch-size", "8", "--out", tmp_path / "run", "--json")
    assert sum(run.json["batch"]["counts"]) < 8 * 256
    evaluated = vaefit_cli("evaluate", tmp_path / "run", "--out", tmp_path / "evaluated", "--json")
    assert evaluated.code == 0, evaluated.out
    again = vaefit_cli("overfit", file, "--from", tmp_path / "run", "--out", tmp_path / "again", "--json")
    assert again.json["batch"]["counts"] == run.json["batch"]["counts"]
    with pytest.raises(DataError, match=r"attribute `ignore_index` is not a whole number"):
        class_counts(write(tmp_path / "bad.h5", cells, ignore_index="void"))
    write(tmp_path / "scores.h5", cells, _FillValue=np.nan)
    assert class_counts(tmp_path / "scores.h5").size == 256


def test_shards_that_declare_different_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", CLASSES, ignore_index=3)
    write(tmp_path / "b.h5", CLASSES)
    with pytest.raises(DataError, match=r"b\.h5: the shards of one dataset ignore one label.*Pass --ignore-index 3"):
        class_counts(tmp_path / "*.h5")
    assert class_counts(tmp_path / "*.h5", ignore_index=3)[3] == 0


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"chunks": (16, 4, 4)}, "768 of 1,024 cells, 3 chunks, were never written: they count as the fill value, 2"),
        ({"chunks": (16, 3, 3)}, "768 of 1,024 cells, 12 chunks, were never written"),
        ({"chunks": (16, 4, 4), "compression": "gzip"}, "768 of 1,024 cells, 3 chunks, were never written"),
        ({"chunks": (16, 4, 4), "compression": "lzf"}, "768 of 1,024 cells, 3 chunks, were never written"),
        ({}, "1,024 of 1,024 cells were never written: they count as the fill value, 2"),
        ("virtual", "768 of 1,024 cells were never written: they count as the fill value"),
    ],
    ids=str,
)
def test_cells_that_were_never_written_are_counted_aloud(
    tmp_path: Path, said: str, layout: dict[str, object] | str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file made in advance, whose writer stopped, looks whole: a first and a cached count say that it is not."""
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        if isinstance(layout, str):
            handle["part"] = np.ones((16, 4, 4), "u1")
            virtual = h5py.VirtualLayout((64, 4, 4), "u1")
            virtual[:16] = h5py.VirtualSource(handle["part"])
            handle.create_virtual_dataset("labels", virtual, fillvalue=2)
        else:
            grids = handle.create_dataset("labels", (64, 4, 4), "u1", fillvalue=2, **layout)
            if layout:
                grids[:16] = 1
    for source in ("scan", "cache"):
        caplog.clear()
        assert count_shards(f"{tmp_path / 'grids.h5'}:/labels").source == source
        assert said in caplog.text


def test_a_whole_file_has_no_such_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        handle.create_dataset("labels", data=np.ones((64, 4, 4), "u1"), chunks=(10, 3, 3))
    count_shards(tmp_path / "grids.h5")
    assert "never written" not in caplog.text


@pytest.mark.parametrize("value", [np.zeros(1 << 20, "i8"), "ten"], ids=["many numbers", "a text"])
def test_an_attribute_that_is_no_number_is_refused_unread(tmp_path: Path, value: object) -> None:
    with h5py.File(tmp_path / "grids.h5", "w", libver="latest") as handle:
        handle.create_dataset("labels", data=np.ones((4, 4, 4), "u1"), track_order=True).attrs["classes"] = value
    with pytest.raises(DataError, match=r"the attribute `classes` is not a whole number.*got \w+ of shape"):
        class_counts(tmp_path / "grids.h5")
