"""`report.html` of a training run without a browser: what it says, what it carries, and what it never does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vae.report.page.parsed_page import Page, look_up
from vaefit.vae.errors import RunError
from vaefit.vae.report.curves import DIMENSIONS
from vaefit.vae.report.page.training_page import LARGEST_PICTURE, latent_chart, training_page
from vaefit.vae.results import signals
from vaefit.vae.results.signals import pixel_meaning, recall_trade
from vaefit.vae.results.training_summary import TrainSummary
from vaefit.vae.run_folder.reader import StoredRun, read_json
from vaefit.vae.run_folder.training_folder import TrainFolder

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}.h5"
MOST_BYTES = 600_000
SHORT = ("--batch-size", "16", "--epochs", "1", "--validate-every", "4", "--warmup", "2", "--threads", "1")
CASES: dict[str, tuple[str, ...]] = {
    "trained": (),
    "one class never occurs": ("--classes", "12"),
    "diverged": ("--lr", "1e300", "--optimizer", "adam"),
    "no weights": ("--weights", "none"),
}


class Trained:
    """A run folder, and its page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.page = folder, Page(folder / "report.html")
        self.result = read_json(folder, "result.json")

    @property
    def summary(self) -> TrainSummary:
        found = StoredRun.read(self.folder).summary
        assert isinstance(found, TrainSummary)
        return found


@pytest.fixture(scope="module")
def make(
    vaefit_cli: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    write_dataset: Callable[..., Path],
    grids: np.ndarray,
) -> Callable[..., Trained]:
    """Train by the name of a case, once."""
    made: dict[str, Trained] = {}

    def call(name: str, file: str = "grids.h5") -> Trained:
        if name not in made:
            folder = tmp_path_factory.mktemp("training")
            data = write_dataset(folder / file, grids=grids)
            done = vaefit_cli("train", data, *SHORT, *CASES.get(name, ()), "--out", folder / "run")
            assert done.code == (name == "diverged"), done.err
            made[name] = Trained(folder / "run")
        return made[name]

    return call


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest, make: Callable[..., Trained]) -> Trained:
    return make(request.param)


def test_every_number_is_that_of_the_result(made: Trained) -> None:
    result, numbers = made.result, made.page.numbers
    assert numbers == {key: look_up(result, key) for key in numbers}
    wanted = {
        "macro_accuracy", "worst_class_accuracy", "pixel_accuracy", "skill", "background_share", "majority_share",
        "loss", "focal", "kl", "active_dimensions", "iterations", "best_step", "best_epoch", "weights.ratio",
        "split.train", "split.val", "updates",
    }  # fmt: skip
    for c in range(10):
        wanted |= {f"{kind}.{c}" for kind in ("dataset.counts", "weights.values", "class_accuracy")}
    assert wanted <= numbers.keys()


def test_it_is_small_and_asks_for_nothing(made: Trained) -> None:
    page = made.page
    assert len(page.source.encode()) < MOST_BYTES
    page.check_requests("script")
    (picture,) = page.all("img")
    assert (picture["src"] or "").startswith("data:image/png;base64,")
    assert picture["alt"]
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert re.fullmatch("'sha256-[A-Za-z0-9+/=]{44}'", rules.pop("style-src"))
    nothing = dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")
    assert rules == {**nothing, "img-src": "data:"}


def test_ids_headings_and_names_are_in_order(made: Trained) -> None:
    made.page.check_structure()


def test_hostile_names_are_text(make: Callable[..., Trained]) -> None:
    page = make("hostile", HOSTILE).page
    assert "onerror" in page.source
    assert "<img src=x" not in page.source
    assert len(page.all("img")) == 1
    assert HOSTILE in page.texts["settings"]


def test_settings_that_had_no_say_are_left_out(made: Trained) -> None:
    settings = made.page.texts["settings"]
    config = read_json(made.folder, "config.json")
    assert config["versions"]["torch"] in settings
    unused = {"iterations", "resample", "stop_when", "target"}
    words = [word.strip() for word in settings.splitlines()]
    for name in config["recipe"]:
        assert any(word.startswith(name.replace("_", " ")) for word in words) == (name not in unused), name


@pytest.fixture(scope="module", autouse=True)
def _little_is_learned() -> Iterator[None]:
    """The page of a short run states the trade of recall, though there is none yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "LEARNED", 0.0)
        yield


def test_it_says_what_pixel_accuracy_means(make: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make("trained")
    run, words = trained.summary, " ".join(trained.page.texts["meaning"].split())
    assert words == pixel_meaning(run)
    below = replace(run, pixel_accuracy=0.8, background_share=0.9, skill=-1.0, macro_accuracy=0.7)
    above = replace(run, pixel_accuracy=0.95, background_share=0.9, skill=0.5)
    assert "0.8000, is below the background share, 0.9000" in pixel_meaning(below)
    assert "50.0 % of the way" in pixel_meaning(above)
    assert "says nothing" in pixel_meaning(replace(run, background_share=1.0, skill=None))
    assert "trade pixel accuracy for the recall of rare classes" in (recall_trade(below) or "")
    assert recall_trade(above) is None
    monkeypatch.setattr(signals, "LEARNED", 2.0)
    assert recall_trade(replace(below, macro_accuracy=0.15)) is None  # nothing was bought
    plain = make("no weights").summary
    assert recall_trade(replace(plain, pixel_accuracy=0.8, background_share=0.9, macro_accuracy=0.7)) is None
    assert "trade" not in make("no weights").page.texts


def test_the_trade_is_written_in_the_page_as_on_the_terminal(
    make: Callable[..., Trained], vaefit_cli: Callable[..., Any]
) -> None:
    trained = make("trained")
    said = recall_trade(trained.summary)
    assert said is not None
    assert f"note  {said}" in vaefit_cli("show", trained.folder).out
    assert trained.page.texts["trade"] == said.replace("`", "")


def test_a_run_that_diverged_says_so(make: Callable[..., Trained]) -> None:
    texts = make("diverged").page.texts
    assert texts["outcome"] == "DIVERGED"
    assert make("diverged").result["diverged"] in texts["diverged"]
    assert "--lr" in texts["next"]
    assert make("trained").page.texts["outcome"] == "Trained"


def test_warnings_are_in_it(make: Callable[..., Trained]) -> None:
    trained = make("trained")
    assert "warnings" not in trained.page.texts
    run = replace(trained.summary, warnings=("class 3 <was> lost",))
    found: Any = type("Found", (), {"shown": (0,), "kl_dimensions": None, "active": None})
    file = trained.folder.parent / "warned.html"
    picture = b"x" * (LARGEST_PICTURE + 1)
    file.write_bytes(training_page(run, found, read_json(trained.folder, "config.json"), picture))
    page = Page(file)
    assert "class 3 <was> lost" in page.texts["warnings"]
    assert "latent" not in page.texts
    assert page.all("img") == []
    assert "too large" in page.texts["reconstructions"]


def test_the_dimensions_with_most_divergence_are_drawn(make: Callable[..., Trained]) -> None:
    divergence = [0.001 * i for i in range(200)]
    active = tuple(i % 2 == 0 for i in range(200))
    chart = latent_chart(divergence, active)
    assert "100 of 200 are active" in chart
    assert ">72<" in chart
    assert ">0<" not in chart.partition("latent dimension")[0]
    for state in ([True], [False]):
        assert latent_chart([0.5], state).count("active</text>") == 1
    trained = make("trained")
    found: Any = type("Found", (), {"shown": (0,), "kl_dimensions": tuple(divergence), "active": active})
    file = trained.folder.parent / "latent.html"
    file.write_bytes(training_page(trained.summary, found, read_json(trained.folder, "config.json"), b""))
    words = Page(file).texts["latent"]
    assert "of 200 are active" in words
    assert f"The {DIMENSIONS} with most KL." in words


def test_it_is_written_before_the_result(
    make: Callable[..., Trained],
    vaefit_cli: Callable[..., Any],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = TrainFolder.write

    def full(self: TrainFolder, name: str, data: bytes) -> None:
        if name == "report.html":
            assert not (self.path / "result.json").exists()
            raise RunError("the file cannot be written", str(self.path / name))
        write(self, name, data)

    monkeypatch.setattr(TrainFolder, "write", full)
    done = vaefit_cli("train", dataset, *SHORT, "--out", tmp_path / "run")
    assert done.code == 3
    assert "report.html" in done.err
    assert not (tmp_path / "run" / "result.json").exists()
