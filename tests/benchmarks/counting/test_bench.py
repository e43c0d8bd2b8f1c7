"""`vaefit-cli bench histogram`: parity before time, every layout, and what is printed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from vaefit.benchmarks.counting import comparison, counters, scaling
from vaefit.benchmarks.counting.bench import HistogramBench, HistogramSettings
from vaefit.benchmarks.counting.comparison import (
    COMPILED,
    DECODE,
    IMPLEMENTATIONS,
    NAIVE,
    OURS,
    READ,
    TWO_THREADS,
    ZLIB,
    StoredLayout,
)
from vaefit.benchmarks.counting.goals import judge_counting, wall_gain
from vaefit.benchmarks.counting.layouts import BY_NAME, LAYOUTS, make_cells, write_repeated
from vaefit.benchmarks.counting.row import CountRow, Spread
from vaefit.benchmarks.counting.scaling import Hit, Scaling, SizeRow
from vaefit.benchmarks.counting.worker import Request, Worker, WorkerError
from vaefit.cache.scan.native_counter import ByteCounter, build_counter

pytestmark = pytest.mark.slow

INSTALLED = [layout for layout in LAYOUTS if layout.installed]


@pytest.fixture
def brief(monkeypatch):
    """Small datasets, one round and one hit."""
    monkeypatch.setattr("vaefit.benchmarks.counting.bench.SIZES", (2 << 20, 4 << 20, 6 << 20))
    monkeypatch.setattr(HistogramSettings, "rounds", 1)
    monkeypatch.setattr(comparison, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(scaling, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(scaling, "HITS", 1)
    monkeypatch.setattr(scaling, "NOT_RACY_SECONDS", 0.0)  # the cache compares the bytes then, and is still right


@pytest.fixture
def bench(vaefit_cli, brief):
    """Run the command in this process, on few grids."""
    return lambda *arguments: vaefit_cli("bench", "histogram", "--quick", "--grids", "3000", *arguments)


def test_a_row_for_each_layout_and_implementation(bench):
    done = bench("--json", "--layout", "gzip", "--layout", "contiguous")
    assert done.code == 0, done.err
    found = done.json
    built = build_counter()
    assert found["counter"] == {"told": built.told, "build_s": built.build_s}
    assert built.told.startswith("native_counter.c counts" if built.count else "numpy counts")
    names = [implementation.name for implementation in IMPLEMENTATIONS if built.count or not implementation.compiled]
    rows = found["rows"]
    by = {(row["layout"], row["implementation"]): row for row in rows}
    assert [name for layout, name in by if layout == "gzip"] == [n for n in names if "h5py" not in n]
    assert [name for layout, name in by if layout == "contiguous"] == [n for n in names if "zlib" not in n]
    assert len(by) == len(rows)
    for row in rows:
        assert row["parity"] is True
        assert row["bytes"] == row["measured_bytes"] == 3000 * 256
        assert 0 < row["cpu"]["least"] <= row["cpu"]["low"] <= row["cpu_s"] <= row["cpu"]["high"]
        assert row["wall_s"] > 0
        assert row["gb_s"] == pytest.approx(row["bytes"] / row["cpu_s"] / 1e9)
        decoding = by[row["layout"], "decode only, zlib" if "zlib" in row["implementation"] else "decode only"]
        assert row["decode_share"] == pytest.approx(decoding["cpu_s"] / row["cpu_s"])
        if row["implementation"] == "naive":
            assert row["ratio"] is None
        else:
            assert row["ratio"] == pytest.approx(by[row["layout"], "naive"]["cpu_s"] / row["cpu_s"])
        ours = row["implementation"].startswith("vaefit")
        assert bool(row["way"]) is ours
        assert (row["extra_bytes"] is not None) is (ours and sys.platform == "linux")
    assert [size["bytes"] for size in found["sizes"]] == [2 << 20, 4 << 20]  # without the largest
    assert all(
        size["parity"] and size["cpu_s"] > 0 and set(size["extra_bytes"]) == {"1", "2"} for size in found["sizes"]
    )
    assert found["cache_hit"]["wall_ms"] > 0
    assert found["unevenness"] >= 1
    assert found["parity"] is True
    assert found["machine"].keys() == {"cpu", "cpus", "system"}
    assert found["versions"]["hdf5"] == h5py.version.hdf5_version
    # 3,000 grids fill no chunk, so only what is measured apart from layouts is judged
    whats = " ".join(goal["what"] for goal in found["goals"])
    assert "naive" not in str(found["goals"])
    assert all(word in whats for word in ("memory", "CPU time a cell", "cache hit"))


@pytest.fixture
def shown(vaefit_cli, monkeypatch):
    """Return what the command prints for a result, and its exit code."""

    def show(found, *arguments):
        monkeypatch.setattr("vaefit.benchmarks.counting.bench.bench_histogram", lambda *_: found)
        return vaefit_cli("bench", "histogram", *arguments)

    return show


def test_the_tables(shown):
    done = shown(_bench())
    assert done.code == 0, done.err
    words = [layout.title for layout in LAYOUTS] + [implementation.name for implementation in IMPLEMENTATIONS]
    words += ["10 MB of cells, read as chunks", "naive, 50 % of it", "x naive", "of decoding", "1.0 MiB", "1 (1-1) s"]
    words += ["1.5 s", "cache hit   1.00 ms", "goals of counting", "h5py 3", "deflate not installed"]
    words += ["compiled    native_counter.c counts, built in 0.12 s; the times are without the build"]
    for word in words:
        assert word in done.out
    assert "MISSED" not in done.out


def test_the_tables_where_parity_is_red(shown):
    bench = _bench(hit=None)
    rows = [replace(row, parity=row.implementation != "naive", cpu=None, wall=None) for row in bench.rows]
    sizes = tuple(replace(size, parity=False, cpu_s=None) for size in bench.scaling.sizes)
    bench = replace(bench, rows=tuple(rows), scaling=replace(bench.scaling, sizes=sizes))
    done = shown(bench)
    assert done.code == 1
    assert "not timed" in done.out
    assert "parity is red" in done.out
    assert "cache hit   none" in done.out
    assert " ms" not in done.out.split("goals of counting")[0]


def test_only_require_makes_goals_count(shown):
    missed = _bench(gain=1.0)
    done = shown(missed)
    assert done.code == 0
    assert "MISSED" in done.out
    assert shown(missed, "--require").code == 1
    assert shown(_bench(), "--require").code == 0


def test_a_wrong_count_is_red_and_prints_no_time(bench, monkeypatch):
    honest = Worker.ask

    def wrong(self, request):
        answer = honest(self, request)
        if request.counter == "ours_on_two" and "contiguous" in request.file:
            counts = [*answer.counts]
            counts[3] += 1
            return replace(answer, counts=counts)
        return answer

    monkeypatch.setattr(Worker, "ask", wrong)
    done = bench("--json", "--layout", "contiguous", "--layout", "chunked")
    assert done.code == 1
    assert done.json["parity"] is False
    for row in done.json["rows"]:
        red = row["layout"] == "contiguous"
        assert row["parity"] is not (red and row["implementation"] == "vaefit, 2 threads")
        for key in ("cpu_s", "wall_s", "gb_s", "decode_share", "cpu", "wall"):
            assert (row[key] is None) is red
    assert "contiguous: vaefit, 2 threads: parity is red, so nothing is timed: " in done.err
    assert "cells of class 3, not " in done.err


def test_a_wrong_count_of_a_size_is_red(bench, monkeypatch):
    honest = Worker.ask

    def wrong(self, request):
        answer = honest(self, request)
        return replace(answer, counts=[0] * 256) if request.file.endswith(f"{4 << 20}.h5") else answer

    monkeypatch.setattr(Worker, "ask", wrong)
    done = bench("--json", "--layout", "contiguous")
    assert done.code == 1
    assert [size["parity"] for size in done.json["sizes"]] == [True, False]
    assert [size["cpu_s"] is None for size in done.json["sizes"]] == [False, True]
    assert done.json["unevenness"] is None


def test_without_hdf5plugin_its_layouts_are_left_out(bench, monkeypatch):
    monkeypatch.setattr("vaefit.benchmarks.counting.layouts.find_spec", lambda _: None)
    done = bench("--json", "--layout", "zstd", "--layout", "blosc", "--layout", "lzf")
    assert done.code == 0, done.err
    assert {row["layout"] for row in done.json["rows"]} == {"lzf"}
    assert "left out: zstd, blosc; hdf5plugin is not installed: pip install 'vaefit[bench]'" in done.err


def test_without_a_compiler_its_implementation_is_left_out(bench, monkeypatch):
    monkeypatch.setenv("CC", "nosuch")
    build_counter.cache_clear()
    done = bench("--json", "--layout", "contiguous")
    build_counter.cache_clear()
    assert done.code == 0, done.err
    assert "vaefit, compiled" not in {row["implementation"] for row in done.json["rows"]}
    assert done.json["counter"]["build_s"] is None
    assert "left out: vaefit, compiled; numpy counts: no counter is built without a C compiler" in done.err


def test_the_build_is_no_part_of_a_time(tmp_path):
    stored = StoredLayout.write(BY_NAME["contiguous"], make_cells(4), tmp_path)
    with Worker() as worker:
        first = worker.ask(stored.request(COMPILED))
    assert stored.wrong(COMPILED, first) is None
    if (seconds := build_counter().build_s) is not None:
        assert first.wall < seconds / 2


def test_without_libdeflate_goals_that_need_it_are_not_held(monkeypatch):
    judged = {judgement.what for judgement in judge_counting(_bench(fast=False))}
    assert "gzip-4 (4096,16,16): vaefit, zlib" in judged
    assert "gzip-4 (4096,16,16): vaefit" not in judged
    assert "contiguous: vaefit" in judged


@pytest.mark.parametrize("layout", INSTALLED, ids=lambda layout: layout.name)
@pytest.mark.parametrize("grids", [1, 4097, 9000])
def test_every_counter_counts_what_numpy_counts(tmp_path, layout, grids):
    stored = StoredLayout.write(layout, make_cells(grids), tmp_path)
    cells, grids = stored.cells, len(stored.cells)
    with h5py.File(stored.file) as file:
        dataset = file["grids"]
        assert np.array_equal(dataset[:], cells)
        assert dataset.dtype == layout.dtype
        assert dataset.chunks == (layout.chunks and (min(grids, layout.chunks[0]), *layout.chunks[1:]))
    right = np.bincount(cells.reshape(-1), minlength=256).tolist()
    for name, counter in counters.COUNTERS.items():
        found = counter(stored.file, None)
        assert found.counts == (None if name in ("decode", "read_whole") else right), name
        assert found.bytes == (cells.size if name == "cached" else stored.bytes), name


def test_naive_counts_a_part_of_what_is_slow_to_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "NAIVE_SLICES", 2)
    stored = StoredLayout.write(BY_NAME["gzip-columns"], make_cells(5000), tmp_path)
    assert stored.measured_bytes(NAIVE) == 2048 * 256
    assert stored.measured_bytes(OURS) == 5000 * 256
    with Worker() as worker:
        answer = worker.ask(stored.request(NAIVE))
        assert stored.wrong(NAIVE, answer) is None
        assert sum(answer.counts) == 2048 * 256
        assert stored.wrong(OURS, answer) == "524,288 bytes of cells, not 1,280,000"
        assert stored.wrong(DECODE, worker.ask(stored.request(DECODE))) is None


def test_grids_are_mostly_background_and_the_same_each_time(monkeypatch):
    cells = make_cells(2000)
    assert cells.shape == (2000, 16, 16)
    assert (cells == 0).mean() == pytest.approx(0.93, abs=0.01)
    monkeypatch.setattr("vaefit.benchmarks.counting.layouts.DISTINCT_GRIDS", 4096)
    repeated = make_cells(8292)
    assert np.array_equal(repeated[:4096], repeated[4096:8192])
    assert np.array_equal(repeated[:100], repeated[8192:8292])
    assert np.array_equal(repeated[:2000], cells)


def test_a_chunk_written_many_times_over(tmp_path):
    cells = make_cells(7)
    write_repeated(cells, 3, tmp_path / "grids.h5")
    with h5py.File(tmp_path / "grids.h5") as file:
        assert np.array_equal(file["grids"][:], np.concatenate([cells] * 3))


@pytest.mark.skipif(find_spec("deflate") is None, reason="libdeflate is not installed")
def test_a_worker_can_do_without_libdeflate(tmp_path, monkeypatch, capfd):
    stored = StoredLayout.write(BY_NAME["gzip"], make_cells(50), tmp_path)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    for hidden in ((), ("deflate",)):
        with Worker(hidden) as worker:
            assert stored.wrong(ZLIB, worker.ask(stored.request(ZLIB))) is None
            assert stored.wrong(DECODE, worker.ask(stored.request(DECODE))) is None
        assert ("deflate._deflate" in capfd.readouterr().err) is (not hidden)


def test_a_worker_repeats_short_calls_and_tells_what_failed(tmp_path, dataset):
    with Worker() as worker:
        if sys.platform == "linux":
            assert worker.base > 1 << 20
        answer = worker.ask(Request("ours", str(dataset), least_seconds=0.05))
        assert 0 < answer.wall < 0.05
        assert sum(answer.counts) == 200 * 64
        with pytest.raises(WorkerError, match=r"DataError: .*the file does not exist"):
            worker.ask(Request("ours", str(tmp_path / "nothing.h5")))
        assert worker.ask(Request("ours", str(dataset))).counts == answer.counts  # it goes on
        worker._process.kill()
        with pytest.raises(WorkerError, match="its process ended with -9"):
            worker.ask(Request("ours", str(dataset)))


def test_a_implementation_that_fails_is_an_error(bench, monkeypatch):
    def fails(*_):
        raise WorkerError("OSError: no such filter")

    monkeypatch.setattr(Worker, "ask", fails)
    done = bench("--layout", "lzf")
    assert done.code == 3
    assert "lzf (4096,16,16): an implementation failed (got OSError: no such filter)" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--layout", "tiff"), "one of gzip, gzip-columns"),
        (("--layout", "gzip", "--layout", "gzip"), "given twice"),
        (("--grids", "0"), "from 1 to"),
    ],
)
def test_a_wrong_command_line(vaefit_cli, arguments, word):
    done = vaefit_cli("bench", "histogram", *arguments, "--json")
    assert done.code == 2
    assert word in str(json.loads(done.out)["error"])


def test_quick_measures_what_goals_are_set_for():
    quick = [layout.name for layout in HistogramSettings(quick=True).chosen()]
    assert quick == ["gzip", "gzip-columns", "int64", "contiguous"]
    assert len(HistogramSettings().chosen()) == len(INSTALLED)
    assert HistogramSettings(quick=True).grids_of_each >= BY_NAME["gzip-columns"].chunks[0]


def test_a_spread_of_one_and_of_many():
    assert Spread.from_values([2.0]) == Spread(2.0, 2.0, 2.0, 2.0)
    assert Spread.from_values([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0, 1.0)


def _bench(ratio=1000.0, share=0.6, gain=1.5, extra=1 << 20, speeds=(1.0, 1.1), hit=1.0, fast=True, cpus=2, grids=None):
    """A result in which naive takes `ratio` times ours, and so on."""
    rows = []
    for layout in LAYOUTS:
        for implementation in IMPLEMENTATIONS:
            wall = gain if implementation is OURS else 1.0
            cpu = share if implementation is READ else 1.0
            part = 2 if layout.slow and implementation is NAIVE else 1
            way = "chunks" if implementation.counter == "ours" else ""
            row = CountRow(
                layout=layout.name,
                title=layout.title,
                implementation=implementation.name,
                parity=True,
                bytes=10**7,
                measured_bytes=10**7 // part,
                cpu=Spread(cpu, cpu, cpu, cpu),
                wall=Spread(wall, wall, wall, wall),
                ratio=ratio,
                decode_share=0.3,
                extra_bytes=extra,
                way=way,
            )
            rows.append(row)
    sizes = tuple(SizeRow(10**8, True, seconds, {"1": extra, "2": extra - 1}) for seconds in speeds)
    scaling = Scaling(sizes, None if hit is None else Hit(hit, hit, hit))
    counter = ByteCounter(None, "native_counter.c counts, built in 0.12 s", 0.12)
    return HistogramBench(
        HistogramSettings(grids=grids), tuple(rows), scaling, fast, counter, cpus, {"h5py": "3.16.0", "deflate": None}
    )


@pytest.mark.parametrize(
    ("measured", "missed"),
    [
        ({}, []),
        ({"ratio": 100.0}, ["gzip-4 (131072,1,1): vaefit"]),
        ({"ratio": 2.3}, [f"{BY_NAME[layout].title}: {who}" for layout, who in (
            ("gzip", "vaefit"), ("gzip", "vaefit, compiled"), ("gzip", "vaefit, zlib"), ("gzip-columns", "vaefit"),
            ("gzip-columns", "vaefit, zlib"), ("int64", "vaefit"), ("contiguous", "vaefit"),
            ("contiguous", "vaefit, compiled"))]),
        ({"share": 0.49}, ["contiguous: vaefit"]),
        ({"gain": 1.39}, ["gzip-4 (4096,16,16): 2 threads"]),
        ({"gain": 1.0, "cpus": 1}, []),
        ({"extra": (32 << 20) + 1}, ["0.1 GB: memory above the imports"] * 2),
        ({"speeds": (1.0, 1.31)}, ["CPU time a cell over 0.1 0.1 GB"]),
        ({"hit": 5.1}, ["a cache hit, beyond the imports"]),
        ({"hit": None}, ["a cache hit, beyond the imports"]),
        ({"ratio": 1.0, "share": 0.1, "gain": 1.0, "grids": 1000}, []),
    ],
)  # fmt: skip
def test_a_goal_is_held_against_what_was_measured(measured, missed):
    judged = judge_counting(_bench(**measured))
    assert [judgement.what for judgement in judged if not judgement.holds] == missed


def test_the_gain_of_two_threads_is_of_the_least_times():
    bench = _bench()
    slowed = [
        replace(row, wall=Spread(9.0, 8.0, 10.0, 1.0)) if row.implementation == TWO_THREADS.name else row
        for row in bench.rows
    ]
    assert wall_gain(replace(bench, rows=tuple(slowed)), "gzip") == pytest.approx(1.5)
    assert wall_gain(replace(bench, rows=()), "gzip") is None


def test_memory_that_the_system_does_not_tell_is_no_goal():
    bench = _bench()
    size = replace(bench.scaling.sizes[0], extra_bytes={"1": None, "2": None})
    bench = replace(bench, scaling=replace(bench.scaling, sizes=(size,)))
    assert not any("memory" in judgement.what for judgement in judge_counting(bench))
    assert scaling.extra_memory(SimpleNamespace(base=None), SimpleNamespace(peak=5)) is None
