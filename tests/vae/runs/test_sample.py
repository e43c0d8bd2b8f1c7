"""`vaefit-cli sample`: grids from the prior of a trained model, as one picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaefit.vae.report.contact_sheet import draw_contact_sheet
from vaefit.vae.report.palette import palette

OWN_MODELS = """
import torch
class NoDecoder(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = torch.nn.Conv2d(num_classes, num_classes, 1)
    def forward(self, x):
        return self.layer(x)
class NoMu(NoDecoder):
    def decode(self, z):
        return z
class Whole(torch.nn.Module):
    def __init__(self, num_classes, height, width, wrong=None):
        super().__init__()
        self.code = torch.nn.Linear(num_classes * height * width, 6)
        self.back = torch.nn.Linear(3, num_classes * height * width)
        self.shape, self.wrong = (num_classes, height, width), wrong
    def forward(self, x):
        mu, logvar = self.code(x.flatten(1)).chunk(2, 1)
        return self.back(mu).view(-1, *self.shape), mu, logvar
    def decode(self, z):
        if self.wrong == "raises":
            raise ValueError("not today")
        return self.back(z) if self.wrong == "shape" else self.back(z).view(-1, *self.shape)
"""


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, vaefit_cli: Callable[..., Any], grids: Any, write_dataset: Any
) -> Path:
    """A folder with the data, a training run with a beta, a check without, and models of one's own."""
    folder = tmp_path_factory.mktemp("sample")
    data = write_dataset(folder / "grids.h5", grids=grids)
    (folder / "own.py").write_text(OWN_MODELS)
    short = ("--batch-size", "32", "--quiet")
    assert (
        vaefit_cli(
            "train", data, *short, "--epochs", "1", "--latent-dim", "4", "--beta", "0.5", "--out", folder / "run"
        ).code
        == 0
    )
    vaefit_cli("overfit", data, *short, "--iterations", "1", "--out", folder / "check")
    return folder


@pytest.fixture
def sample(place: Path, vaefit_cli: Callable[..., Any]) -> Callable[..., Any]:
    """Run `sample --json` for a run in `place`."""

    def call(run: str | Path, *arguments: str | Path) -> Any:
        return vaefit_cli("sample", place / run, *arguments, "--json")

    return call


def test_a_picture_in_the_run_folder(place: Path, sample: Callable[..., Any], grids: Any) -> None:
    done = sample("run", "--count", "5")
    found = done.json
    assert done.code == 0
    assert Path(found["file"]) == place / "run" / "samples.png"
    assert (found["count"], found["seed"], found["temperature"], found["latent_dim"]) == (5, 0, 1.0, 4)
    assert sum(found["shares"]) == pytest.approx(1)
    assert found["dataset_shares"] == pytest.approx((np.bincount(grids.ravel(), minlength=10) / grids.size).tolist())
    result = json.loads((place / "run" / "result.json").read_text())
    assert (found["kl"], found["active_dimensions"]) == (result["kl"], result["active_dimensions"])
    assert found["beta"] == 0.5
    assert f"KL {result['kl']:.2f} nats a grid" in found["note"]
    with Image.open(found["file"]) as picture:
        assert picture.format == "PNG"


def test_same_seed_same_bytes(sample: Callable[..., Any], tmp_path: Path) -> None:
    def drawn(*arguments: str) -> bytes:
        found = sample("run", "--out", tmp_path / "s.png", *arguments).json
        return Path(found["file"]).read_bytes()

    assert drawn() == drawn()
    assert drawn() != drawn("--seed", "1")
    assert drawn() != drawn("--temperature", "3")
    assert [file.name for file in tmp_path.iterdir()] == ["s.png"]


def test_no_temperature_is_one_grid(sample: Callable[..., Any], tmp_path: Path) -> None:
    assert sample("run", "--temperature", "0", "--count", "3", "--out", tmp_path / "s.png").json["distinct"] == 1


def test_without_a_beta_nothing_is_promised(place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path) -> None:
    shown = vaefit_cli("sample", place / "check", "--out", tmp_path / "s.png")
    assert shown.code == 0
    assert "beta was 0, so nothing pulled the codes of the data to the prior" in shown.err
    assert "32 grids" in shown.out


def test_a_new_run_in_the_folder_removes_the_samples(
    place: Path, vaefit_cli: Callable[..., Any], tmp_path: Path
) -> None:
    run = shutil.copytree(place / "check", tmp_path / "run")
    vaefit_cli("sample", run, "--quiet")
    assert (run / "samples.png").exists()
    vaefit_cli("overfit", place / "grids.h5", "--iterations", "1", "--out", run, "--overwrite", "--quiet")
    assert not (run / "samples.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("nowhere",), 3, "there is no such run folder"),
        ((".",), 3, "this is not the folder of a run"),
        (("run", "--count", "0"), 2, "the value cannot be used"),
        (("run", "--count", "1025"), 2, "the value cannot be used"),
        (("run", "--seed", "-1"), 2, "the value cannot be used"),
        (("run", "--temperature", "-1"), 2, "the value cannot be used"),
        (("run", "--temperature", "1e38"), 2, "the value cannot be used"),
        (("run", "--temperature", "nan"), 2, "the value cannot be used"),
        (("run", "--out", "a.jpg"), 2, "the value cannot be used"),
        (("run", "--out", "none/a.png"), 3, "the file cannot be written"),
    ],
)
def test_one_clear_error(
    sample: Callable[..., Any],
    arguments: tuple[str, ...],
    code: int,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = sample(*arguments)
    assert (done.code, "Traceback" in done.err) == (code, False)
    assert what in done.json["error"]["what"]


def test_torn_weights(place: Path, sample: Callable[..., Any], tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-1])
    assert sample(run).json["error"]["what"] == "the weights cannot be read"


@pytest.mark.parametrize(
    ("name", "argument", "what"),
    [
        ("NoDecoder", None, "it has no method `decode`"),
        ("NoMu", None, "the size of z is not known"),
        ("Whole", "wrong=raises", "the model cannot decode z"),
        ("Whole", "wrong=shape", "the model must decode z to logits"),
        ("Whole", None, None),
    ],
)
def test_models_of_ones_own(
    place: Path,
    sample: Callable[..., Any],
    vaefit_cli: Callable[..., Any],
    tmp_path: Path,
    name: str,
    argument: str | None,
    what: str | None,
) -> None:
    more = () if argument is None else ("--model-arg", argument)
    vaefit_cli(
        "overfit", place / "grids.h5", "--model", f"{place}/own.py:{name}", *more, "--lr", "0.01", "--batch-size", "4",
        "--iterations", "1", "--out", tmp_path / "run", "--quiet",
    )  # fmt: skip
    done = sample(tmp_path / "run")
    if what is None:
        assert done.json["latent_dim"] == 3
        return
    assert done.code == 3
    assert what in done.json["error"]["what"]


@pytest.mark.parametrize(("count", "shape", "classes"), [(1, (1, 1), 2), (30, (5, 40), 200), (3, (300, 20), 10)])
def test_any_shape_can_be_drawn(tmp_path: Path, count: int, shape: tuple[int, int], classes: int) -> None:
    grids = np.random.default_rng(0).integers(0, classes, (count, *shape))
    draw_contact_sheet(grids, classes, ("title", "line", "small"), tmp_path / "any.png")
    with Image.open(tmp_path / "any.png") as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 24)}
    assert {palette(classes)[c] for c in np.unique(grids)} <= colours
