"""Tests of `vaefit-cli data import npz`: every array of grids, bounded memory, no partial file, plain errors."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import warnings
import zipfile

import h5py
import numpy as np
import pytest

import vaefit.vae.data.hdf5_writer as write
from vaefit.cache import DataError
from vaefit.cache.errors import SettingError
from vaefit.vae.data.hdf5_writer import DeferredErrorFile
from vaefit.vae.data.numpy_import import NumpyGrids


@pytest.fixture
def labels():
    """Grids of 5 x 7 cells, more than one block of a small chunk."""
    return np.random.default_rng(0).integers(0, 6, (300, 5, 7))


@pytest.fixture
def importing(vaefit_cli, tmp_path):
    def call(*arguments):
        return vaefit_cli("data", "import", "npz", *arguments, tmp_path / "out.h5", "--json")

    return call


def stored(tmp_path):
    with h5py.File(tmp_path / "out.h5") as file:
        return file["grids"][:], dict(file["grids"].attrs)


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "<u4", "i8", ">u8", "?"])
@pytest.mark.parametrize("kind", ["npy", "npz", "deflated", "fortran"])
def test_every_integer_dtype(importing, tmp_path, labels, dtype, kind, monkeypatch):
    monkeypatch.setattr(write, "CHUNK_CELLS", 35 * 64)
    cells = (labels > 2 if dtype == "?" else labels).astype(dtype)
    file = tmp_path / ("in.npz" if kind in ("npz", "deflated") else "in.npy")
    if kind == "npz":
        np.savez(file, cells)
    elif kind == "deflated":
        np.savez_compressed(file, cells=cells, names=np.array(["a"]))
    else:
        np.save(file, np.asfortranarray(cells) if kind == "fortran" else cells)
    outcome = importing(file)
    assert outcome.code == 0, outcome.err
    found, attributes = stored(tmp_path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, cells)
    assert "classes" not in attributes
    assert outcome.json["grids"] == 300
    assert (outcome.json["smallest"], outcome.json["largest"]) == (int(cells.min()), int(cells.max()))


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("dtype", ["u1", "i8", "f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_axis_of_length_1_is_dropped_aloud(importing, tmp_path, labels, axis, dtype, order):
    np.save(tmp_path / "in.npy", np.asarray(np.expand_dims(labels, axis), dtype, order=order))
    outcome = importing(tmp_path / "in.npy")
    assert np.array_equal(stored(tmp_path)[0], labels)
    assert "is stored as (300, 5, 7), without the axis of length 1" in outcome.err


def test_the_labels_of_an_archive_are_found_by_their_name(importing, tmp_path, labels):
    images = np.random.default_rng(0).integers(0, 256, labels.shape)
    np.savez(tmp_path / "in.npz", images=images, labels=labels[..., None])
    outcome = importing(tmp_path / "in.npz")
    assert np.array_equal(stored(tmp_path)[0], labels)
    assert (outcome.json["array"], outcome.json["passed_over"]) == ("labels", ["images"])
    assert "array labels was taken, passed over: images" in outcome.err
    np.savez(tmp_path / "in.npz", first=images, second=labels)
    assert importing(tmp_path / "in.npz", "--overwrite").json["array"] == "second"


@pytest.mark.parametrize(
    ("label", "dtype"), [(-100, "int8"), (-1000, "int16"), (255, "uint8"), (300, "int16"), (-(2**40), "int64")]
)
def test_a_label_to_ignore_is_kept(importing, tmp_path, labels, label, dtype):
    labels[7, 1, 2] = label
    np.save(tmp_path / "in.npy", labels)
    outcome = importing(tmp_path / "in.npy")
    found, _ = stored(tmp_path)
    assert np.array_equal(found, labels)
    assert str(found.dtype) == outcome.json["dtype"] == dtype
    assert ("--ignore-index" in outcome.err) == (not 0 <= label < 256)


def test_the_key_and_the_classes(importing, tmp_path, labels, vaefit_cli):
    np.savez(tmp_path / "in.npz", train=labels, test=labels + 1)
    assert importing(tmp_path / "in.npz", "--key", "test", "--classes", "9").code == 0
    found, attributes = stored(tmp_path)
    assert np.array_equal(found, labels + 1)
    assert attributes["classes"] == 9
    counted = vaefit_cli("weights", tmp_path / "out.h5", "--json").json
    assert counted["counts"] == np.bincount(labels.reshape(-1) + 1, minlength=9).tolist()


def _npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _flipped(data):
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 0x55
    return bytes(changed)


GRIDS = np.random.default_rng(1).integers(0, 6, (300, 5, 7))


@pytest.mark.parametrize(
    ("data", "options", "code", "wording"),
    [
        (_npz(a=GRIDS, b=GRIDS), (), 3, "2 arrays could be the labels"),
        (_npz(a=GRIDS, b=GRIDS), ("--key", "c"), 3, "there is no such array"),
        (_npz(a=GRIDS[0]), (), 3, "grids are three dimensions"),
        (_npz(a=GRIDS[0], b=GRIDS[1]), (), 3, "no array of integers (N, H, W)"),
        (_npz(), (), 3, "no array of integers (N, H, W)"),
        (_npz(a=np.asfortranarray(GRIDS)), (), 3, "stored column by column"),
        (_npy(GRIDS), ("--key", "a"), 2, "Leave --key out"),
        (_npy(GRIDS + 0.5), (), 3, "a label is not a whole number"),
        (_npy(GRIDS.astype("c8")), (), 3, "the labels are not integers"),
        (_npy(GRIDS[:0]), (), 3, "at least one grid"),
        (_npy(np.eye(6, dtype=int)[GRIDS]), (), 3, "Store one label for each cell"),
        (_npy(np.eye(6)[GRIDS]), (), 3, "take the argmax over the classes"),
        (_npy(GRIDS) + b"more", (), 3, "4 bytes follow the array"),
        (_npy(GRIDS.astype("u8") + 2**63), (), 3, "beyond 64 bits"),
        (_npy(GRIDS)[:-1], (), 3, "1 bytes are missing"),
        (_npy(GRIDS)[:60], (), 3, "damaged"),
        (_npz(a=GRIDS)[:-30], (), 3, "damaged"),
        (_flipped(_npz(a=GRIDS)), (), 3, "damaged"),
        (b"", (), 3, "damaged"),
        (b"\x89HDF\r\n\x1a\n", (), 3, "damaged"),
        (_npy(GRIDS), ("--classes", "1"), 2, "2 to 256"),
    ],
)
def test_what_is_not_grids_is_refused_and_nothing_is_written(importing, tmp_path, data, options, code, wording):
    (tmp_path / "in").write_bytes(data)
    outcome = importing(tmp_path / "in", *options)
    assert outcome.code == code
    error = outcome.json["error"]
    assert wording in " ".join(error.values())
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_pickles_are_never_loaded(importing, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    trapped = np.empty((1, 1, 1), dtype=object)
    trapped[0, 0, 0] = Trap()
    np.save(tmp_path / "in.npy", trapped, allow_pickle=True)
    assert importing(tmp_path / "in.npy").code == 3
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_not_there(importing, tmp_path):
    assert importing(tmp_path / "in.npz").json["error"]["what"] == "this is not a file"


def test_an_existing_file_stays(importing, tmp_path, labels):
    np.save(tmp_path / "in.npy", labels)
    (tmp_path / "out.h5").write_text("mine")
    assert importing(tmp_path / "in.npy").code == 3
    assert (tmp_path / "out.h5").read_text() == "mine"
    assert importing(tmp_path / "in.npy", "--overwrite").code == 0


@pytest.mark.parametrize("room", [0, 100, 1000, 5000])
def test_a_full_disk_leaves_the_old_file(importing, tmp_path, labels, monkeypatch, room):
    np.save(tmp_path / "in.npy", labels)
    (tmp_path / "out.h5").write_text("mine")
    write_some = io.FileIO.write

    def limited(self, data):
        if self.tell() + len(data) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_some(self, data)

    class Small(io.FileIO):
        write = limited

    monkeypatch.setattr(write, "DeferredErrorFile", type("Full", (DeferredErrorFile, Small), {}))
    outcome = importing(tmp_path / "in.npy", "--overwrite")
    assert outcome.code == 3
    assert outcome.json["error"]["got"] == "No space left on device"
    assert (tmp_path / "out.h5").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.npy", "out.h5"]


@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    """192 MB of labels, deflated to next to nothing, within 64 MB of a small import."""
    for name, grids in (("small", 16), ("large", 93_750)):
        file = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("grids.npy", "w") as stream:
            header = {"descr": "<i8", "fortran_order": False, "shape": (grids, 16, 16)}
            np.lib.format.write_array_header_1_0(stream, header)
            for _ in range(grids // 2):
                stream.write(bytes(2 * 16 * 16 * 8))
    program = """
import resource, sys
from vaefit.cli import run
assert run(["data", "import", "npz", sys.argv[1], sys.argv[2]]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for name in ("small", "large"):
        command = [sys.executable, "-c", program, str(tmp_path / f"{name}.npz"), str(tmp_path / f"{name}.h5")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        unit = 1 if sys.platform == "darwin" else 1024
        peaks.append(int(done.stdout.split()[-1]) * unit)
    assert peaks[1] - peaks[0] < 64 << 20


def saved(**arrays):
    """A `.npz` as bytes; a `.npy` where the array has no name."""
    stream = io.BytesIO()
    if "npy" in arrays:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of version 3 of its format
            np.save(stream, arrays["npy"])
    else:
        np.savez(stream, **arrays)
    return stream.getvalue()


ZEROS = np.zeros((2, 3, 4), dtype=np.uint8)
STRUCTURED = np.zeros(2, dtype=[("\u0142", "u1")])  # the name of the field asks for version 3 of the format
NO_NUMPY = "the file is not a numpy file, or it is damaged"


@pytest.mark.parametrize(
    ("content", "key", "what", "got", "do"),
    [
        (saved(npy=ZEROS), "a", "a .npy file holds one array without a name", "a", "Leave --key out."),
        (
            saved(a=ZEROS, b=ZEROS),
            None,
            "2 arrays could be the labels",
            "a (2, 3, 4) uint8, b (",
            "Name one with --key.",
        ),
        (
            saved(a=ZEROS[0], b=ZEROS[1]),
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
    np.save(file, ZEROS)
    monkeypatch.setattr("vaefit.vae.data.numpy_import.read_header", refuse)
    with pytest.raises(DataError) as caught:
        NumpyGrids.find(file)
    error = caught.value
    assert (error.what, error.where) == ("the file cannot be read", str(file))
    assert (error.got, error.do) == ("Permission denied", "Check its permissions.")
