"""Data that this process has written, through a handle that is still open; files that are refused, and why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, class_counts, class_weights, count_dataset
from vaefit.cache.hdf5.dataset import open_grids
from vaefit.cache.location import Location
from vaefit.vae.data.batch import batch_at


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 3, 3)}, {"chunks": (1, 3, 3), "compression": "gzip"}])
def test_what_was_not_flushed_is_counted(tmp_path: Path, use_cache: bool, layout: dict[str, object]) -> None:
    file = tmp_path / "w.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=np.zeros((4, 3, 3), "u1"), **layout)
        for label in (1, 2, 3):
            handle["grids"][label] = label
            expected = [36 - 9 * label, *[9] * label]
            for _ in range(2):
                assert class_counts(file, use_cache=use_cache).tolist() == expected
            assert batch_at(file, (label,)).grids.tolist() == [[[label] * 3] * 3]
    assert class_counts(file).tolist() == [9, 9, 9, 9]


def test_it_is_cached_and_reading_changes_nothing(dataset: Path, write_dataset: Callable[..., Path]) -> None:
    other = write_dataset(dataset.with_name("other.h5"), grids=np.zeros((1, 2, 2), "u1"))
    with h5py.File(dataset, "r+"), h5py.File(other, "r+"):
        before = [file.stat().st_mtime_ns for file in (dataset, other)]
        assert [count_dataset(dataset).source for _ in range(2)] == ["scan", "cache"]
        assert class_weights(dataset).size == 10
        assert [file.stat().st_mtime_ns for file in (dataset, other)] == before


def test_a_source_of_a_virtual_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as part:
        part["grids"] = np.zeros((4, 3, 3), "u1")
        part.flush()
        layout = h5py.VirtualLayout((4, 3, 3), "u1")
        layout[:] = h5py.VirtualSource("part.h5", "grids", (4, 3, 3))
        with h5py.File(tmp_path / "whole.h5", "w") as whole:
            whole.create_virtual_dataset("grids", layout)
        assert class_counts(tmp_path / "whole.h5").tolist() == [36]
        part["grids"][0] = 1
        assert class_counts(tmp_path / "whole.h5").tolist() == [27, 9]
        assert count_dataset(tmp_path / "whole.h5").source == "cache"


def test_axes_in_reverse_order_are_refused_with_a_command_that_mends_them(tmp_path: Path) -> None:
    grids = np.arange(5 * 3 * 4, dtype="u1").reshape(5, 3, 4) % 7
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as handle:
        handle["labels"] = grids.T
        handle["labels"].attrs["MATLAB_class"] = np.bytes_("uint8")
    with pytest.raises(DataError, match=r"MATLAB wrote.*got \(4, 3, 5\) here, \(5, 3, 4\) in MATLAB") as raised:
        class_counts(tmp_path / "m.mat")
    script = raised.value.do.partition('"')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with open_grids(Location(tmp_path / "grids.h5")) as mended:
        assert (mended[()] == grids).all()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE HTML>\n<html lang='en'>", "a web page"),
        (b"\x93NUMPY\x01\x00", "a numpy or zip file"),
        (b"\x1f\x8b\x08\x00", "a gzip file"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "an older MATLAB file"),
        (b"CDF\x01\0\0\0\0", "a classic netCDF file"),
    ],
)
def test_a_file_of_another_kind_is_said_to_be_that(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "grids.h5").write_bytes(head)
    with pytest.raises(DataError, match=f"this is {kind}, not an HDF5 file"):
        class_counts(tmp_path / "grids.h5")


def test_a_file_whose_writer_was_killed_is_said_to_be_open_for_writing(tmp_path: Path) -> None:
    script = "import h5py, os; f = h5py.File('g.h5', 'w', libver='latest'); f['g'] = [[[0]]]; f.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with pytest.raises(DataError, match=r"marked as open for writing.*h5clear -s"):
        class_counts(tmp_path / "g.h5")


def test_a_file_of_links_is_not_an_empty_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as handle:
        handle["grids"] = np.zeros((1, 2, 2), "u1")
    with h5py.File(tmp_path / "main.h5", "w") as handle:
        handle["linked"] = h5py.ExternalLink("part.h5", "/grids")
    with pytest.raises(DataError, match=r"got /linked, a link to part.h5:/grids.*main.h5:/linked"):
        class_counts(tmp_path / "main.h5")
    assert class_counts(f"{tmp_path / 'main.h5'}:/linked").tolist() == [4]
