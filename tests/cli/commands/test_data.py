"""`vaefit-cli data`: the synthetic corpus and the import of ARC tasks."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest


def cells(file):
    """The grids of a file that holds nothing else, and their attributes."""
    with h5py.File(file) as handle:
        (stored,) = handle.values()
        return stored[:], dict(stored.attrs)


# synth


@pytest.fixture(scope="module")
def corpus(vaefit_cli, tmp_path_factory):
    """20,000 synthetic grids."""
    file = tmp_path_factory.mktemp("synth") / "corpus.h5"
    assert vaefit_cli("data", "synth", file, "--grids", "20000").code == 0
    return file


@pytest.mark.slow
def test_the_corpus_has_the_statistics_of_arc_grids(vaefit_cli, corpus):
    found = vaefit_cli("weights", corpus, "--json").json
    assert found["grids"] == 20_000
    assert found["cells"] == 20_000 * 16 * 16
    assert found["counts"][0] / found["cells"] == pytest.approx(0.93, abs=0.01)
    assert 10 < found["ratio"] < 12.5
    assert np.std(found["counts"][1:]) < 0.05 * np.mean(found["counts"][1:])


def test_the_corpus_says_what_it_is(corpus):
    grids, attributes = cells(corpus)
    assert grids.shape == (20_000, 16, 16)
    assert grids.dtype.kind in "iu"
    assert attributes["classes"] == 10
    assert attributes["origin"]
    assert len(np.unique(grids[:2000].reshape(2000, -1), axis=0)) > 1900, "most grids should differ"


def test_synth_options(vaefit_cli, tmp_path):
    file = tmp_path / "new" / "small.h5"
    sizes = ("--grids", "500", "--height", "12", "--width", "9", "--classes", "4", "--seed", "3")
    outcome = vaefit_cli("data", "synth", file, *sizes, "--json")
    assert outcome.code == 0
    assert isinstance(outcome.json, dict)
    grids, attributes = cells(file)
    assert grids.shape == (500, 12, 9)
    assert set(np.unique(grids)) == {0, 1, 2, 3}
    assert np.bincount(grids.reshape(-1)).argmax() == 0
    assert attributes["classes"] == 4


def test_same_seed_same_cells(vaefit_cli, tmp_path):
    made = {}
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        file = tmp_path / f"{name}.h5"
        assert vaefit_cli("data", "synth", file, "--grids", "300", "--seed", seed).code == 0
        made[name] = cells(file)[0]
    np.testing.assert_array_equal(made["a"], made["b"])
    assert (made["a"] != made["c"]).any()


def test_synth_replaces_nothing_unasked(vaefit_cli, tmp_path):
    file = tmp_path / "taken.h5"
    file.write_text("mine")
    refused = vaefit_cli("data", "synth", file, "--grids", "10", "--json")
    assert (refused.code, refused.json["exit"]) == (3, 3)
    assert "taken.h5" in refused.json["error"]["where"]
    assert "--overwrite" in refused.json["error"]["do"]
    assert file.read_text() == "mine"
    quiet = vaefit_cli("data", "synth", file, "--grids", "10", "--overwrite", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    assert len(cells(file)[0]) == 10
    assert [left.name for left in tmp_path.iterdir()] == ["taken.h5"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--grids", "0"), ("--classes", "1"), ("--classes", "257"), ("--height", "0"), ("--width", "x"), ("--seed", "-1")],
)
def test_synth_refuses_sizes_out_of_range(vaefit_cli, tmp_path, option, value):
    refused = vaefit_cli("data", "synth", tmp_path / "out.h5", option, value, "--json")
    assert refused.code == 2
    assert option in " ".join(refused.json["error"].values())
    assert not (tmp_path / "out.h5").exists()


def test_synth_where_no_file_can_be(vaefit_cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file" / "out.h5"):
        refused = vaefit_cli("data", "synth", out, "--grids", "10", "--overwrite", "--json")
        assert refused.code == 3
        assert str(out) in refused.json["error"]["where"]


# import arc

SMALL = [[1, 2], [3, 4], [0, 9]]


def task(*pairs, **more):
    return json.dumps({"train": pairs[:-1], "test": pairs[-1:], **more})


@pytest.fixture
def tasks(tmp_path):
    """ARC tasks as people keep them: nested, and not all of them fit."""
    folder = tmp_path / "arc"
    (folder / "training" / "deep").mkdir(parents=True)
    large = [[5] * 9 for _ in range(3)]
    files = {
        # four grids, with keys that a task may have and a test without its solution
        "training/a.json": task({"input": SMALL, "output": [[7]]}, {"input": SMALL}, name="a", author=None),
        "training/b.json": task({"input": [[1, 2], [3]], "output": SMALL}, {"input": SMALL, "output": [[11]]}),
        "training/deep/c.json": task({"input": large, "output": SMALL}, {"input": [[-1]], "output": [[6]]}),
        "training/deep/d.json": task({"input": [["x"]], "output": []}, {"input": [[0.5]], "output": [[2] * 8] * 8}),
        "index.json": json.dumps({"tasks": ["a", "b"]}),
        "list.json": json.dumps([1, 2, 3]),
        "torn.json": '{"train": [',
        "readme.txt": "not JSON",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def imported(vaefit_cli, tasks, out, *options):
    outcome = vaefit_cli("data", "import", "arc", tasks, out, "--max-side", "8", *options)
    assert outcome.code == 0, outcome.err
    return outcome


def test_arc_grids_are_read_and_padded(vaefit_cli, tasks, tmp_path):
    out = tmp_path / "arc.h5"
    imported(vaefit_cli, tasks, out, "--pad-class", "8")
    grids, attributes = cells(out)
    small = np.full((8, 8), 8)
    small[:3, :2] = SMALL
    one = {label: np.where(np.arange(64).reshape(8, 8) == 0, label, 8) for label in (6, 7)}
    wanted = [small, one[7], small, small, small, small, one[6], np.full((8, 8), 2)]
    assert sorted(g.tolist() for g in grids) == sorted(g.tolist() for g in wanted)
    assert attributes["classes"] == 10
    assert attributes["origin"]


def test_padding_is_background_unless_told(vaefit_cli, tasks, tmp_path):
    imported(vaefit_cli, tasks, tmp_path / "arc.h5")
    grids, _ = cells(tmp_path / "arc.h5")
    assert any(np.count_nonzero(grid == 0) == 63 and grid[0, 0] == 7 for grid in grids)


def test_what_was_left_out_is_counted(vaefit_cli, tasks, tmp_path):
    shown = imported(vaefit_cli, tasks, tmp_path / "people.h5")
    found = imported(vaefit_cli, tasks, tmp_path / "machine.h5", "--json").json
    assert found["grids"] == 8
    assert found["tasks"] == 4
    left_out = found["left_out"]
    counted = {
        "larger than 8 x 8": 1,  # the 3 x 9 grid
        "labels outside 0..9": 2,  # 11 and -1
        "not rectangles of integers": 4,  # ragged, text, empty, fractions
        "not ARC tasks": 3,  # an index, a list, a torn file
    }
    for words, count in counted.items():
        (reason,) = [reason for reason in left_out if words in reason]
        assert left_out[reason] == count
        assert any(str(count) in line.split() and words in line for line in shown.out.splitlines())
    assert sum(left_out.values()) == sum(counted.values())


def test_the_import_feeds_the_other_commands(vaefit_cli, tasks, tmp_path):
    out = tmp_path / "arc.h5"
    imported(vaefit_cli, tasks, out)
    found = vaefit_cli("weights", out, "--json")
    assert found.code == 0
    assert found.json["grids"] == 8
    assert len(found.json["counts"]) == 10
    assert found.json["cells"] == 8 * 64
    run = ("--batch-size", "3", "--iterations", "1", "--out", tmp_path / "run", "--json")
    assert vaefit_cli("overfit", out, *run).json["iterations"] == 1


def test_a_larger_side_lets_more_in(vaefit_cli, tasks, tmp_path):
    outcome = vaefit_cli("data", "import", "arc", tasks, tmp_path / "arc.h5", "--json")
    assert outcome.json["grids"] == 9
    assert cells(tmp_path / "arc.h5")[0].shape == (9, 16, 16)


def test_import_replaces_nothing_unasked(vaefit_cli, tasks, tmp_path):
    out = tmp_path / "taken.h5"
    out.write_text("mine")
    refused = vaefit_cli("data", "import", "arc", tasks, out, "--json")
    assert refused.code == 3
    assert "--overwrite" in refused.json["error"]["do"]
    assert out.read_text() == "mine"
    imported(vaefit_cli, tasks, out, "--overwrite")
    assert len(cells(out)[0]) == 8


@pytest.mark.parametrize("case", ["absent", "file", "empty", "nothing fits"])
def test_a_folder_without_grids(vaefit_cli, tasks, tmp_path, case):
    (tmp_path / "empty").mkdir()
    folder = {"absent": tmp_path / "absent", "file": tasks / "torn.json", "empty": tmp_path / "empty"}.get(case)
    if folder is None:
        folder = tasks / "training" / "deep" / "only"
        folder.mkdir()
        (folder / "t.json").write_text(task({"input": [[12]], "output": [[1, 2], [3]]}))
    refused = vaefit_cli("data", "import", "arc", folder, tmp_path / "out.h5", "--json")
    assert refused.code == 3
    error = refused.json["error"]
    assert str(folder) in error["where"]
    assert error["do"]
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(("option", "value"), [("--max-side", "0"), ("--pad-class", "10"), ("--pad-class", "-1")])
def test_import_refuses_options_out_of_range(vaefit_cli, tasks, tmp_path, option, value):
    refused = vaefit_cli("data", "import", "arc", tasks, tmp_path / "out.h5", option, value, "--json")
    assert refused.code == 2
    assert option in " ".join(refused.json["error"].values())
