"""Several files as one dataset: which files, in which order, and that they are counted and drawn from as one."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import vaefit.cache.hdf5.grids
from vaefit.cache import DataError, Location, class_counts, class_weights, count_dataset, count_shards, find_shards
from vaefit.cache.hdf5.grids import opened
from vaefit.cache.store.fingerprint import Stamp
from vaefit.vae.data.batch import batch_at, choose_batch

NAMES = ["a/train-2.h5", "a/train-10.h5", "a/train-010.h5", "b/train-1.h5"]
SIZES = (1, 40, 7, 30, 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, by relative names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cells() -> NDArray[np.uint8]:
    """80 grids of which none are equal, with classes 0..6."""
    rng = np.random.default_rng(5)
    return rng.integers(0, 7, (80, 4, 5), dtype=np.uint8)


@pytest.fixture
def shards(folder: Path, cells: NDArray[np.uint8], write_dataset: Callable[..., Path]) -> list[str]:
    """The 80 grids, in five files."""
    names = [f"part-{n}.h5" for n in range(8, 13)]
    for name, part in zip(names, np.split(cells, np.cumsum(SIZES)[:-1]), strict=True):
        write_dataset(folder / name, grids=part)
    return names


def names(data) -> list[str]:
    return [str(shard) for shard in find_shards(data)]


def touch(*files: str) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()


def test_small_shards_wait_for_no_disk_and_start_no_thread(
    shards: list[str], monkeypatch: pytest.MonkeyPatch, cells: NDArray[np.uint8]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("this takes longer than to count a small shard")

    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))  # as for files that were not just written
    monkeypatch.setattr(os, "fsync", never)
    monkeypatch.setattr(threading.Thread, "start", never)
    assert class_counts(shards).tolist() == np.bincount(cells.ravel()).tolist()
    assert count_shards(shards).cached == len(shards)


@pytest.mark.usefixtures("folder")
def test_the_order_does_not_depend_on_who_expands_the_pattern():
    expected = ["a/train-2.h5", "a/train-010.h5", "a/train-10.h5", "b/train-1.h5"]
    touch(*NAMES)
    assert names("*/train-*.h5") == names("**/*.h5") == expected
    for shuffled in (NAMES, NAMES[::-1], random.Random(1).sample(NAMES, 4)):
        assert names(shuffled) == expected
    assert names(["b/*.h5", "a/train-[!0]*.h5:/grids"]) == [
        "a/train-2.h5:/grids",
        "a/train-10.h5:/grids",
        "b/train-1.h5",
    ]
    assert [file.name for file in (shard.file for shard in find_shards(Path.cwd() / "**"))] == [
        Path(name).name for name in expected
    ]


@pytest.mark.usefixtures("folder")
def test_what_no_pattern_matches():
    touch("train.h5", ".train.5f3a.tmp.h5", "train.h5.vaefit.json", ".git/train.h5")
    Path("train-folder").mkdir()
    Path("loop").symlink_to(".", target_is_directory=True)
    assert names("**/*train*") == names("train*") == ["train.h5"]


@pytest.mark.usefixtures("folder")
def test_a_file_whose_name_is_a_pattern_is_that_file():
    touch("train-[12].h5", "train-1.h5", "train-2.h5", "w?.h5")
    assert names("train-[12].h5") == ["train-[12].h5"]
    assert names("train-[12].h5:/grids") == ["train-[12].h5:/grids"]
    assert names("train-[12]*") == ["train-1.h5", "train-2.h5"]
    assert find_shards(Location(Path("*.h5"))) == (Location(Path("*.h5")),)


def test_a_pattern_without_a_file_names_the_folder(folder):
    (folder / "some").mkdir()
    with pytest.raises(
        DataError, match=rf"^some/x-\*\.h5: no file matches the pattern \(got no match in {folder}/some\)"
    ):
        find_shards("some/x-*.h5")
    with pytest.raises(DataError, match=rf"no folder {folder}/none\)"):
        find_shards(["none/**/*.h5:/grids"])
    with pytest.raises(DataError, match=r"no dataset is named\. Pass file\.h5"):
        find_shards([])


@pytest.mark.parametrize("again", ["same", "dotted", "absolute", "pattern", "link", "hard link", "dataset"])
def test_no_cell_counts_twice(dataset, monkeypatch, again):
    monkeypatch.chdir(dataset.parent)
    Path("sub").mkdir()
    other = {"same": "grids.h5", "dotted": "sub/../grids.h5", "absolute": str(dataset), "pattern": "gr*.h5"}
    other |= {"link": "link.h5", "hard link": "hard.h5", "dataset": "grids.h5:/grids"}
    Path("link.h5").symlink_to("grids.h5")
    Path("hard.h5").hardlink_to("grids.h5")
    with pytest.raises(DataError, match=r"named twice, so its cells would count twice \(got also named "):
        count_shards(["grids.h5", other[again]])


def test_two_datasets_of_a_file_are_two_shards(tmp_path, grids, write_dataset):
    file = write_dataset(tmp_path / "both.h5", train=grids[:150], test=grids[150:])
    found = count_shards([f"{file}:/train", f"{file}:/test"])
    assert [shard.grids for shard in found.shards] == [50, 150]
    assert found.counts.tolist() == np.bincount(grids.reshape(-1)).tolist()


def test_counts_add_up_over_dtypes_and_numbers_of_classes(folder, cells):
    parts = {"1.h5": ("u1", None), "2.h5": (">i4", 9), "3.h5": ("i8", 7)}
    for (name, (dtype, declared)), part in zip(parts.items(), np.split(cells, [10, 30]), strict=True):
        with h5py.File(name, "w") as file:
            file["grids"] = part.astype(dtype)
            if declared:
                file["grids"].attrs["classes"] = declared
    found = count_shards("[0-9].h5")
    assert found.counts.tolist() == np.bincount(cells.reshape(-1), minlength=9).tolist()
    assert (found.shape, found.cells, found.classes) == ((80, 4, 5), 1600, 9)
    assert class_counts("*.h5", classes=12).tolist() == [*found.counts.tolist(), 0, 0, 0]
    assert class_counts([Path("1.h5"), "2.h5", "3.h5"], ignore_index=3)[3] == 0
    assert class_weights(["1.h5", "2.h5", "3.h5"]).tolist() == class_weights(found.counts).tolist()
    assert class_weights("*.h5").tolist() == class_weights(found.counts).tolist()


def test_a_new_shard_costs_its_own_scan(shards, cells, write_dataset):
    first = count_shards(shards[:4])
    assert (first.source, first.cached, first.cache_file) == ("scan", 0, None)
    more = count_shards("part-*.h5")
    assert [shard.source for shard in more.shards] == [*["cache"] * 4, "scan"]
    assert more.source == "scan"
    assert [shard.cache_file.name for shard in more.shards] == [f"{name}.vaefit.json" for name in shards]
    again = count_shards("part-*.h5")
    assert again.source == "cache"
    assert again.counts.tolist() == np.bincount(cells.reshape(-1)).tolist()
    assert again.digest == more.digest != first.digest
    # shards that were moved, and whose order stays, are the same data
    Path("moved").mkdir()
    for place, name in enumerate(shards):
        Path(name).rename(f"moved/{place}.h5")
    assert count_shards("moved/*.h5").digest == more.digest
    assert count_shards("moved/*.h5", use_cache=False, rebuild=True).counts.tolist() == again.counts.tolist()


def test_shards_of_one_name_share_no_cached_file(shards):
    for place, name in enumerate(shards[:3]):
        Path(f"f{place}").mkdir()
        Path(name).rename(f"f{place}/same.h5")
    first = count_shards("**/*.h5", cache_dir="cache")
    assert len({shard.cache_file for shard in first.shards}) == 5
    again = count_shards("**/*.h5", cache_dir="cache")
    assert (again.source, again.counts.tolist()) == ("cache", first.counts.tolist())
    assert {Path("cache") in shard.cache_file.parents for shard in again.shards} == {True}


def test_grids_of_another_size_end_it_before_anything_is_cached(shards, write_dataset):
    write_dataset(Path("part-11.h5"), grids=np.zeros((3, 5, 4), np.uint8))
    expected = (
        r"^part-11\.h5: the shards of one dataset hold grids of one size \(got shape \(3, 5, 4\), where part-8\.h5 "
    )
    with pytest.raises(DataError, match=expected + r"has \(1, 4, 5\)\)"):
        count_shards(shards)
    assert not Path("part-9.h5.vaefit.json").exists()
    for name in shards:
        count_shards(name)
    for call in (lambda: count_shards(shards), lambda: choose_batch(shards, np.ones(7, np.int64))):
        with pytest.raises(DataError, match=expected):
            call()


def test_progress_runs_through_all_shards_once(shards, cells):
    count_shards(shards[1])
    seen: list[tuple[int, int]] = []
    count_shards(shards, progress=lambda *at: seen.append(at))
    assert {total for _, total in seen} == {cells.size}
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert done[0] == 20
    assert done[-1] == cells.size


def test_a_wrong_label_is_located_in_its_shard(shards):
    with h5py.File(shards[3], "r+") as file:
        file["grids"][12, 3, 2] = 9
    count_shards(shards)
    expected = rf"^{shards[3]}:/grids: a label outside the 7 classes is at grid 12, row 3, column 2 \(got 9\)\."
    with pytest.raises(DataError, match=expected + r".* Grids are numbered within the shard\.$"):
        count_shards(shards, classes=7)
    with pytest.raises(DataError, match=r"mend the data\.$"):
        count_shards(shards[3], classes=7)


def test_a_shard_that_is_gone_or_no_data_is_named(shards):
    Path("part-10.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"^part-10\.h5: the file is not HDF5"):
        count_shards(shards)
    Path("part-10.h5").unlink()
    with pytest.raises(DataError, match=r"^part-10\.h5: the file does not exist"):
        count_shards(shards)
    with pytest.raises(DataError, match=r"^part-8\.h5: no cached counts are true"):
        count_shards("part-*.h5", may_scan=False)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    parts=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["u1", "<i2", ">i4"]), st.booleans()), min_size=1),
    most_open=st.integers(1, 3),
)
def test_grids_by_index_are_those_of_the_whole(tmp_path_factory, parts, most_open):
    folder = tmp_path_factory.mktemp("whole")
    whole = np.arange(6 * sum(n for n, _, _ in parts)).reshape(-1, 2, 3) % 251
    first = 0
    for place, (n, dtype, chunked) in enumerate(parts):
        with h5py.File(folder / f"{place}.h5", "w") as file:
            values = whole[first : first + n].astype(dtype)
            file.create_dataset("grids", data=values, chunks=(min(n, 2), 1, 2) if chunked else None)
        first += n
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vaefit.cache.hdf5.grids, "MAX_OPEN", most_open)
        with opened(str(folder / "*.h5")) as grids:
            assert grids.shape == whole.shape
            assert grids.dtype == (parts[0][1] if len({dtype for _, dtype, _ in parts}) == 1 else np.int64)
            for index in np.random.default_rng(0).permutation(len(whole)).tolist():
                assert grids[index].dtype == grids.dtype
                assert grids[index].tolist() == grids[index - len(whole)].tolist() == whole[index].tolist()
            for index in (len(whole), -len(whole) - 1):
                with pytest.raises(IndexError, match=rf"0\.h5.* no grid {index}, only {len(whole)}$"):
                    grids[index]
                with pytest.raises(IndexError, match="no grid"):
                    grids.at([0, index])
            drawn = np.random.default_rng(1).integers(-len(whole), len(whole), 40)
            assert grids.at(drawn.tolist()).dtype == grids.dtype
            assert grids.at(drawn.tolist()).tolist() == whole[drawn].tolist()
            expected = 0
            for start, block in grids.blocks():
                assert start == expected
                assert block.tolist() == whole[start : start + len(block)].tolist()
                grids[0]  # files that others want in between take nothing away
                expected += len(block)
            assert expected == len(whole)


def test_a_batch_is_that_of_the_same_grids_in_one_file(shards, cells, folder, write_dataset):
    counts = np.bincount(cells.reshape(-1))
    whole = write_dataset(folder / "whole.h5", grids=cells)
    for seed, size in itertools.product(range(3), (20, 80)):
        one, several = (choose_batch(data, counts, size, seed) for data in (whole, shards))
        assert several.indices == one.indices
        assert several.digest == one.digest
    own = batch_at("part-*.h5", (0, 1, 40, 41, 47, 48, 77, 78, 79))
    assert own.grids.tolist() == cells[[0, 1, 40, 41, 47, 48, 77, 78, 79]].tolist()
    with pytest.raises(DataError, match=r"^part-8\.h5 to part-12\.h5: .* index 80\)\. Use indices 0 to 79"):
        batch_at(shards, (80,))


def test_equal_grids_are_equal_in_any_dtype(folder, cells, write_dataset):
    for place, dtype in enumerate(("u1", ">i4", "i8")):
        write_dataset(folder / f"{place}.h5", grids=cells[:9].astype(dtype))
    batch = choose_batch("?.h5", np.bincount(cells.reshape(-1)), 9)
    assert len({grid.tobytes() for grid in batch.grids}) == 9
    with pytest.raises(DataError, match="9 distinct grids"):
        choose_batch("?.h5", np.bincount(cells.reshape(-1)), 10)


def test_a_rare_class_is_brought_in_from_the_shard_that_holds_it(shards, cells):
    with h5py.File(shards[4], "r+") as file:
        file["grids"][1, 0, 0] = 7
    counts = np.bincount(cells.reshape(-1), minlength=8)
    counts[7] = 1
    for seed in range(3):
        batch = choose_batch(shards, counts, 4, seed)
        assert 79 in batch.indices
        assert 7 in batch.grids[batch.indices.index(79)]


def test_the_weights_of_several_files(vaefit_cli, shards, cells):
    outcome = vaefit_cli("weights", "part-*.h5", "--json")
    found = outcome.json
    assert found["counts"] == np.bincount(cells.reshape(-1)).tolist()
    assert (found["grids"], found["cells"], found["source"], found["cache_file"]) == (80, 1600, "scan", None)
    assert [(s["file"], s["grids"], s["cells"], s["source"]) for s in found["shards"]] == [
        (name, size, 20 * size, "scan") for name, size in zip(shards, SIZES, strict=True)
    ]
    assert all(Path(s["cache_file"]).is_file() and s["digest"] for s in found["shards"])
    again = vaefit_cli("weights", *shards[::-1], "--json").json
    assert (again["source"], again["digest"], again["weights"]) == ("cache", found["digest"], found["weights"])
    shown = vaefit_cli("weights", "part-*.h5", "--verbose").out
    assert "80 grids of 4 x 5 in 5 shards" in shown
    assert all(name in shown for name in shards)


def test_verify_names_every_shard_that_differs(vaefit_cli, shards):
    assert vaefit_cli("weights", *shards).code == 0
    assert "verified" in vaefit_cli("weights", *shards, "--verify").out
    for name in (shards[1], shards[3]):
        with h5py.File(name, "r+") as file:
            file["grids"][0, 0, :2] = (file["grids"][0, 0, :2] + 1) % 7
    outcome = vaefit_cli("weights", "part-*.h5", "--verify", "--json")
    assert outcome.code == 1
    assert [s["file"] for s in outcome.json["shards"] if not s["verified"]] == [shards[1], shards[3]]
    shown = vaefit_cli("weights", "part-*.h5", "--verify").out
    assert [f"recount of {name} differs" in shown for name in shards] == [False, True, False, True, False]
    os.remove(f"{shards[2]}.vaefit.json")  # noqa: PTH107
    outcome = vaefit_cli("weights", *shards, "--verify")
    assert outcome.code == 3
    assert f"{shards[2]}: there are no cached counts" in outcome.err


def test_a_check_over_shards(vaefit_cli, shards, cells, tmp_path):
    options = ("--iterations", "1", "--out", tmp_path / "run", "--overwrite")
    indices = (79, 0, 40, 41, 48)
    shown = vaefit_cli("overfit", "part-*.h5", "--indices", ",".join(map(str, indices)), *options)
    assert "part-8.h5 to part-12.h5:/grids: 80 grids of 4 x 5 in 5 shards, 7 classes" in shown.out
    found = vaefit_cli("overfit", "part-*.h5", "--batch-size", "9", *options, "--json").json
    drawn = np.bincount(cells[found["batch"]["indices"]].reshape(-1), minlength=7)
    assert found["batch"]["counts"] == drawn.tolist()
    assert [s["grids"] for s in found["dataset"]["shards"]] == list(SIZES)
    assert found["dataset"]["source"] == "cache"
    assert vaefit_cli("show", tmp_path / "run").out.startswith("data        part-8.h5 to part-12.h5:/grids: 80 grids")


@pytest.mark.parametrize("count", [class_counts, count_shards, count_dataset])
def test_all_but_the_data_are_keywords(count, dataset):
    with pytest.raises(TypeError, match=r"takes 1 positional argument but 2 were given"):
        count(dataset, 12)
    found = count(dataset, classes=12, use_cache=False)
    assert len(getattr(found, "counts", found)) == 12
