"""native_counter.c against np.bincount, its build, and that numpy counts where it cannot be built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaefit.cache import DataError
from vaefit.cache.scan import native_counter, scan_dataset
from vaefit.cache.scan.histogram import Histogram, OutsideLabelError
from vaefit.cache.scan.native_counter import NUMPY, ByteCounter, build_counter, choose_counter

WORTH = native_counter.WORTH_BUILDING


@pytest.fixture
def fresh() -> Iterator[None]:
    """Unload the counter of this process before and after the test; the cache folder keeps the build."""
    build_counter.cache_clear()
    yield
    build_counter.cache_clear()


@pytest.fixture
def counter() -> ByteCounter:
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("no C compiler, or not on Linux")
    found = build_counter()
    assert found.count is not None, found.told
    assert found.told.startswith("native_counter.c counts, built ")
    return found


def counted(counter: ByteCounter, cells: np.ndarray) -> list[int]:
    counts = np.full(256, 3, np.int64)
    assert counter.count is not None
    counter.count(cells, counts)
    return (counts - 3).tolist()


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(0, 3 << 14) | st.sampled_from([(1 << 14) - 1, 1 << 14, 255 * 32, 255 * 32 + 1]),
    start=st.integers(0, 65),
    top=st.integers(0, 255) | st.sampled_from([0, 1, 4, 5, 9, 10, 15, 16, 255]),
    share=st.sampled_from([0.0, 0.001, 0.07, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_the_counts_are_numpys(size: int, start: int, top: int, share: float, seed: int) -> None:
    counter = build_counter()
    if counter.count is None:
        pytest.skip(counter.told)
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, top + 1, size + start, np.uint8) * (rng.random(size + start) < share)
    cells = cells.astype(np.uint8)[start:]
    assert counted(counter, cells) == np.bincount(cells, minlength=256).tolist()


@pytest.mark.parametrize("label", [0, 1, 4, 9, 15, 16, 255])
def test_many_cells_of_one_label_overflow_nothing(counter: ByteCounter, label: int) -> None:
    counts = np.full(256, 1 << 33, np.int64)
    cells = np.full((1 << 20) + 31, label, np.uint8)
    for _ in range(3):
        assert counter.count is not None
        counter.count(cells, counts)
    assert counts[label] == (1 << 33) + 3 * cells.size
    assert counts.sum() == (256 << 33) + 3 * cells.size


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "i8"])
@pytest.mark.parametrize("ignore", [None, -1, 3])
@pytest.mark.parametrize("lowest", [-1, 0])
def test_a_histogram_counts_what_it_counts_without(
    counter: ByteCounter, dtype: str, ignore: int | None, lowest: int
) -> None:
    cells = np.random.default_rng(5).integers(lowest, 101, 4099).astype(dtype)  # -1 in a u1 is the label 255
    planes = cells.view(np.uint8).reshape(cells.size, -1).T.copy()
    found = []
    for count in (None, counter.count):
        histogram = Histogram(np.dtype(dtype), ignore, count)
        try:
            histogram.add(cells.view(np.uint8))
            histogram.add_shuffled(planes)
        except OutsideLabelError:
            found.append(None)
        else:
            part = histogram.take()
            found.append((part.counts.tolist(), part.outside, part.cells))
    assert found[0] == found[1]
    assert (found[0] is None) is (lowest < 0 and np.dtype(dtype) != np.uint8 and ignore != -1)


LAYOUTS = {
    "contiguous": {},
    "gzip": {"chunks": (16, 6, 5), "compression": "gzip"},
    "gzip, shuffle": {"chunks": (16, 6, 5), "compression": "gzip", "shuffle": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "i1", "i8"])
def test_a_scan_with_it_is_a_scan_without(
    tmp_path: Path, counter: ByteCounter, monkeypatch: pytest.MonkeyPatch, layout: str, dtype: str
) -> None:
    grids = np.random.default_rng(0).integers(0, 12, (50, 6, 6)).astype(dtype)
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        dataset = handle.create_dataset("grids", data=grids, **LAYOUTS[layout])
        handle.flush()
        usual = scan_dataset(dataset, threads=1)
        assert usual.reason.endswith(NUMPY.told)
        monkeypatch.setattr(native_counter, "WORTH_BUILDING", grids.size)
        found = scan_dataset(dataset, threads=1)
        # single bytes, or planes of which one is counted; int8 has negative labels
        single = dtype == "u1" or (dtype == "i8" and "shuffle" in layout)
        assert found.reason.endswith(counter.told if single else NUMPY.told)
        assert found.counts.tolist() == usual.counts.tolist() == np.bincount(grids.ravel(), minlength=256).tolist()


def test_a_negative_label_is_still_named(tmp_path: Path, counter: ByteCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_counter, "WORTH_BUILDING", 1)
    grids = np.zeros((40, 6, 6), "i4")
    grids[31, 2, 4] = -7
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        dataset = handle.create_dataset("grids", data=grids, chunks=(8, 6, 6), compression="gzip", shuffle=True)
        with pytest.raises(DataError, match="negative label is at grid 31, row 2, column 4"):
            scan_dataset(dataset)
        found = scan_dataset(dataset, ignore_index=-7)
        assert (found.counts[0], found.outside) == (grids.size - 1, 1)


def test_it_is_built_for_many_cells_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    built = ByteCounter(None, "built")
    monkeypatch.setattr(native_counter, "build_counter", lambda: built)
    assert choose_counter(WORTH - 1, 1) is NUMPY
    assert choose_counter(WORTH, 1) is built
    assert choose_counter(2 * WORTH - 1, 2) is NUMPY
    assert choose_counter(2 * WORTH, 2) is built


def test_only_the_cells_that_are_left_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("vaefit.cache.scan.scan.choose_counter", lambda *of: asked.append(of) or NUMPY)
    monkeypatch.setattr("vaefit.cache.scan.contiguous_reader.SPAN_BYTES", 100)
    passed = []
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        dataset = handle.create_dataset("grids", data=np.zeros((10, 5, 8), "u1"))
        handle.flush()
        scan_dataset(dataset, threads=1, each=lambda at, _: passed.append(at))
        scan_dataset(dataset, threads=1, resume=passed[-2])
    assert asked == [(400, 1), (passed[-1].cells - passed[-2].cells, 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is built elsewhere")
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("compiler", "word"),
    [
        ("nosuch", "'nosuch' is no program on the PATH"),
        ("'", "No closing quotation"),
        (f"{sys.executable} -c 'raise SystemExit(\"too old\")'", "ended with 1: too old"),
        (f"{sys.executable} -c 'import time; time.sleep(9)'", "timed out"),
        (f"{sys.executable} -c 0", "native_counter.c was not built: "),
    ],
)
def test_where_it_cannot_be_built_numpy_counts(monkeypatch: pytest.MonkeyPatch, compiler: str, word: str) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(native_counter, "_LONGEST", 1.0)
    found = build_counter()
    assert (found.count, found.build_s) == (None, None)
    assert found.told.startswith("numpy counts: ")
    assert word in found.told
    assert build_counter() is found  # and is not tried again


@pytest.fixture
def no_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user's cache folder that cannot be made."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is built elsewhere")
@pytest.mark.usefixtures("fresh", "no_cache_folder")
def test_where_nothing_can_be_written_numpy_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nosuch"))
    assert "numpy counts: native_counter.c was not built: " in build_counter().told


@pytest.mark.usefixtures("counter", "fresh", "no_cache_folder")
def test_without_a_cache_folder_what_was_built_stays_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    counter = build_counter()
    assert list(temporary.iterdir()) == []
    assert counter.build_s is not None
    assert counter.told.startswith(f"native_counter.c counts, built in {counter.build_s:.2f} s and not kept: ")
    assert "Not a directory" in counter.told
    assert counted(counter, np.array([7, 7, 255], np.uint8))[7] == 2


@pytest.mark.usefixtures("counter", "fresh")
def test_the_next_process_takes_what_was_built(user_folder: Path) -> None:
    assert build_counter().build_s is not None
    (kept,) = (user_folder / "vaefit" / "native").glob("native_counter-*.so")
    before = kept.stat().st_mtime_ns
    script = "from vaefit.cache.scan.native_counter import build_counter; print(build_counter().told)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "native_counter.c counts, built earlier"
    assert kept.stat().st_mtime_ns == before


def test_verbose_says_which_counter_ran_and_why(
    vaefit_cli, dataset: Path, counter: ByteCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = vaefit_cli("weights", dataset, "--rebuild", "-v")
    assert f"; {NUMPY.told})" in " ".join(told.out.split())
    monkeypatch.setattr(native_counter, "WORTH_BUILDING", 1)
    told = vaefit_cli("weights", dataset, "--rebuild", "-v")
    assert f"; {counter.told})" in " ".join(told.out.split())
    assert "counter" not in vaefit_cli("weights", dataset, "--rebuild").err


@pytest.mark.usefixtures("fresh")
def test_on_other_systems_numpy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert build_counter().told == "numpy counts: building a counter has been tried on Linux alone"
