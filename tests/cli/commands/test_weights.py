"""`vaefit-cli weights`: counts, weights by every scheme, and the cached file."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vaefit.cache.store import checked_json
from vaefit.cli.output.weights_table import text_bar

KEYS = {"counts", "weights", "ratio", "scheme", "grids", "cells", "source", "cache_file", "digest", "seconds"}
SCHEMES = ("sqrt_inverse", "inverse", "balanced", "effective", "none")


@pytest.fixture
def weights(vaefit_cli):
    """Run `weights --json` and return what it printed; it must pass."""

    def call(*arguments):
        outcome = vaefit_cli("weights", *arguments, "--json")
        assert outcome.code == 0, outcome.out
        return outcome.json

    return call


def by_formula(counts, scheme, smooth=1.0, b=None):
    """The weights of counts that are all positive, normalised to sum to C except `balanced`."""
    n, total = np.asarray(counts, dtype=np.float64), float(np.sum(counts))
    b = 1 - 1 / total if b is None else b
    raw = {
        "sqrt_inverse": lambda: 1 / np.sqrt(n + smooth),
        "inverse": lambda: 1 / (n + smooth),
        "balanced": lambda: total / (n.size * n),
        "effective": lambda: (1 - b) / (1 - b**n),
        "none": lambda: np.ones(n.size),
    }[scheme]()
    return raw if scheme == "balanced" else raw * n.size / raw.sum()


def doctored(file, label, more, less):
    """Move cells from one label to another in a cached file, and sign it anew."""
    body = json.loads(file.read_text())
    body["labels"][label] += more
    body["labels"][less] -= more
    del body["checksum"]
    body["checksum"] = checked_json._checksum(body)
    file.write_text(json.dumps(body))


def test_json_holds_the_counts_and_the_weights(weights, dataset, grids):
    found = weights(dataset)
    assert found.keys() >= KEYS
    assert found["counts"] == np.bincount(grids.reshape(-1), minlength=10).tolist()
    assert (found["grids"], found["cells"]) == (200, 200 * 64)
    expected = by_formula(found["counts"], "sqrt_inverse")
    assert found["scheme"] == "sqrt_inverse"
    assert found["weights"] == pytest.approx(expected, rel=1e-12)
    assert found["ratio"] == pytest.approx(expected.max() / expected.min(), rel=1e-12)
    assert isinstance(found["digest"], str)
    assert 0 <= found["seconds"] < 60


def test_the_counts_of_the_published_corpus_give_its_weights(vaefit_cli, tmp_path, write_dataset):
    counts = [19081814, 154289, 154457, 153994, 155609, 155472, 155012, 155371, 157799, 156183]
    labels = np.repeat(np.arange(10, dtype=np.uint8), counts)
    found = vaefit_cli("weights", write_dataset(tmp_path / "large.h5", grids=labels.reshape(-1, 16, 16)), "--json").json
    assert found["counts"] == counts
    assert round(found["ratio"], 2) == 11.13
    assert round(found["weights"][0], 4) == 0.0993


def test_a_scan_and_then_the_cached_file(weights, dataset):
    first = weights(dataset)
    file = Path(first["cache_file"])
    assert file == dataset.with_name("grids.h5.vaefit.json")
    assert file.is_file()
    second = weights(dataset)
    assert (first["source"], second["source"]) == ("scan", "cache")
    assert {**second, "source": 0, "seconds": 0} == {**first, "source": 0, "seconds": 0}


def test_a_named_dataset_has_a_file_of_its_own(weights, tmp_path, grids, write_dataset):
    file = write_dataset(tmp_path / "two.h5", **{"train": grids[:150], "deep/test": grids[150:]})
    found = [weights(f"{file}:/{name}") for name in ("train", "deep/test")]
    assert [f["grids"] for f in found] == [150, 50]
    assert [Path(f["cache_file"]).name for f in found] == ["two.h5.train.vaefit.json", "two.h5.deep.test.vaefit.json"]
    assert [weights(f"{file}:/{name}")["source"] for name in ("train", "deep/test")] == ["cache", "cache"]


def test_changed_data_is_counted_again(weights, dataset, grids, write_dataset):
    weights(dataset)
    changed = grids.copy()
    changed[0, 0, 0] = (changed[0, 0, 0] + 1) % 10
    write_dataset(dataset, grids=changed)
    found = weights(dataset)
    assert found["source"] == "scan"
    assert found["counts"] == np.bincount(changed.reshape(-1), minlength=10).tolist()


def test_cache_dir_comes_first_and_hides_nothing(weights, dataset, tmp_path):
    folder = tmp_path / "elsewhere"
    found = weights(dataset, "--cache-dir", folder)
    assert Path(found["cache_file"]) == folder / "grids.h5.vaefit.json"
    assert not dataset.with_name("grids.h5.vaefit.json").exists()
    assert weights(dataset, "--cache-dir", folder)["source"] == "cache"
    beside = weights(dataset)
    assert beside["source"] == "scan"
    (folder / "grids.h5.vaefit.json").write_text("{}")
    assert weights(dataset, "--cache-dir", folder)["source"] == "cache"


def test_rebuild_counts_whatever_is_cached(weights, dataset):
    first = weights(dataset)
    doctored(Path(first["cache_file"]), label=3, more=5, less=0)
    believed = weights(dataset)
    assert believed["source"] == "cache"
    assert believed["counts"][3] == first["counts"][3] + 5, "the doctored file was not believed: nothing to rebuild"
    rebuilt = weights(dataset, "--rebuild")
    assert rebuilt["source"] == "scan"
    assert rebuilt["counts"] == first["counts"]
    assert weights(dataset)["counts"] == first["counts"]


def test_the_weights_in_a_cached_file_are_derived_again(weights, dataset):
    first = weights(dataset)
    doctored(Path(first["cache_file"]), label=0, more=50, less=5)
    again = weights(dataset)
    assert again["weights"] == pytest.approx(by_formula(again["counts"], "sqrt_inverse"))
    assert again["ratio"] > first["ratio"]


def test_verify(vaefit_cli, weights, dataset):
    file = Path(weights(dataset)["cache_file"])
    good = vaefit_cli("weights", dataset, "--verify", "--json")
    assert (good.code, good.json["source"]) == (0, "cache")
    doctored(file, label=7, more=-1, less=0)
    before = file.read_bytes()
    for arguments in (("--json",), ()):
        bad = vaefit_cli("weights", dataset, "--verify", *arguments)
        assert bad.code == 1
        assert bad.out
    assert "differ" in bad.out
    assert json.loads(before)["labels"] == json.loads(file.read_text())["labels"], "--verify mended what it checks"
    assert vaefit_cli("weights", dataset, "--rebuild").code == 0
    assert vaefit_cli("weights", dataset, "--verify").code == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(weights, dataset, scheme):
    found = weights(dataset, "--scheme", scheme)
    assert found["scheme"] == scheme
    assert found["weights"] == pytest.approx(by_formula(found["counts"], scheme), rel=1e-6)
    assert scheme == "balanced" or sum(found["weights"]) == pytest.approx(10)


def test_smooth_and_effective_b(weights, dataset):
    smooth = weights(dataset, "--smooth", "500")
    assert smooth["weights"] == pytest.approx(by_formula(smooth["counts"], "sqrt_inverse", smooth=500))
    effective = weights(dataset, "--scheme", "effective", "--effective-b", "0.99")
    assert effective["weights"] == pytest.approx(by_formula(effective["counts"], "effective", b=0.99))


def test_all_schemes_side_by_side(vaefit_cli, dataset):
    shown = vaefit_cli("weights", dataset, "--all-schemes").out
    found = vaefit_cli("weights", dataset, "--all-schemes", "--json").json
    assert found.keys() >= KEYS
    for scheme in SCHEMES:
        expected = by_formula(found["counts"], scheme)
        assert scheme in shown
        assert f"{expected[0]:.4f}" in shown
        assert f"{expected.max() / expected.min():.2f}" in shown


def test_the_output_for_people(vaefit_cli, dataset):
    for source in ("scan", "cache"):
        shown = vaefit_cli("weights", dataset)
        assert shown.code == 0
        assert source in shown.out
        found = vaefit_cli("weights", dataset, "--json").json
        lines = [line.replace("│", " ").split() for line in shown.out.splitlines()]
        for c, (count, weight) in enumerate(zip(found["counts"], found["weights"], strict=True)):
            assert any(words[:2] == [str(c), f"{count:,}"] and f"{weight:.4f}" in words for words in lines)
        assert f"{found['ratio']:.2f}" in shown.out


def test_csv_and_nothing_else(vaefit_cli, weights, dataset, tmp_path):
    found = weights(dataset, "--all-schemes", "--classes", "11")
    for more, names in (((), ()), (("--all-schemes", "-v", "--verify", "--export", tmp_path / "w.npy"), SCHEMES)):
        outcome = vaefit_cli("weights", dataset, "--classes", "11", "--csv", *more)
        header, *rows = csv.reader(io.StringIO(outcome.out))
        assert header == ["class", "count", "share", "weight", *names]
        assert [int(row[0]) for row in rows] == list(range(11))
        assert [int(row[1]) for row in rows] == found["counts"]
        assert [float(row[2]) for row in rows] == [n / found["cells"] for n in found["counts"]]
        for place, name in enumerate(("sqrt_inverse", *names), 3):
            assert [float(row[place]) for row in rows] == found["schemes"][name]["weights"]
    assert "verified" in outcome.err
    assert "route" in outcome.err
    both = vaefit_cli("weights", dataset, "--csv", "--json")
    assert (both.code, both.json["exit"]) == (2, 2)
    assert "--csv and --json" in both.json["error"]["what"]
    broken = vaefit_cli("weights", tmp_path / "none.h5", "--csv")
    assert (broken.code, broken.out) == (3, "")


def test_bars_tell_rare_classes_apart(vaefit_cli, tmp_path, write_dataset):
    cells = np.repeat(np.arange(6), [100_000, 1_000, 100, 2, 1, 0]).astype(np.uint8)[:101_100].reshape(-1, 10, 10)
    cells.reshape(-1)[-3:] = 3, 3, 4
    file = write_dataset(tmp_path / "bars.h5", grids=cells)
    shown = vaefit_cli("weights", file, "--classes", "6").out
    assert "log scale" in shown
    bars = [line[line.index("%") :].split()[2:] for line in shown.splitlines() if "%" in line]
    bars = ["".join(bar) for bar in bars]
    lengths = [bar.count("█") for bar in bars]
    assert lengths[0] == 24
    assert lengths[:4] == sorted(set(lengths[:4]), reverse=True)
    assert bars[4].startswith("█")
    assert "█" not in bars[5]
    plain = [sys.executable, "-X", "utf8=0", "-m", "vaefit.cli", "weights", str(file), "--classes", "6"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "", "XDG_CACHE_HOME": str(tmp_path)}
    outcome = subprocess.run(plain, capture_output=True, check=True, env=environment, cwd=tmp_path)
    assert b"#" * 24 in outcome.stdout
    assert outcome.stdout.isascii()
    assert b"\x1b" not in outcome.stdout


@pytest.mark.parametrize("only_ascii", [True, False])
def test_a_bar_grows_with_the_count(only_ascii):
    bars = [text_bar(n, 10**12, 24, only_ascii) for n in (0, 1, 2, 10, 10**3, 10**6, 10**9, 10**12)]
    assert bars[0] == ""
    assert bars[1]
    assert [len(bar) for bar in bars] == sorted(len(bar) for bar in bars)
    assert len(bars[-1]) == 24
    assert text_bar(1, 1, 24) == "█" * 24
    assert text_bar(0, 0, 24) == ""


def test_verbose_says_how_the_file_was_read(vaefit_cli, dataset):
    scanned = vaefit_cli("weights", dataset, "--json", "--verbose", "--threads", "1").json
    assert scanned["route"]
    assert scanned["reason"]
    assert (scanned["threads"], scanned["resumed"]) == (1, 0)
    again = vaefit_cli("weights", dataset, "--rebuild", "-v").out
    assert scanned["route"] in again
    assert scanned["reason"] in again
    assert "route   none" in vaefit_cli("weights", dataset, "-v").out
    assert "route" not in vaefit_cli("weights", dataset).out
    assert vaefit_cli("weights", dataset, "--threads", "0").code == 2


def test_ignored_cells_and_absent_classes(vaefit_cli, weights, dataset, grids):
    ignored = weights(dataset, "--ignore-index", "4")
    assert ignored["counts"][4] == 0
    assert ignored["cells"] == int((grids != 4).sum())
    wide = vaefit_cli("weights", dataset, "--classes", "12", "--json")
    counts = wide.json["counts"]
    assert counts[10:] == [0, 0]
    # a class that never occurs weighs as much as the rarest that does, and that is said
    assert wide.json["weights"][10] == wide.json["weights"][11] == wide.json["weights"][int(np.argmin(counts[:10]))]
    assert "classes 10, 11" in wide.err
    assert sum(wide.json["weights"]) == pytest.approx(12)
    assert vaefit_cli("weights", dataset, "--classes", "12", "--quiet").err == ""


def test_weights_that_change_nothing_are_announced(vaefit_cli, tmp_path, write_dataset):
    even = np.tile(np.arange(4, dtype=np.uint8), (8, 4, 4))
    file = write_dataset(tmp_path / "even.h5", grids=even)
    found = vaefit_cli("weights", file, "--json")
    assert found.json["ratio"] == pytest.approx(1)
    assert "ratio" in found.err
    assert "ratio" not in vaefit_cli("weights", file, "--scheme", "none", "--json").err


def test_all_counts_zero_is_an_error(vaefit_cli, tmp_path, write_dataset):
    file = write_dataset(tmp_path / "blank.h5", grids=np.zeros((3, 8, 8), dtype=np.uint8))
    found = vaefit_cli("weights", file, "--ignore-index", "0", "--json")
    assert found.code == 3
    assert "0" in found.json["error"]["what"]
    assert "--ignore-index" in found.json["error"]["do"]


def test_the_embedded_corpus_is_made_once(vaefit_cli, user_cache):
    first = vaefit_cli("weights", "--json").json
    assert (first["grids"], first["cells"], len(first["counts"])) == (80_000, 80_000 * 256, 10)
    assert user_cache in Path(first["cache_file"]).parents
    second = vaefit_cli("weights", "--json")
    assert second.json["source"] == "cache"
    assert second.json["counts"] == first["counts"]
    assert second.err == ""


def test_verify_of_a_dataset_that_changed_exits_1_with_both_counts(vaefit_cli, dataset):
    assert vaefit_cli("weights", dataset).code == 0
    with h5py.File(dataset, "r+") as handle:
        old = int(handle["grids"][0, 0, 0])
        handle["grids"][0, 0, 0] = (old + 1) % 10
    outcome = vaefit_cli("weights", dataset, "--verify", "--json")
    assert outcome.code == 1
    change = np.array(outcome.json["recounted"]) - np.array(outcome.json["counts"])
    assert change[old] == -1
    assert change[(old + 1) % 10] == 1


def test_verify_without_a_cached_file_says_what_to_run(vaefit_cli, dataset):
    outcome = vaefit_cli("weights", dataset, "--verify", "--json")
    assert outcome.code == 3
    assert "vaefit-cli weights" in outcome.json["error"]["do"]


@pytest.mark.parametrize("kind", ["json", "npy", "safetensors"])
def test_exported_weights_are_used_as_they_are(weights, vaefit_cli, dataset, tmp_path, kind):
    file = tmp_path / "new" / f"w.{kind}"
    found = weights(dataset, "--scheme", "inverse", "--export", file)
    used = vaefit_cli(
        "overfit", dataset, "--iterations", "1", "--weights-file", file, "--out", tmp_path / "run", "--json"
    ).json["weights"]
    assert used["values"] == found["weights"]
    assert used["source"] == "file"


def test_what_an_exported_file_holds(weights, dataset, tmp_path):
    found = weights(dataset, "--export", tmp_path / "w.json")
    written = json.loads((tmp_path / "w.json").read_text())
    assert written["weights"] == found["weights"]
    assert (written["scheme"], written["counts"]) == ("sqrt_inverse", found["counts"])
    weights(dataset, "--export", tmp_path / "w.safetensors")
    tensors = load_file(tmp_path / "w.safetensors")
    assert tensors.keys() == {"class_weights"}
    assert tensors["class_weights"].dtype == torch.float64


def test_an_exported_file_is_not_replaced_unasked(vaefit_cli, dataset, tmp_path):
    (tmp_path / "w.npy").write_text("mine")
    outcome = vaefit_cli("weights", dataset, "--export", tmp_path / "w.npy")
    assert outcome.code == 3
    assert "--overwrite" in outcome.err
    assert (tmp_path / "w.npy").read_text() == "mine"
    assert vaefit_cli("weights", dataset, "--export", tmp_path / "w.npy", "--overwrite").code == 0


def test_nothing_is_overwritten_without_an_export(vaefit_cli, dataset):
    outcome = vaefit_cli("weights", dataset, "--overwrite")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--export" in outcome.err


def test_a_cache_dir_that_cannot_be_used_is_said_once(vaefit_cli, dataset, tmp_path):
    (tmp_path / "file").write_text("")
    copy = dataset.with_name("copy.h5")
    copy.write_bytes(dataset.read_bytes())
    outcome = vaefit_cli("weights", dataset, copy, "--cache-dir", tmp_path / "file", "--json")
    assert outcome.code == 0
    assert dataset.with_name("grids.h5.vaefit.json").exists()
    why = "the counts could not be cached in this folder: Not a directory"
    assert outcome.err.replace("\n", " ").count(f"{tmp_path / 'file'}: {why}") == 1


def test_an_ending_that_says_no_kind(vaefit_cli, dataset, tmp_path):
    outcome = vaefit_cli("weights", dataset, "--export", tmp_path / "w.txt")
    assert outcome.code == 2
    assert ".json, .npy, .safetensors" in outcome.err


@pytest.mark.parametrize(
    ("tensors", "code", "wording"),
    [
        ({"any": torch.ones(10)}, 1, ""),
        ({"other": torch.ones(3), "class_weights": torch.ones(10, dtype=torch.float16)}, 1, ""),
        ({"a": torch.ones(10), "b": torch.ones(10)}, 3, "2 tensors, none of them named class_weights"),
        ({"a": torch.ones(9)}, 2, "10 weights are needed"),
        ({"a": torch.ones(10, dtype=torch.bfloat16)}, 3, "no class weights"),
    ],
)
def test_safetensors_from_elsewhere(vaefit_cli, dataset, tmp_path, tensors, code, wording):
    save_file(tensors, tmp_path / "w.safetensors")
    options = ("--iterations", "1", "--weights-file", tmp_path / "w.safetensors", "--out", tmp_path / "run")
    outcome = vaefit_cli("overfit", dataset, *options)
    assert outcome.code == code
    assert wording in outcome.err


def test_a_torn_safetensors_file(vaefit_cli, dataset, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    outcome = vaefit_cli("overfit", dataset, "--weights-file", tmp_path / "w.safetensors")
    assert outcome.code == 3
    assert "the file holds no class weights" in outcome.err
