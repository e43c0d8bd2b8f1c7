"""Chunks that a plugin's filter compressed, read by a process that did not import hdf5plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

hdf5plugin = pytest.importorskip("hdf5plugin")

GRIDS = np.arange(4, dtype="u1").repeat(64).reshape(4, 8, 8)
COUNT = """
import sys
{before}
from vaefit import class_counts
from vaefit.cache import DataError
try:
    print(class_counts({file!r}, use_cache=False).tolist(), "hdf5plugin" in sys.modules)
except DataError as error:
    print(error)
"""


def counted(file: Path, before: str = "") -> str:
    script = COUNT.format(before=before, file=str(file))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def write(file: Path, filters: object) -> Path:
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=GRIDS, chunks=(2, 8, 8), **filters)
    return file


@pytest.mark.parametrize("name", ["Blosc", "Blosc2", "Zstd", "LZ4", "Bitshuffle"])
def test_the_command_finds_the_plugins_itself(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "grids.h5", getattr(hdf5plugin, name)())
    assert counted(file) == "[64, 64, 64, 64] True\n"


def test_a_file_that_needs_no_plugin_loads_none(tmp_path: Path) -> None:
    assert counted(write(tmp_path / "grids.h5", {"compression": "lzf"})) == "[64, 64, 64, 64] False\n"


def test_where_hdf5plugin_is_not_installed_the_error_names_the_filter_and_the_extra(tmp_path: Path) -> None:
    file = write(tmp_path / "grids.h5", hdf5plugin.Zstd())
    said = counted(file, "sys.modules['hdf5plugin'] = None")
    assert "without HDF5's filter zstd" in said
    assert "pip install hdf5plugin (the extra `plugins`)" in said
    assert "damaged" not in said


def test_the_source_of_a_virtual_dataset_may_need_a_plugin(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", hdf5plugin.Zstd())
    layout = h5py.VirtualLayout(GRIDS.shape, "u1")
    layout[:] = h5py.VirtualSource("part.h5", "grids", GRIDS.shape)
    with h5py.File(tmp_path / "whole.h5", "w") as handle:
        handle.create_virtual_dataset("grids", layout)
    assert counted(tmp_path / "whole.h5") == "[64, 64, 64, 64] True\n"
