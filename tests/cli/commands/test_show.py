"""`vaefit-cli show` and `compare`: runs again, from their folders alone."""

from __future__ import annotations

import json
import os
import shutil

import pytest

SHORT = ("--batch-size", "4", "--iterations", "5")


@pytest.fixture(scope="module")
def runs(vaefit_cli, tmp_path_factory, grids, write_dataset):
    """Run folders by name, and what `overfit` printed."""
    folder = tmp_path_factory.mktemp("show")
    data = write_dataset(folder / "grids.h5", grids=grids)
    other = write_dataset(folder / "other.h5", grids=grids[::-1].copy())
    made = {
        "plain": (data,),
        "again": (data,),
        "slow": (data, "--lr", "1e-5"),
        "batch": (data, "--batch-seed", "1"),
        "weights": (data, "--weights", "none"),
        "data": (other, "--backend", "reference"),
        "single": (data, "--indices", "3", "--classes", "12"),
    }
    printed = {
        name: vaefit_cli("overfit", *arguments, *SHORT, "--out", folder / name) for name, arguments in made.items()
    }
    return folder, printed


@pytest.mark.parametrize("name", ["plain", "weights", "data", "single"])
def test_show_prints_what_overfit_printed(runs, vaefit_cli, name):
    folder, printed = runs
    outcome = vaefit_cli("show", folder / name)
    assert (outcome.code, outcome.out, outcome.err) == (0, printed[name].out, "")


def test_show_needs_the_folder_alone(runs, vaefit_cli, tmp_path):
    folder, printed = runs
    shutil.copytree(folder / "plain", tmp_path / "moved")
    assert vaefit_cli("show", tmp_path / "moved").out == printed["plain"].out
    assert vaefit_cli("show", tmp_path / "moved", "--json").json == json.loads(
        (folder / "plain/result.json").read_text()
    )


def test_show_of_a_run_that_had_no_preflight(runs, vaefit_cli, tmp_path):
    folder, printed = runs
    shutil.copytree(folder / "plain", tmp_path / "old")
    file = tmp_path / "old/result.json"
    found = json.loads(file.read_text())
    for later in ("preflight", "steps", "steps_reason"):
        del found[later]
    file.write_text(json.dumps(found))
    lines = printed["plain"].out.splitlines()
    kept = [line for line in lines if not line.startswith(("preflight", "steps"))]
    assert len(kept) == len(lines) - 2
    assert vaefit_cli("show", tmp_path / "old").out.splitlines() == kept
    assert vaefit_cli("compare", tmp_path / "old", folder / "plain").code == 0


def test_show_of_weights_with_a_zero(runs, vaefit_cli, dataset, tmp_path):
    (tmp_path / "w.json").write_text(json.dumps([0] + [1] * 9))
    made = vaefit_cli("overfit", dataset, *SHORT, "--weights-file", tmp_path / "w.json", "--out", tmp_path / "run")
    assert "ratio infinite" in made.out
    assert vaefit_cli("show", tmp_path / "run").out == made.out


def test_the_same_run_twice(runs, vaefit_cli):
    folder, _ = runs
    found = vaefit_cli("compare", folder / "plain", folder / "again", "--json").json
    assert (found["settings"], found["environment"]) == ({}, {})
    assert (found["same_data"], found["same_batch"], found["same_weights"]) == (True, True, True)
    assert found["first_different_step"] is None
    assert all(first == second for name, (first, second) in found["results"].items() if name != "seconds")


@pytest.mark.parametrize(
    ("name", "settings", "same", "step"),
    [
        ("slow", {"lr"}, (True, True, True), 1),
        ("batch", {"batch-seed"}, (True, False, True), 0),
        ("weights", {"weights"}, (True, True, False), 0),
        ("data", {"data", "backend"}, (False, False, True), 0),
        ("single", {"indices", "classes"}, (True, False, False), 0),
    ],
)
def test_what_differs(runs, vaefit_cli, name, settings, same, step):
    folder, _ = runs
    found = vaefit_cli("compare", folder / "plain", folder / name, "--json").json
    assert set(found["settings"]) == settings
    assert (found["same_data"], found["same_batch"], found["same_weights"]) == same
    assert found["first_different_step"] == step
    assert set(found["environment"]) == ({"backend"} if name == "data" else set())


def test_compare_for_people(runs, vaefit_cli):
    folder, _ = runs
    outcome = vaefit_cli("compare", folder / "plain", folder / "data")
    assert outcome.code == 0
    assert "different bytes, digests" in outcome.out
    words = [line.split() for line in outcome.out.splitlines()]
    assert ["backend", "eager", "reference"] in words
    assert any(w[:1] == ["worst_class_accuracy"] for w in words)


def test_what_is_not_a_finished_run(runs, vaefit_cli, tmp_path):
    folder, _ = runs

    def says(name, wording, change=None):
        place = tmp_path / name
        if change is not None:
            shutil.copytree(folder / "plain", place)
            change(place)
        for command in (("show", place), ("compare", place, folder / "plain")):
            outcome = vaefit_cli(*command)
            assert outcome.code == 3
            assert wording in outcome.err
            assert str(place) in outcome.err
            assert outcome.err.count("\n") == 1

    def replace(key, value):
        def change(place):
            file = place / "result.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))

        return change

    says("nowhere", "there is no such run folder")
    says("empty", "no result.json in it", lambda p: [f.unlink() for f in p.iterdir()])
    says("killed", "metrics.csv of 6 steps", lambda p: (p / "result.json").unlink())
    says("torn", "not whole JSON", lambda p: (p / "result.json").write_text('{"verdict": "MEM'))
    says("list", "no JSON object", lambda p: (p / "result.json").write_text("[]"))
    says("edited", "$.iterations", replace("iterations", "five"))
    says("foreign", "$.verdict", replace("verdict", "SPLENDID"))
    outcome = vaefit_cli("show", folder / "grids.h5")
    assert outcome.code == 3
    assert "not the folder of a run" in outcome.err


HOSTILE = {
    "it is a named pipe": os.mkfifo,
    "leads out of its folder, to /dev/zero": lambda file: file.symlink_to("/dev/zero"),
    "elsewhere": lambda file: file.symlink_to(file.parents[1] / "elsewhere"),
    "bytes, and at most": lambda file: (file.touch(), os.truncate(file, 1 << 40)),
}


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.parametrize("name", ["result.json", "config.json", "metrics.csv", "sweep.json"])
def test_files_that_are_not_of_the_run_are_not_read(runs, vaefit_cli, tmp_path, name, words):
    folder, _ = runs
    place, out = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(folder / "plain", place)
    out.write_bytes((folder / "plain" / name).read_bytes() if (folder / "plain" / name).exists() else b"{}")
    (place / name).unlink(missing_ok=True)
    HOSTILE[words](place / name)
    outcome = vaefit_cli("show", place) if name == "sweep.json" else vaefit_cli("compare", place, folder / "plain")
    assert outcome.code == 3
    assert words in outcome.err
    assert outcome.err.startswith(f"error: {place / name}: the file cannot be read")
    assert outcome.err.count("\n") == 1
    if name == "metrics.csv":
        (place / "result.json").unlink()
        assert "metrics.csv of 0 steps" in vaefit_cli("show", place).err


@pytest.mark.parametrize(
    "content",
    [
        '{"verdict": "\\ud800"}', '{"seconds": NaN}', '{"seconds": 1e999}', "[" * 100_000, '{"a": ' * 100_000,
        '{"seconds": -' + "1" * 5_000 + "}", '{"a": "\xff"}', "\ufeff{}", "",
    ],
    ids=lambda content: content[:18],
)  # fmt: skip
def test_what_is_not_whole_json_is_one_error(runs, vaefit_cli, tmp_path, content):
    folder, _ = runs
    shutil.copytree(folder / "plain", tmp_path / "run")
    (tmp_path / "run/result.json").write_text(content, encoding="latin1" if "\xff" in content else "utf-8")
    outcome = vaefit_cli("show", tmp_path / "run", "--json")
    assert outcome.code == 3
    assert outcome.json["error"]["what"] == "the file is not whole JSON"
    assert outcome.err == ""


def test_a_torn_sweep(vaefit_cli, tmp_path):
    (tmp_path / "sweep.csv").write_text("lr\n")
    assert "no sweep.json" in vaefit_cli("show", tmp_path).err
    assert "the folder of a sweep, not of one run" in vaefit_cli("compare", tmp_path, tmp_path).err
    (tmp_path / "sweep.json").write_text("{}")
    outcome = vaefit_cli("show", tmp_path)
    assert outcome.code == 3
    assert "the sweep cannot be read" in outcome.err
