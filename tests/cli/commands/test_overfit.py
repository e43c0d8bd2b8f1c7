"""`vaefit-cli overfit`: what it prints and leaves behind, and that each option does something."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vaefit.cli.main import run
from vaefit.vae import BetaVAE

RUN_FILES = {
    "config.json", "metrics.csv", "result.json", "report.html", "reconstructions.png", "curves.png",
    "model.safetensors",
}  # fmt: skip
NUMBER, MAYBE = (int, float), (int, float, type(None))
RESULT = {
    "verdict": str, "passed": bool, "reason": str, "next": (str, type(None)), "collapsed_class": (int, type(None)),
    "iterations": int, "reached": dict, "pixel_accuracy": NUMBER, "macro_accuracy": NUMBER,
    "worst_class_accuracy": NUMBER, "class_accuracy": list, "background_share": NUMBER, "majority_share": NUMBER,
    "skill": MAYBE, "retrieval": MAYBE, "variation": MAYBE, "without_gradient": list, "notes": list,
    "batch": dict, "weights": dict, "dataset": dict, "backend": str, "seconds": float, "run_dir": str,
}  # fmt: skip
INSIDE = {
    "reached": dict.fromkeys(("pixel_95", "worst_class_95", "exact"), (int, type(None))),
    "batch": {"digest": str, "indices": list, "counts": list},
    "weights": {"source": str, "scheme": str, "ratio": NUMBER, "values": list},
    "dataset": {"counts": list, "grids": int, "classes": int},
}
GIVEN = list(range(1, 11))
SHORT = ("--batch-size", "4", "--iterations", "3")

# each, after SHORT, must end in other parameters than the options on the right
KNOBS = {
    "--recipe classic": "",
    "--recipe adam": "--optimizer adam",
    "--optimizer adam": "",
    "--decay-steps 50": "",
    "--lr auto": "",
    "--init kaiming": "",
    "--init default": "--init kaiming",
    "--resample": "",
    "--recipe classic --no-resample": "--recipe classic",
    "--z sample": "",
    "--beta 0.1": "",
    "--beta-ramp 0,1,0.5": "",
    "--beta 1 --free-bits 2": "--beta 1",
    "--gamma 1": "",
    "--weights batch": "",
    "--weights none": "--weights batch",
    "--scheme inverse": "",
    "--scheme inverse --smooth 100": "--scheme inverse",
    "--scheme balanced": "",
    "--scheme effective": "",
    "--scheme effective --effective-b 0.5": "--scheme effective",
    "--weights-power 0.5": "",
    "--reduction mean": "",
    "--lr 0.01": "",
    "--betas 0.5,0.9": "",
    "--warmup 0": "",
    "--lr-decay none": "",
    "--lr-decay cosine": "--lr-decay none",
    "--clip 0.001": "",
    "--seed 1": "",
    "--batch-seed 1": "",
    "--batch-size 5": "",
    "--iterations 2": "",
    "--latent-dim 8": "",
    "--classes 12": "",
    "--ignore-index 4": "",
}
# what each, after SHORT, must show in the result
SEEN = {
    "--backend reference --device cpu": lambda r: r["backend"] == "reference",
    "--backend eager": lambda r: r["backend"] == "eager",
    "--indices 19,3,7": lambda r: r["batch"]["indices"] == [19, 3, 7],
    "--indices 5,5,9 --allow-duplicates": lambda r: r["batch"]["indices"] == [5, 5, 9],
    "--weights-file weights.json": lambda r: (r["weights"]["source"], r["weights"]["values"]) == ("file", GIVEN),
    "--target 0.6 --stop-when target --iterations 500": lambda r: r["passed"] and r["worst_class_accuracy"] >= 0.6,
    "--stop-when never --iterations 60": lambda r: r["iterations"] == 60 > r["reached"]["exact"],
    "--threads 2": lambda r: json.loads(Path(r["run_dir"], "config.json").read_text())["threads"] == 2,
    "--out there --overwrite": lambda r: Path(r["run_dir"]) == Path("there").absolute(),
    "--quiet --verbose": lambda r: r["iterations"] == 3,
    "--tensorboard": lambda r: len(list(Path(r["run_dir"], "tensorboard").iterdir())) == 1,
    "--no-graph": lambda r: (r["steps"], r["steps_reason"]) == ("one by one", "requested"),
    "--from earlier": lambda r: r["iterations"] == 3,
    "--gamma 1e30": lambda r: r["iterations"] == 3,
    "--lr 1e300": lambda r: r["verdict"] == "DIVERGED" and not r["passed"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, grids, write_dataset, vaefit_cli):
    """A folder with the small dataset, weights in a file, and a run."""
    folder = tmp_path_factory.mktemp("overfit")
    write_dataset(folder / "grids.h5", grids=grids)
    (folder / "weights.json").write_text(json.dumps(GIVEN))
    vaefit_cli("overfit", folder / "grids.h5", *SHORT, "--out", folder / "earlier", "--quiet")
    return folder


@pytest.fixture
def overfit(vaefit_cli, place, tmp_path, monkeypatch):
    """Run `overfit --json` in `place` and return the result; the run folder is new unless it is named."""
    monkeypatch.chdir(place)
    folders = (tmp_path / str(number) for number in itertools.count())

    def call(*arguments, data="grids.h5"):
        out = () if "--out" in arguments else ("--out", next(folders))
        outcome = vaefit_cli("overfit", data, *SHORT, *arguments, *out, "--json")
        found = outcome.json
        assert outcome.code == (0 if found["verdict"] == "MEMORISED" else 1)
        return found

    return call


@pytest.fixture(scope="module")
def trained(vaefit_cli, place):
    """The parameters after a short run with some options; the same options run once."""

    @functools.cache
    def call(arguments):
        folder = place / arguments.replace(" ", "_") / "run"
        outcome = vaefit_cli("overfit", place / "grids.h5", *SHORT, *arguments.split(), "--out", folder, "--json")
        assert outcome.json["verdict"] in ("LEARNING", "COLLAPSED")
        return (folder / "model.safetensors").read_bytes()

    return call


@pytest.fixture(scope="module")
def memorised(vaefit_cli, place):
    """A run to the end with the output for people, and its folder."""
    folder = place / "memorised"
    return vaefit_cli("overfit", place / "grids.h5", "--batch-size", "8", "--out", folder), folder


def rows(folder):
    with Path(folder, "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_json_holds_every_key_and_nothing_else_is_printed(overfit):
    found = overfit()
    for part, wanted in ((found, RESULT), *((found[key], inside) for key, inside in INSIDE.items())):
        assert wanted.keys() <= part.keys()
        assert {key: part[key] for key, kind in wanted.items() if not isinstance(part[key], kind)} == {}
    assert found["verdict"] in ("LEARNING", "COLLAPSED")
    assert (found["passed"], found["iterations"], len(found["class_accuracy"])) == (False, 3, 10)
    assert (found["dataset"]["grids"], found["dataset"]["classes"]) == (200, 10)
    assert found["next"]
    assert re.fullmatch("[0-9a-f]{64}", found["batch"]["digest"])
    assert Path(found["run_dir"]).is_absolute()
    assert found["seconds"] > 0
    assert json.loads(Path(found["run_dir"], "result.json").read_text()) == found


@pytest.mark.usefixtures("curves")
def test_the_run_folder(overfit):
    folder = Path(overfit()["run_dir"])
    assert {file.name for file in folder.iterdir()} == RUN_FILES
    assert isinstance(json.loads((folder / "config.json").read_text()), dict)
    for name in ("reconstructions.png", "curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_run_folder_without_out(vaefit_cli, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [vaefit_cli("overfit", place / "grids.h5", *SHORT, "--json").json["run_dir"] for _ in range(2)]
    assert len(set(found)) == 2, "the second run of a second took the first one's folder"
    for folder in map(Path, found):
        assert folder.parent == tmp_path / "runs"
        assert re.match(r"overfit-\d{8}-\d{6}", folder.name)


@pytest.mark.parametrize("steps", [0, 3])
def test_metrics_have_a_row_a_step_and_a_column_a_class(overfit, steps):
    found = overfit("--iterations", steps)
    metrics = rows(found["run_dir"])
    # the model is measured before each update, and once after the last
    assert len(metrics) == found["iterations"] + 1 == steps + 1
    for c, accuracy in enumerate(found["class_accuracy"]):
        last = metrics[-1][f"class_{c}"]
        assert (float(last) if last else None) == accuracy
    assert f"class_{len(found['class_accuracy'])}" not in metrics[0]


def test_same_seeds_same_metrics(overfit):
    texts = {Path(overfit("--resample", "--z", "sample")["run_dir"], "metrics.csv").read_bytes() for _ in range(2)}
    assert len(texts) == 1
    other = overfit("--resample", "--z", "sample", "--seed", "1")
    assert Path(other["run_dir"], "metrics.csv").read_bytes() not in texts


def test_memorised_passes(memorised):
    outcome, folder = memorised
    found = json.loads((folder / "result.json").read_text())
    assert (outcome.code, found["verdict"], found["passed"]) == (0, "MEMORISED", True)
    assert found["pixel_accuracy"] > 0.95
    assert found["worst_class_accuracy"] >= 0.95
    assert min(found["skill"], found["retrieval"]) >= 0.75
    assert found["iterations"] == found["reached"]["exact"] < 500


def test_reached_is_the_first_row_that_gets_there(memorised):
    _, folder = memorised
    reached = json.loads((folder / "result.json").read_text())["reached"]
    classes = [[float(v) for k, v in row.items() if k.startswith("class_") and v] for row in rows(folder)]
    assert reached["worst_class_95"] == next(i for i, values in enumerate(classes) if min(values) >= 0.95) > 0
    assert reached["exact"] == next(i for i, values in enumerate(classes) if min(values) == 1)
    assert reached["pixel_95"] <= reached["worst_class_95"]


def test_the_output_for_people(memorised):
    outcome, folder = memorised
    found = json.loads((folder / "result.json").read_text())
    lines = [line.replace("│", " ").split() for line in outcome.out.splitlines()]
    for c in range(10):
        both = {f"{found['dataset']['counts'][c]:,}", f"{found['batch']['counts'][c]:,}"}
        assert any(words[:1] == [str(c)] and both <= set(words) for words in lines), f"no row for class {c}"
    assert ["MEMORISED"] in [words[:1] for words in lines]
    for name in ("majority", "background"):
        assert any(words[:3] == [name, "share", f"{found[f'{name}_share']:.4f}"] for words in lines)
    assert f"ratio {found['weights']['ratio']:.2f}" in outcome.out
    assert str(folder) in outcome.out
    assert "\x1b" not in outcome.out


def test_quiet_has_results_but_no_notes(vaefit_cli, place, tmp_path):
    common = ("overfit", place / "grids.h5", *SHORT, "--classes", "12")
    loud = vaefit_cli(*common, "--out", tmp_path / "loud")
    assert "class 10, 11" in loud.err
    for option in ("--quiet", "-q"):
        quiet = vaefit_cli(*common, "--out", tmp_path / option, option)
        assert quiet.err == ""
        assert "skill" in quiet.out
        assert quiet.code == loud.code == 1


def test_no_color(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    printed = []
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        screen = io.StringIO()
        screen.isatty = lambda: True
        with redirect_stdout(screen):
            run(["overfit", str(place / "grids.h5"), *SHORT, "--out", str(tmp_path / f"run{value}")])
        printed.append(screen.getvalue())
    assert "\x1b[" in printed[0]
    assert "\x1b" not in printed[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    ["--iterations 12", "--iterations 12 --ignore-index 4", "--iterations 0", "--indices 9,4,9,1 --allow-duplicates"],
)
@pytest.mark.parametrize("data", ["grids.h5", "holes.h5"])
def test_the_saved_model_gives_the_numbers_of_the_result(overfit, place, grids, write_dataset, arguments, data):
    ignored = 4 if "--ignore-index" in arguments else None
    if data == "holes.h5":
        # sides that 4 does not divide, and the ignored label outside the classes
        cells = np.tile(grids, (1, 2, 2))[:, :9, :11].astype(np.int16)
        cells[cells == 4] = ignored = -1
        write_dataset(place / data, labels=cells)
        arguments = arguments.replace("--ignore-index 4", "") + " --ignore-index -1"
    found = overfit(*shlex.split(arguments), data=data)

    with h5py.File(place / data) as file:
        (stored,) = file.values()
        target = np.stack([stored[i] for i in found["batch"]["indices"]]).astype(np.int64)
    size, height, width = target.shape
    kept = target != ignored
    classes = found["dataset"]["classes"]
    model = BetaVAE(classes, height, width)
    model.load_state_dict(load_file(Path(found["run_dir"], "model.safetensors")))
    with torch.no_grad():
        answer = model.eval().reconstruct(torch.from_numpy(target)).numpy().argmax(axis=1)

    right = (answer == target) & kept
    pixel = right.sum() / kept.sum()
    counts = [int((kept & (target == c)).sum()) for c in range(classes)]
    recall = [int((right & (target == c)).sum()) / n if n else None for c, n in enumerate(counts)]
    held = [value for value in recall if value is not None]
    assert found["batch"]["counts"] == counts
    assert found["pixel_accuracy"] == pytest.approx(pixel)
    assert found["class_accuracy"] == pytest.approx(recall)
    assert found["macro_accuracy"] == pytest.approx(sum(held) / len(held))
    assert found["worst_class_accuracy"] == pytest.approx(min(held))

    best_picture = 0
    for y in range(height):
        for x in range(width):
            column = target[kept[:, y, x], y, x]
            best_picture += max((int((column == c).sum()) for c in range(classes)), default=0)
    background = best_picture / kept.sum()
    assert found["background_share"] == pytest.approx(background)
    assert found["majority_share"] == pytest.approx(max(counts) / kept.sum())
    assert found["skill"] == pytest.approx((pixel - background) / (1 - background))

    own = 0
    for i in range(size):
        agree = [int(((answer[i] == target[j]) & kept[j]).sum()) for j in range(size)]
        others = [agree[j] for j in range(size) if not np.array_equal(target[i], target[j])]
        own += all(agree[i] > other for other in others)
    assert found["retrieval"] == pytest.approx(own / size)


def test_an_ignored_class_counts_nowhere(overfit, grids):
    found = overfit("--ignore-index", "4")
    assert found["class_accuracy"][4] is None
    assert found["batch"]["counts"][4] == 0
    assert found["dataset"]["counts"] == [0 if c == 4 else int((grids == c).sum()) for c in range(10)]
    batch = grids[found["batch"]["indices"]]
    assert sum(found["batch"]["counts"]) == int((batch != 4).sum()) < batch.size


def test_classes_that_never_occur_have_no_accuracy(overfit):
    found = overfit("--classes", "12")
    assert found["class_accuracy"][10:] == [None, None]
    assert found["dataset"]["counts"][10:] == found["batch"]["counts"][10:] == [0, 0]
    assert len(found["weights"]["values"]) == 12


def test_where_the_weights_come_from(overfit, grids):
    for source in ("global", "batch"):
        found = overfit("--weights", source, "--batch-size", "8")
        cells = grids if source == "global" else grids[found["batch"]["indices"]]
        counts = np.bincount(cells.reshape(-1), minlength=10)
        assert counts.min() > 0
        expected = 1 / np.sqrt(counts + 1)
        assert found["weights"]["values"] == pytest.approx(expected * 10 / expected.sum())
        assert found["weights"]["ratio"] == pytest.approx(expected.max() / expected.min())
        assert (found["weights"]["source"], found["weights"]["scheme"]) == (source, "sqrt_inverse")
    off = overfit("--weights", "none")["weights"]
    assert (off["source"], off["ratio"], off["values"]) == ("none", 1, [1] * 10)


def test_no_scan_needs_cached_counts(vaefit_cli, dataset, tmp_path):
    folder = tmp_path / "elsewhere"
    arguments = ("overfit", dataset, *SHORT, "--cache-dir", folder, "--out", tmp_path / "run", "--json")
    refused = vaefit_cli(*arguments, "--no-scan")
    assert refused.code == 3
    assert "vaefit-cli weights" in refused.json["error"]["do"]
    assert not folder.exists()
    assert vaefit_cli(*arguments).code == 1
    assert (folder / "grids.h5.vaefit.json").is_file()
    assert vaefit_cli(*arguments, "--no-scan", "--overwrite").code == 1


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "than"), KNOBS.items())
def test_a_knob_changes_the_run(trained, arguments, than):
    assert trained(arguments) != trained(than)


@pytest.mark.slow  # --tensorboard needs the extra `peers`
@pytest.mark.parametrize("arguments", SEEN)
def test_an_option_shows_in_the_result(overfit, arguments):
    assert SEEN[arguments](overfit(*arguments.split()))


def test_both_spellings_of_the_optimizer_are_one_option(trained):
    assert trained("--optimiser adam") == trained("--optimizer adam")


def test_every_option_is_used_above(vaefit_cli):
    shown = vaefit_cli("overfit", "--help").out
    listed = re.findall(r"^  (-.+?)(?:  |$)", shown, re.MULTILINE)
    options = {option for entry in listed for option in re.findall(r"--[a-z][a-z-]+", entry)}
    assert len(options) > 30
    used = {word for line in (*KNOBS, *SEEN) for word in line.split()} | {*SHORT, "--json", "--help"}
    # in tests of their own
    used |= {"--no-scan", "--cache-dir", "--graph", "--model", "--model-arg", "--diagnose", "--optimiser"}
    assert sorted(options - used) == []
