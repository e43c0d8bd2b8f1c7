"""Loaders give every grid of a role at most once an epoch, in an order that can be taken up anywhere."""

from __future__ import annotations

import threading
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vaefit.cache.hdf5.grids
from vaefit.cache import DataError
from vaefit.cache.errors import SettingError
from vaefit.cache.hdf5.grids import Grids
from vaefit.vae.loader import SeededSplit, find_named_splits, named_split, open_loader
from vaefit.vae.loader.read_ahead import ReadAhead
from vaefit.vae.loader.split_reader import SplitReader

N = 3000
MODES = ("memory", "stream")
LAYOUTS = {
    "contiguous": {},
    "chunks": {"chunks": (100, 4, 5), "compression": "gzip"},
    "columns": {"chunks": (500, 1, 1), "compression": "gzip", "shuffle": True},
    "odd chunks": {"chunks": (77, 3, 2)},
    "unwritten": {"chunks": (100, 4, 5)},
}


def numbered(grids=N):
    """Grids (N, 4, 5) that spell their own number in their first row, classes 0..9."""
    cells = np.random.default_rng(1).integers(0, 10, (grids, 4, 5), dtype=np.uint8)
    for digit in range(4):
        cells[:, 0, digit] = np.arange(grids) // 10**digit % 10
    return cells


def numbers(batch):
    return [int(number) for number in batch[:, 0, :4].astype(int) @ 10 ** np.arange(4)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 50 grids, where the chunks are no larger, as a large dataset has many."""
    monkeypatch.setattr(vaefit.cache.hdf5.grids, "PIECE_BYTES", 1000)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """The numbered grids in every layout, by its name; and in three shards, `shards`."""
    folder = tmp_path_factory.mktemp("stored")
    cells = numbered()
    found = {}
    for name, options in LAYOUTS.items():
        found[name] = folder / f"{name}.h5"
        with h5py.File(found[name], "w") as handle:
            dataset = handle.create_dataset("grids", cells.shape, "i4" if name == "odd chunks" else "u1", **options)
            if name != "unwritten":
                dataset[:] = cells
    parts = [folder / f"part-{i}.h5" for i in (1, 2, 10)]
    for file, some, dtype in zip(parts, np.split(cells, [1234, 1241]), ("u1", "<i2", ">i8"), strict=True):
        with h5py.File(file, "w") as handle:
            handle.create_dataset("grids", data=some.astype(dtype), chunks=(min(100, len(some)), 4, 5))
    return {**found, "shards": str(folder / "part-*.h5")}


SPLIT = SeededSplit(N, 0.1, 0.05, limit=2500)
MINE = {
    role: np.flatnonzero(SPLIT.roles(0, N) == place).tolist() for place, role in enumerate(("train", "val", "test"))
}


def loader(data, role="train", batch_size=32, split=SPLIT, **settings):
    return open_loader(data, split, role, batch_size, **{"classes": 10, "window": 200, **settings})


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("vaefit-loader")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["contiguous", "chunks", "columns", "odd chunks", "shards"])
def test_an_epoch_has_each_grid_at_most_once(stored, layout, mode):
    cells = numbered()
    with loader(stored[layout], mode=mode) as found:
        assert (found.size, found.batch_size, found.steps) == (2125, 32, 66)
        epochs = []
        for epoch in range(2):
            batches = list(found.epoch(epoch))
            assert len(batches) == found.steps
            assert {batch.shape for batch in batches} == {(32, 4, 5)}
            assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
            order = [number for batch in batches for number in numbers(batch)]
            assert len(set(order)) == 66 * 32
            assert set(order) <= set(MINE["train"])
            assert np.array_equal(np.concatenate(batches), cells[order])
            epochs.append(order)
        assert set(epochs[0]) != set(epochs[1])  # other grids are left over
        assert [numbers(batch) for batch in found.epoch(0)] == [epochs[0][at : at + 32] for at in range(0, 66 * 32, 32)]
    assert not loader_threads()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["columns", "shards"])
@pytest.mark.parametrize("role", ["train", "val", "test"])
def test_in_order_has_each_grid_once(stored, layout, mode, role):
    with loader(stored[layout], role, mode=mode) as found:
        batches = list(found.in_order(17))
    assert [number for batch in batches for number in numbers(batch)] == MINE[role]
    assert {len(batch) for batch in batches[:-1]} == {17}
    assert len(batches) == -(-len(MINE[role]) // 17)
    assert np.array_equal(np.concatenate(batches), numbered()[MINE[role]])


@settings(max_examples=25)
@given(
    layout=st.sampled_from(["contiguous", "chunks", "columns", "shards"]),
    mode=st.sampled_from(MODES),
    batch_size=st.integers(1, 400),
    window=st.sampled_from([1, 7, 150, 200, 10_000]),
    workers=st.integers(1, 3),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_any_batch_can_be_the_first(stored, layout, mode, batch_size, window, workers, seed, data):
    options = {"mode": mode, "batch_size": batch_size, "window": window, "seed": seed}
    with loader(stored[layout], workers=workers, **options) as found:
        whole = [batch.tobytes() for batch in found.epoch(5)]
        assert len(whole) == 2125 // batch_size
    with loader(stored[layout], workers=2, **options) as again:
        for _ in range(3):
            first = data.draw(st.integers(0, len(whole)))
            assert [batch.tobytes() for batch in again.epoch(5, first)] == whole[first:]


def test_every_first_of_one_epoch(stored):
    with loader(stored["chunks"], mode="stream", batch_size=100) as found:
        whole = [batch.tobytes() for batch in found.epoch(0)]
        for first in range(found.steps + 2):
            assert [batch.tobytes() for batch in found.epoch(0, first)] == whole[first:]


@pytest.mark.parametrize("mode", MODES)
def test_seeds_and_epochs_have_orders_of_their_own(stored, mode):
    with loader(stored["chunks"], mode=mode) as one, loader(stored["chunks"], mode=mode, seed=1) as other:
        orders = [numbers(next(source.epoch(epoch))) for source in (one, other) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_grids_of_one_block_are_spread_over_their_window(stored):
    with loader(stored["contiguous"], mode="stream", window=1000) as found:
        first = np.concatenate([numbers(batch) for _, batch in zip(range(30), found.epoch(0), strict=False)])
    blocks = first // 50
    assert len(set(blocks[:100].tolist())) > 15
    assert not (np.diff(first) == 1).sum() > 10


def test_each_piece_of_the_file_is_read_once_an_epoch(stored, monkeypatch):
    read: list[tuple[int, int]] = []
    whole = Grids.pieces
    monkeypatch.setattr(Grids, "pieces", lambda self, *where: read.append(where) or whole(self, *where))
    with loader(stored["columns"], mode="stream", batch_size=1) as found:
        assert len(list(found.epoch(0))) == found.steps
        assert sorted(read) == [(first, first + 500) for first in range(0, N, 500)]
        read.clear()
        assert len(list(found.epoch(0, found.steps - 3))) == 3
        assert len(read) == 1


def test_what_no_grid_of_the_role_lies_in_is_not_read(tmp_path, write_dataset, monkeypatch):
    cells = numbered(600)
    file = write_dataset(tmp_path / "named.h5", test=cells[400:], train=cells[:300], valid=cells[300:400])
    locations = find_named_splits(file)
    assert locations is not None
    read: list[tuple[int, int]] = []
    whole = Grids.pieces
    monkeypatch.setattr(Grids, "pieces", lambda self, *where: read.append(where) or whole(self, *where))
    wanted = {"train": range(300), "val": range(300, 400), "test": range(400, 600)}
    for mode in MODES:
        for role, grids in wanted.items():
            with loader(locations, role, split=named_split(locations), mode=mode) as found:
                read.clear()
                assert [number for batch in found.in_order(64) for number in numbers(batch)] == list(grids)
                assert len(read) == (len(grids) // 50 if mode == "stream" else 0)


def test_what_was_never_written_is_the_fill_value(stored):
    with loader(stored["unwritten"], mode="stream") as found:
        assert not any(batch.any() for batch in found.epoch(0))


def test_a_row_of_chunks_that_is_too_large_is_read_by_parts(stored, monkeypatch):
    monkeypatch.setattr("vaefit.cache.hdf5.blocks.ROW_CELLS", 20 * 120)
    with loader(stored["columns"], mode="stream") as found:
        assert sorted(n for batch in found.in_order(50) for n in numbers(batch)) == MINE["train"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("label", "ignore", "dtype"), [(-1, -1, np.int16), (-(2**20), -(2**20), np.int64), (255, 255, np.uint8)]
)
def test_an_ignored_label_stays(tmp_path, write_dataset, mode, label, ignore, dtype):
    cells = numbered(300).astype(np.int32)
    cells[:, 3, 4] = label
    file = write_dataset(tmp_path / "ignored.h5", grids=cells)
    with loader(file, split=SeededSplit(300, 0.1), mode=mode, ignore_index=ignore) as found:
        batch = next(found.epoch(0))
    assert batch.dtype == dtype
    assert (batch[:, 3, 4] == label).all()
    assert np.array_equal(batch, cells[numbers(batch)])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        (
            11,
            r"part-2\.h5: a label outside the 10 classes is at grid 3, row 2, column 1 \(got 11\)\. Pass --ignore",
        ),
        (-2, r"part-2\.h5: a negative label is at grid 3, row 2, column 1 \(got -2\)"),
        (256, r"\(got 256\)"),
    ],
)
def test_a_label_outside_the_classes_is_named(tmp_path, write_dataset, mode, label, wanted):
    cells = numbered(400).astype(np.int16)
    cells[203, 2, 1] = label
    for number, part in enumerate(np.split(cells, 2)):
        write_dataset(tmp_path / f"part-{number + 1}.h5", grids=part)
    with (
        pytest.raises(DataError, match=wanted),
        loader(str(tmp_path / "part-*.h5"), split=SeededSplit(400, 0.1), mode=mode) as found,
    ):
        list(found.epoch(0))
    assert not loader_threads()


@pytest.mark.parametrize("mode", MODES)
def test_damaged_chunks_are_an_error_of_the_data(tmp_path, mode):
    file = tmp_path / "damaged.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=numbered(), chunks=(100, 4, 5), compression="gzip")
        place = handle["grids"].id.get_chunk_info(17).byte_offset
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff" * 40)
    with pytest.raises(DataError, match=r"grids 1700 to 1799 cannot be read"), loader(file, mode=mode) as found:
        list(found.epoch(0))
    assert not loader_threads()


def test_a_missing_file_is_what_grids_says(tmp_path):
    with pytest.raises(DataError, match="the file does not exist"), loader(tmp_path / "none.h5"):
        pass


def test_what_cannot_be_opened(stored):
    data = stored["chunks"]
    wanted = r"larger than the split, which has 2,125 grids to train on \(got 2126\)\. Pass --batch-size 2125 or less"
    with pytest.raises(SettingError, match=wanted), loader(data, batch_size=2126):
        pass
    with loader(data, "val", batch_size=2126) as found:  # taken in order, whatever the batch to train on
        assert found.steps == 0
        assert list(found.epoch(0)) == []
        assert sum(map(len, found.in_order(2126))) == found.size
    with pytest.raises(DataError, match="no grid for test"), loader(data, "test", split=SeededSplit(N, 0.1)):
        pass
    for grids in (N - 50, N + 50):
        with pytest.raises(DataError, match="not the one that was split"), loader(data, split=SeededSplit(grids, 0.1)):
            pass
    for settings_, option in (
        ({"batch_size": 0}, "--batch-size"),
        ({"workers": 0}, "--workers"),
        ({"window": 0}, "--window"),
        ({"mode": "fast"}, "--loader"),
        ({"seed": -1}, "--seed"),
    ):
        with pytest.raises(SettingError, match=option), loader(data, **settings_):
            pass


def test_the_way_is_chosen_by_memory_and_said(stored, monkeypatch):
    data = stored["chunks"]
    bytes_needed = 2125 * 20
    with loader(data, memory_limit=bytes_needed) as found:
        assert found.how == "in memory, 42.5 kB of uint8, shuffled fully"
    with loader(data, memory_limit=bytes_needed - 1, window=65536) as found:
        assert found.how == "streamed in chunk order by 2 workers, shuffled in windows of 65,536 grids"
    with loader(data, mode="stream", workers=1) as found:
        assert "by 1 worker," in found.how
    for free, way in ((4 * bytes_needed, "in memory"), (4 * bytes_needed - 4, "streamed"), (None, "in memory")):
        monkeypatch.setattr("vaefit.vae.loader.loader.free_memory", lambda free=free: free)
        with loader(data) as found:
            assert found.how.startswith(way)
            assert found.mode == ("memory" if way == "in memory" else "stream")


def test_an_iterator_that_is_dropped_stops_its_threads(stored):
    with loader(stored["chunks"], mode="stream") as found:
        batches = found.epoch(0)
        next(batches)
        assert loader_threads()
        del batches
        assert not loader_threads()
        # and the loader goes on
        assert len(list(found.epoch(0))) == found.steps


def test_closing_stops_whoever_still_asks(stored):
    with loader(stored["chunks"], mode="stream") as found:
        batches = found.epoch(0)
        next(batches)
    assert not loader_threads()
    with pytest.raises(RuntimeError, match="the loader is closed"):
        list(batches)
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(found.epoch(1))
    found.close()


def test_closing_does_not_wait_for_a_window(stored, monkeypatch):
    """A window of 30 slow blocks is left half-way."""
    whole = Grids.pieces

    def slow(self, *where):
        time.sleep(0.05)
        yield from whole(self, *where)

    monkeypatch.setattr(Grids, "pieces", slow)
    with loader(stored["contiguous"], mode="stream", window=10_000) as found:

        def wait():
            with pytest.raises(RuntimeError, match="the loader is closed"):
                next(found.epoch(0))

        reading = threading.Thread(target=wait)
        reading.start()
        time.sleep(0.1)
        begun = time.perf_counter()
    reading.join(5)
    assert not reading.is_alive()
    assert time.perf_counter() - begun < 1
    assert not loader_threads()


def test_so_many_windows_are_in_memory(stored, monkeypatch):
    """Those of the workers, and the one that batches are cut from."""
    held, most = 0, 0
    lock = threading.Lock()
    whole = SplitReader.read

    class Counted(np.ndarray):
        def __array_finalize__(self, source):
            pass

        def __del__(self):
            nonlocal held
            if self.base is not None and getattr(self, "window", False):
                with lock:
                    held -= 1

    def read(self, grids, blocks, keep_reading):
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        found = whole(self, grids, blocks, keep_reading).view(Counted)
        found.window = True
        return found

    monkeypatch.setattr(SplitReader, "read", read)
    with loader(stored["contiguous"], mode="stream", workers=2, window=100) as found:
        for batch in found.epoch(0):
            assert len(batch) == 32
            time.sleep(0.002)
    assert most == 3
    assert held == 0


def test_what_a_worker_raises_comes_as_it_is():
    wrong = KeyError("odd")

    def read(key, keep_reading):
        if key == 3:
            raise wrong
        return key

    ahead = ReadAhead(read, range(9), 2)
    assert [ahead.next() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError) as found:
        ahead.next()
    assert found.value is wrong
    ahead.close()
    assert not loader_threads()
