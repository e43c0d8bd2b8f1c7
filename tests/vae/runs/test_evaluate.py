"""`vaefit-cli evaluate`: what a run measured is measured again, on any split and on other data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vaefit.vae.errors import RunError
from vaefit.vae.runs.trained_model import TrainedModel

SAME = (
    "pixel_accuracy", "macro_accuracy", "worst_class_accuracy", "worst_class", "class_accuracy", "confusion",
    "background_share", "majority_share", "skill", "loss", "focal", "kl", "kl_dimensions", "active_dimensions",
)  # fmt: skip
TRAIN = ("--batch-size", "32", "--latent-dim", "4", "--val-share", "0.2", "--z", "sample", "--beta", "0.1")
OWN_MODEL = """
import torch
class Own(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = torch.nn.LazyConv2d(num_classes, 3, padding=1)
    def forward(self, x):
        return self.layer(x.float())
"""

Evaluate = Callable[..., Any]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, vaefit_cli: Callable[..., Any], grids: Any, write_dataset: Any
) -> Path:
    """A folder with the data, a training run whose best weights are not its last, a check, and a model of one's own."""
    folder = tmp_path_factory.mktemp("evaluate")
    data = write_dataset(folder / "grids.h5", grids=grids)
    lines = (
        (
            "train",
            data,
            *TRAIN,
            "--epochs",
            "2",
            "--test-share",
            "0.1",
            "--beta-warmup",
            "1.5",
            "--out",
            folder / "run",
        ),
        ("train", data, *TRAIN, "--epochs", "1", "--out", folder / "no_test"),
        ("overfit", data, "--batch-size", "4", "--iterations", "2", "--beta-ramp", "0,1,1", "--out", folder / "check"),
    )
    for line in lines:
        assert vaefit_cli(*line, "--quiet").code in (0, 1)
    return folder


@pytest.fixture
def evaluate(place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run `evaluate --json` in an empty folder, for a run in `place` or at a path, and return what it left."""
    monkeypatch.chdir(tmp_path)

    def call(run: str | Path, *arguments: str | Path) -> Any:
        return vaefit_cli("evaluate", place / run, *arguments, "--json")

    return call


def _copied(run: Path, to: Path, **changes: Any) -> Path:
    """A copy of a run, with other values in its config.json."""
    shutil.copytree(run, to)
    config = json.loads((to / "config.json").read_text())
    for name, value in changes.items():
        part = config["settings"] if name in config["settings"] else config
        part[name] = value
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "it is a named pipe"),
        (lambda file: file.symlink_to("/dev/zero"), "leads out of its folder"),
        (lambda file: (file.touch(), os.truncate(file, 1 << 40)), "bytes, and at most"),
    ],
)
@pytest.mark.parametrize("which", ["best", "last"])
def test_weights_that_are_no_file_of_the_run_are_not_read(
    place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path, make: Callable[[Path], Any], words: str, which: str
) -> None:
    run = _copied(place / "no_test", tmp_path / "run")
    for file in run.rglob("*.safetensors"):
        file.unlink()
        make(file)
    outcome = vaefit_cli("evaluate", run, "--checkpoint", which, "--out", tmp_path / "out", "--quiet")
    assert outcome.code == 3
    assert words in outcome.err
    if which == "last":
        resumed = vaefit_cli("train", "--resume", run, "--quiet")
        assert resumed.code == 3
        assert "no checkpoint of the run is whole" in resumed.err
        assert words in resumed.err


@pytest.mark.slow
def test_the_validation_split_gives_the_numbers_of_the_run(place: Path, evaluate: Evaluate) -> None:
    found = evaluate("run")
    result = json.loads((place / "run" / "result.json").read_text())
    assert found.code == 0
    assert {key: found.json[key] for key in SAME} == {key: result[key] for key in SAME}
    assert (found.json["split"], found.json["grids"], found.json["changed"]) == ("val", 40, [])
    assert found.json["step"] == result["best_step"]
    assert found.json["beta"] > 0
    folder = Path(found.json["run_dir"])
    assert folder.parent == Path("runs").absolute()
    assert {file.name for file in folder.iterdir()} == {"result.json", "reconstructions.png"}
    assert json.loads((folder / "result.json").read_text()) == found.json


def test_the_parts_add_up_to_all(evaluate: Evaluate) -> None:
    parts = [evaluate("run", "--split", split).json for split in ("train", "val", "test")]
    whole = evaluate("run", "--split", "all", "--batch-size", "7").json
    assert [part["grids"] for part in parts] == [140, 40, 20]
    assert sum(np.array(part["confusion"]) for part in parts).tolist() == whole["confusion"]
    assert whole["grids"] == 200


def test_the_last_checkpoint_is_that_of_the_last_update(place: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    last = evaluate("run", "--checkpoint", "last").json
    assert (last["checkpoint"], last["step"]) == ("last", 8)
    run = _copied(place / "run", tmp_path / "torn")
    newest = run / "checkpoints" / "step-000000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    found = evaluate(run, "--checkpoint", "last")
    assert found.json["step"] == 4
    assert "is skipped" in found.err


def test_a_check_is_measured_on_all_grids(place: Path, evaluate: Evaluate) -> None:
    found = evaluate("check").json
    assert (found["split"], found["grids"], found["trained_by"], found["step"]) == ("all", 200, "overfit", 2)
    assert found["beta"] == pytest.approx(0.2)  # after 2 of 10 updates to 1


def test_other_data_are_measured_whole(evaluate: Evaluate, write_dataset: Any, grids: Any, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other.h5", grids=grids[:50])
    found = evaluate("run", other)
    assert (found.json["split"], found.json["grids"], found.json["changed"]) == ("all", 50, [])
    assert "changed" not in found.err
    named = write_dataset(tmp_path / "named.h5", train=grids[:50], val=grids[50:60])
    assert evaluate("run", named, "--split", "val").json["grids"] == 10


def test_the_own_data_in_another_place_have_the_split_of_the_run(
    place: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    shutil.copy(place / "grids.h5", tmp_path / "moved.h5")
    first, second = evaluate("run").json, evaluate("run", tmp_path / "moved.h5", "--split", "val").json
    assert first["confusion"] == second["confusion"]


@pytest.mark.parametrize("keep", [slice(None), slice(0, 150)])
def test_changed_data_are_told(
    place: Path, evaluate: Evaluate, write_dataset: Any, grids: NDArray[np.uint8], tmp_path: Path, keep: slice
) -> None:
    changed = grids[::-1][keep].copy()
    changed[0, 0, 0] = 9 - changed[0, 0, 0]
    run = _copied(place / "run", tmp_path / "run", data=str(write_dataset(tmp_path / "changed.h5", grids=changed)))
    found = evaluate(run)
    assert found.code == 0
    assert "the data changed since the run began" in found.err
    assert "the class counts; the digest" in found.err
    assert ("the number of grids, 150, before 200" in found.err) == (keep.stop == 150)
    assert len(found.json["changed"]) == (3 if keep.stop == 150 else 2)


def test_a_model_of_ones_own(place: Path, vaefit_cli: Callable[..., Any], evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_MODEL)
    done = vaefit_cli(
        "train", place / "grids.h5", "--model", tmp_path / "own.py:Own", "--epochs", "1", "--batch-size", "64",
        "--lr", "0.01", "--out", tmp_path / "own_run", "--json",
    )  # fmt: skip
    found = evaluate(tmp_path / "own_run").json
    assert found["confusion"] == done.json["confusion"]
    assert found["kl_dimensions"] is None


def test_it_is_printed_for_people(place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path) -> None:
    shown = vaefit_cli("evaluate", place / "run", "--out", tmp_path / "e")
    for text in ("split       val, 40 grids", "confusion counts", "KL by dimension", "worst class", "skill"):
        assert text in shown.out
    again = vaefit_cli("evaluate", place / "run", "--out", tmp_path / "e")
    assert (again.code, "not empty" in again.err) == (3, True)
    assert vaefit_cli("evaluate", place / "run", "--out", tmp_path / "e", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("nowhere",), 3, "there is no such run folder"),
        ((".",), 3, "this is not the folder of a run"),
        (("run", "--split", "dev"), 2, "the value cannot be used"),
        (("run", "--checkpoint", "first"), 2, "the value cannot be used"),
        (("run", "--batch-size", "0"), 2, "the value cannot be used"),
        (("run", "--device", "tpu"), 2, "the value cannot be used"),
        (("no_test", "--split", "test"), 3, "the split has no grid for test"),
        (("check", "--split", "val"), 3, "the run has no split of these data"),
        (("check", "--checkpoint", "last"), 3, "the run has no checkpoint"),
        (("run", "none.h5"), 3, "the file does not exist"),
    ],
)
def test_one_clear_error(evaluate: Evaluate, arguments: tuple[str, ...], code: int, what: str) -> None:
    found = evaluate(*arguments)
    assert (found.code, found.json["exit"]) == (code, code)
    assert what in found.json["error"]["what"]
    assert "Traceback" not in found.err
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_absent(evaluate: Evaluate) -> None:
    found = evaluate("run", "--device", "cuda")
    assert (found.code, found.json["error"]["what"]) == (3, "there is no CUDA device")


@pytest.mark.parametrize(("shape", "what"), [((3, 8, 9), "grids of 8 x 8"), ((3, 8, 8), "the model has 10 classes")])
def test_data_that_are_not_for_the_model(
    evaluate: Evaluate, write_dataset: Any, tmp_path: Path, shape: tuple[int, int, int], what: str
) -> None:
    wrong = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 12
    found = evaluate("run", write_dataset(tmp_path / "wrong.h5", grids=wrong))
    assert found.code == 3
    assert what in found.json["error"]["what"]


def test_weights_that_are_absent_torn_or_of_another_model(place: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    run = _copied(place / "run", tmp_path / "run")
    weights = run / "model.safetensors"
    whole = weights.read_bytes()
    for data in (whole[:-10], whole[:100], b"", (place / "check" / "model.safetensors").read_bytes()):
        weights.write_bytes(data)
        found = evaluate(run)
        assert found.code == 3
        assert found.json["error"]["what"] in ("the weights cannot be read", "the weights are not those of the model")
    weights.unlink()
    assert evaluate(run).json["error"]["what"] == "the run has no weights"


@pytest.mark.parametrize(
    "changes",
    [{"kind": "other"}, {"classes": "ten"}, {"recipe": {}}, {"settings": []}, {"weights": [1.0]}, {"batch_size": 0}],
)
def test_a_damaged_config(place: Path, evaluate: Evaluate, tmp_path: Path, changes: dict[str, Any]) -> None:
    for number, run in enumerate(("run", "check")):
        if run == "check" and "weights" in changes:
            continue
        found = evaluate(_copied(place / run, tmp_path / str(number), **changes))
        assert (found.code, "Traceback" in found.err) == (3, False), changes


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"batch_size": "many"}, "batch_size: Expected `int`, got `str`"),
        ({"height": True}, "Expected `int`, got `bool` - at `$.height`"),
        ({"settings": {}}, "no 'model'"),
    ],
)
def test_a_damaged_config_is_described(
    place: Path, evaluate: Evaluate, tmp_path: Path, changes: dict[str, Any], got: str
) -> None:
    run = _copied(place / "run", tmp_path / "run", **changes)
    error = evaluate(run).json["error"]
    assert (error["what"], error["got"]) == ("the settings of the run cannot be read", got)
    assert error["where"] == str(run / "config.json")


def test_the_folder_of_a_run_is_not_written_to(place: Path, evaluate: Evaluate) -> None:
    before = (place / "run" / "result.json").read_bytes()
    found = evaluate("run", "--out", place / "check", "--overwrite")
    assert (found.code, "would be lost" in found.json["error"]["what"]) == (3, True)
    assert (place / "run" / "result.json").read_bytes() == before


def test_the_model_from_python(place: Path, grids: NDArray[np.uint8]) -> None:
    trained = TrainedModel.read(place / "run")
    with torch.no_grad():
        logits, *_ = trained.model(torch.from_numpy(grids[:2].astype(np.int64)))
    assert logits.shape == (2, 10, 8, 8)
    with pytest.raises(RunError, match="no such run folder"):
        TrainedModel.read(place / "none")
