"""`overfit --tensorboard`: the events as TensorBoard reads them, and what happens where they cannot be written."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

EventAccumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator

SHORT = ("--batch-size", "4", "--iterations", "3")
COLUMNS = {
    "loss": "loss", "focal": "focal", "kl": "kl", "lr": "lr", "grad_norm": "grad_norm",
    "accuracy/pixel": "pixel_accuracy", "accuracy/macro": "macro_accuracy",
    "accuracy/worst_class": "worst_class_accuracy",
}  # fmt: skip


@pytest.fixture
def overfit(vaefit_cli, dataset, tmp_path):
    """Run `overfit --json` in a folder of that name; `--tensorboard` only where it is given."""

    def call(*arguments, name="run"):
        outcome = vaefit_cli("overfit", dataset, *SHORT, "--out", tmp_path / name, "--json", *arguments)
        return outcome, tmp_path / name

    return call


def read(folder):
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_the_scalars_are_those_of_the_table(overfit):
    outcome, folder = overfit("--tensorboard", "--classes", "12")
    assert outcome.code == 1, outcome.err
    events = read(folder)
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    held = [c for c, accuracy in enumerate(outcome.json["class_accuracy"]) if accuracy is not None]
    assert len(held) < 12
    columns = COLUMNS | {f"class_accuracy/{c}": f"class_{c}" for c in held}
    assert set(events.Tags()["scalars"]) == set(columns)
    for tag, column in columns.items():
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(int(row["step"]), np.float32(row[column])) for row in rows if row[column]], tag
    assert len(events.Scalars("loss")) == 4
    assert len(events.Scalars("lr")) == 3, "no update follows the last step"


def test_the_verdict_and_the_picture(overfit):
    outcome, folder = overfit("--tensorboard")
    events, found = read(folder), outcome.json
    (verdict,) = events.Tensors("verdict")
    (text,) = verdict.tensor_proto.string_val
    for part in (found["verdict"], found["reason"], found["next"]):
        assert part in text.decode()
    (picture,) = events.Images("reconstructions")
    assert picture.encoded_image_string == (folder / "reconstructions.png").read_bytes()
    assert Image.open(io.BytesIO(picture.encoded_image_string)).size == (picture.width, picture.height)
    assert verdict.step == picture.step == found["iterations"] == 3


def test_the_table_is_the_same_with_it(overfit):
    _, without = overfit(name="without")
    _, with_it = overfit("--tensorboard", name="with")
    assert (without / "metrics.csv").read_bytes() == (with_it / "metrics.csv").read_bytes()
    assert not (without / "tensorboard").exists()


def test_an_overwritten_run_leaves_no_events(overfit):
    _, folder = overfit("--tensorboard")
    (old,) = (folder / "tensorboard").iterdir()
    old.rename(old.with_name("events.out.tfevents.1000000000.vaefit"))
    outcome, _ = overfit("--tensorboard", "--overwrite", "--iterations", "1")
    assert outcome.code == 1
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert [event.step for event in read(folder).Scalars("loss")] == [0, 1]
    (folder / "tensorboard" / "notes.txt").write_text("mine")
    overfit("--overwrite")
    assert [file.name for file in (folder / "tensorboard").iterdir()] == ["notes.txt"]
    (folder / "tensorboard" / "notes.txt").unlink()
    overfit("--overwrite")
    assert not (folder / "tensorboard").exists()


@pytest.mark.parametrize("module", ["tensorboard", "tensorboard.summary.writer.record_writer"])
def test_a_missing_package_is_told_before_anything_is_done(overfit, dataset, monkeypatch, module):
    for name in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    outcome, folder = overfit("--tensorboard")
    assert outcome.code == outcome.json["exit"] == 3
    error = outcome.json["error"]
    assert (error["what"], error["where"]) == ("the package tensorboard cannot be imported", "--tensorboard")
    assert error["do"] == "Run: pip install 'tensorboard>=2.18'"
    assert not folder.exists()
    assert [file.name for file in dataset.parent.iterdir()] == [dataset.name], "it was counted"


def test_a_full_disk(overfit, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    opened = Path.open

    def full(path, *arguments, **settings):
        return opened(Path("/dev/full") if "tfevents" in path.name else path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", full)
    outcome, folder = overfit("--tensorboard")
    assert outcome.code == 3
    error = outcome.json["error"]
    assert (error["what"], error["got"]) == ("the file cannot be written", "No space left on device")
    assert error["where"] == str(folder / "tensorboard")
    assert "Traceback" not in outcome.err
    assert not (folder / "result.json").exists()


def test_a_file_in_the_place_of_the_folder(overfit, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("mine")
    outcome, folder = overfit("--tensorboard", "--overwrite")
    assert outcome.code == 3
    assert outcome.json["error"]["where"] == str(folder / "tensorboard")
    assert (folder / "tensorboard").read_text() == "mine"


def test_events_that_are_removed_meanwhile(overfit, monkeypatch):
    from vaefit.vae.report import reconstructions

    drawn = reconstructions.draw_panels

    def remove(result, out):
        drawn(result, out)
        for file in (out.parent / "tensorboard").iterdir():
            file.unlink()

    monkeypatch.setattr(reconstructions, "draw_panels", remove)
    outcome, folder = overfit("--tensorboard")
    assert (outcome.code, outcome.json["verdict"]) == (1, "LEARNING"), "the run itself is whole"
    events = read(folder)
    assert (events.Tags()["scalars"], len(events.Tensors("verdict"))) == ([], 1)
    assert events.Images("reconstructions")[0].step == 3


def test_a_run_without_it_does_not_import_it(dataset, tmp_path):
    program = (
        "import sys; from vaefit.cli import run; run(sys.argv[1:]); "
        "sys.exit(any(name.partition('.')[0] == 'tensorboard' for name in sys.modules))"
    )
    command = [sys.executable, "-c", program, "overfit", str(dataset), *SHORT, "--out", str(tmp_path / "run")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
