"""`report.html` without a browser: what it says, what it carries, and what it never does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from tests.vae.report.page.parsed_page import Page, look_up
from vaefit.cache.location import Location
from vaefit.vae.errors import RunError
from vaefit.vae.fitting.frames import Frames
from vaefit.vae.fitting.result import OverfitRun
from vaefit.vae.metrics.diagnosis import Control, Diagnosis, Finding
from vaefit.vae.recipe import recipe_with
from vaefit.vae.report.page.animation import animation_data
from vaefit.vae.report.page.confusion_table import ConfusionTable
from vaefit.vae.report.page.overfit_page import overfit_page
from vaefit.vae.results.overfit_summary import RunSummary
from vaefit.vae.run_folder.overfit_folder import OverfitFolder
from vaefit.vae.run_folder.reader import read_json
from vaefit.vae.runs.overfit_run import run_overfit
from vaefit.vae.settings import CheckSettings

MOST_BYTES = 2_000_000
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}.h5"


@dataclass(frozen=True)
class Made:
    """A finished check, and its page."""

    check: OverfitRun
    page: Page

    @property
    def result(self) -> dict[str, Any]:
        return read_json(self.check.run_dir, "result.json")


def grids_of(count: int, height: int, width: int, classes: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    cells = rng.integers(0, classes, (count, height, width), dtype=np.uint8)
    cells[rng.random(cells.shape) < 0.5] = 0
    return cells


CASES: dict[str, dict[str, Any]] = {
    "learning": {},
    "memorised": {"iterations": 120, "batch_size": 4},
    "untrained": {"iterations": 0},
    "one grid": {"indices": (3,)},
    "two classes": {"shape": (20, 8, 8, 2)},
    "256 classes": {"shape": (40, 12, 12, 256)},
    "not square": {"shape": (20, 5, 30, 10)},
    "ignored": {"ignore_index": 4},
    "ignored and not a class": {"ignore_index": 9, "classes": 9},
    "diverged": {"lr": 1e300},
    "collapsed": {"lr": 1e-9, "weights": "none", "init": "default", "batch_size": 16},
    "many classes never occur": {"classes": 200},
    "longer than is drawn": {"iterations": 260, "stop_when": "never", "batch_size": 2, "lr": 1e-7},
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[..., Path]) -> Callable[..., Made]:
    """Run a check by the name of its case, once, or with other settings."""
    made: dict[str, Made] = {}

    def call(name: str, file: str = "grids.h5") -> Made:
        if name not in made:
            folder = tmp_path_factory.mktemp("report")
            options = dict(CASES.get(name, {}))
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            data = write_dataset(folder / file, grids=grids_of(*options.pop("shape", (40, 8, 8, 10))))
            known = {f for f in CheckSettings.__dataclass_fields__ if f != "recipe"}
            settings = {key: options.pop(key) for key in list(options) if key in known}
            recipe = recipe_with("default", **{"iterations": 3, **options})
            check = run_overfit(
                CheckSettings(data, recipe, **{"batch_size": 8, "out": folder / "run", "threads": 1, **settings})
            )
            made[name] = Made(check, Page(folder / "run" / "report.html"))
        return made[name]

    return call


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest, make: Callable[..., Made]) -> Made:
    return make(request.param)


@pytest.mark.slow
def test_the_cases_are_what_they_are_called(make: Callable[..., Made]) -> None:
    for name, verdict in {"memorised": "MEMORISED", "diverged": "DIVERGED", "collapsed": "COLLAPSED"}.items():
        assert make(name).check.result.verdict == verdict
    assert make("untrained").check.result.iterations == 0
    assert make("longer than is drawn").check.result.iterations == 260


def test_every_number_is_that_of_the_result(made: Made) -> None:
    result, numbers = made.result, made.page.numbers
    shown = {key: value for key, value in numbers.items() if not key.startswith("animation.")}
    assert shown == {key: look_up(result, key) for key in shown}
    wanted = {
        "iterations", "pixel_accuracy", "macro_accuracy", "worst_class_accuracy", "skill", "retrieval",
        "background_share", "majority_share", "distinct_pictures", "weights.ratio",
        "reached.pixel_95", "reached.worst_class_95", "reached.exact",
    }  # fmt: skip
    for c, accuracy in enumerate(result["class_accuracy"]):
        if accuracy is not None or result["dataset"]["counts"][c]:
            wanted |= {f"{kind}.{c}" for kind in ("dataset.counts", "batch.counts", "weights.values", "class_accuracy")}
    assert wanted <= shown.keys()
    assert made.page.texts["verdict"] == result["verdict"]
    assert made.page.texts["reason"] == result["reason"]
    assert made.page.texts.get("next") == result["next"]


def test_the_animation_is_that_of_the_run(made: Made) -> None:
    result = made.check.result
    targets, ignored, frames = made.page.pictures()
    shown = len(targets)
    np.testing.assert_array_equal(frames, result.film.frames[:, :shown])
    assert [frame[0] for frame in made.page.animation["frames"]] == list(result.film.steps)
    kept = np.ones(targets.shape, bool)
    if ignored is not None:
        kept = ignored == 0
        np.testing.assert_array_equal(kept, result.batch.grids[:shown] != result.ignore_index)
    np.testing.assert_array_equal(targets[kept], result.batch.grids[:shown][kept])
    np.testing.assert_array_equal(frames[-1], result.predictions[:shown])
    last = made.page.animation["frames"][-1]
    assert last[1:] == [made.result[key] for key in ("pixel_accuracy", "worst_class_accuracy", "worst_class")]
    assert (made.page.numbers["animation.grids"], made.page.numbers["animation.steps"]) == (shown, len(frames))


def test_it_is_small_and_asks_for_nothing(made: Made) -> None:
    page = made.page
    assert len(page.source.encode()) < MOST_BYTES
    page.check_requests("img")
    assert not [found for _, found in page.tags if "src" in found]
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert set(rules) == {"style-src", "script-src", "base-uri", "form-action"}
    assert all(re.fullmatch("'sha256-[A-Za-z0-9+/=]{44}'|'none'", rule) for rule in rules.values())


def test_ids_headings_and_names_are_in_order(made: Made) -> None:
    made.page.check_structure()


def test_hostile_names_are_text(make: Callable[..., Made]) -> None:
    page = make("hostile", HOSTILE).page
    assert "alert(1)" in page.source
    assert "<script>alert" not in page.source
    assert len(page.all("script")) == 2
    assert HOSTILE in page.texts["settings"]
    assert page.texts.get("grids", "") == ""


def test_a_name_of_other_bytes_is_shown_by_its_escapes(make: Callable[..., Made]) -> None:
    check = make("learning").check
    dataset = check.prepared.dataset
    shard = replace(dataset.shards[0], location=Location(Path(os.fsdecode(b"caf\xe9.h5"))))
    named = replace(check, prepared=replace(check.prepared, dataset=replace(dataset, shards=(shard,))))
    text = page_of(named).decode("utf-8")
    assert "caf\\udce9.h5" in text


def page_of(check: OverfitRun) -> bytes:
    return overfit_page(check, read_json(check.run_dir, "config.json"))


def test_what_others_wrote_into_a_diagnosis_is_text(make: Callable[..., Made], tmp_path: Path) -> None:
    controls = (
        Control("lr <tenth>", "--lr 2e-4", "MEMORISED", 40, 0.98, 0.97, 1.0),
        Control("no KL", "--beta 0", "COLLAPSED", 60, 0.0, None, None),
    )
    findings = (Finding("z shuffled", "accuracy falls by 0.000", True), Finding("gradients", "all reached", False))
    diagnosis = Diagnosis(
        "learning rate", "decoder<br>", "0.5 & 0.98", "--lr 2e-4", findings, controls, ("capacity", "init")
    )
    check = make("learning").check
    file = tmp_path / "report.html"
    file.write_bytes(page_of(replace(check, result=replace(check.result, diagnosis=diagnosis))))
    page = Page(file)
    shown = page.texts["diagnosis"]
    for part in ("learning rate in decoder<br>", "0.5 & 0.98", "--lr 2e-4", "lr <tenth>", "MEMORISED", "none",
                 "accuracy falls by 0.000 ! may explain it", "capacity, init"):  # fmt: skip
        assert part in shown
    assert page.all("br") == []
    assert "diagnosis" not in make("learning").page.texts


def test_config_json_is_in_it(made: Made) -> None:
    config = read_json(made.check.run_dir, "config.json")
    settings = made.page.texts["settings"]
    assert config["versions"]["torch"] in settings
    assert f"threads{config['threads']}" in re.sub(r"\s", "", settings)
    assert all(name.replace("_", " ") in settings for name in (*config["recipe"], *config["settings"]))


def test_the_same_seeds_give_the_same_page(make: Callable[..., Made], tmp_path: Path) -> None:
    first = make("learning").check
    second = run_overfit(replace(first.settings, out=tmp_path / "run"))
    times = re.compile(r"\d+\.\d s</p>|\d{4}-\d\d-\d\dT[\d:+-]+")
    pages = [
        times.sub("", (check.run_dir / "report.html").read_text()).replace(str(check.run_dir), "")
        for check in (first, second)
    ]
    assert pages[0].replace("scan", "cache") == pages[1].replace("scan", "cache")


def test_a_style_of_the_users_changes_nothing(make: Callable[..., Made]) -> None:
    check = make("learning").check
    plain = page_of(check)
    mine = {"text.usetex": True, "lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red", "axes.grid": True}
    with matplotlib.rc_context(mine):
        assert page_of(check) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_the_largest_animation_is_thinned_until_it_fits(make: Callable[..., Made], tmp_path: Path) -> None:
    check = make("256 classes").check
    rng = np.random.default_rng(0)
    shape, steps = (32, 64, 64), 64
    frames = rng.integers(0, 256, (steps, *shape), dtype=np.uint8)
    grids = rng.integers(0, 256, (40, 64, 64))
    first = check.result.history[0]
    history = tuple(
        replace(first, step=step, accuracies=replace(first.accuracies, classes=tuple(rng.random(256).tolist())))
        for step in range(501)
    )
    result = replace(
        check.result,
        film=Frames(tuple(range(0, 8 * steps, 8)), frames),
        batch=replace(check.result.batch, grids=grids, indices=tuple(range(40))),
        history=history,
        predictions=rng.integers(0, 256, grids.shape),
    )
    file = tmp_path / "report.html"
    file.write_bytes(page_of(replace(check, result=result)))
    assert file.stat().st_size < MOST_BYTES
    page = Page(file)
    targets, _, shown = page.pictures()
    places = [frame[0] // 8 for frame in page.animation["frames"]]
    assert (places[0], places[-1]) == (0, steps - 1)
    assert min(len(places), len(targets)) >= 6
    np.testing.assert_array_equal(targets, grids[: len(targets)])
    np.testing.assert_array_equal(shown, frames[places, : len(targets)])
    words = " ".join(page.texts["animation"].split())
    assert f"The first {len(targets)} of 40 grids, at {len(places)} of the 501 measured steps" in words


def test_a_grid_too_large_for_the_page_is_said_to_be(make: Callable[..., Made], tmp_path: Path) -> None:
    check = make("one grid").check
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 1, 1000, 1000), dtype=np.uint8)
    grids = frames[1].astype(np.int64)
    result = replace(check.result, film=Frames((0, 3), frames), batch=replace(check.result.batch, grids=grids))
    assert animation_data(result, RunSummary.from_run(check), ["grid 3"], []) is None
    file = tmp_path / "report.html"
    file.write_bytes(page_of(replace(check, result=result)))
    page = Page(file)
    assert "too large" in page.texts["animation"]
    assert page.all("script") == []


def test_a_matrix_shows_the_classes_at_fault() -> None:
    counts = np.diag(np.arange(100, 0, -1))
    counts[70, 3] = 5
    counts[99, 98] = 1
    matrix = ConfusionTable.from_counts(tuple(map(tuple, counts.tolist())))
    assert (len(matrix.labels), matrix.used) == (32, 100)
    assert {3, 70, 98, 99} <= set(matrix.labels)
    for row in matrix.rows:
        assert row.total == counts[row.label].sum()
        assert row.counts == counts[row.label, matrix.labels].tolist()
        assert sum(row.counts) + row.others == row.total
        assert all((shade > 0) == (count > 0) for shade, count in zip(row.shades, row.counts, strict=True))


def test_it_is_written_before_the_result_and_a_full_disk_names_it(
    make: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(make("learning").check.settings, out=tmp_path / "run")
    write = OverfitFolder.write

    def full(self: OverfitFolder, name: str, data: bytes) -> None:
        if name == "report.html":
            # a folder in its place is as unwritable as a full disk
            (self.path / name).mkdir()
            assert not (self.path / "result.json").exists()
        write(self, name, data)

    monkeypatch.setattr(OverfitFolder, "write", full)
    with pytest.raises(RunError, match="cannot be written") as caught:
        run_overfit(settings)
    assert caught.value.where == str(tmp_path / "run" / "report.html")
    assert not (tmp_path / "run" / "result.json").exists()
    assert not [file for file in (tmp_path / "run").iterdir() if ".tmp" in file.name]


def test_overfit_and_show_name_it(vaefit_cli: Callable[..., Any], dataset: Path, tmp_path: Path) -> None:
    made = vaefit_cli("overfit", dataset, "--iterations", "1", "--batch-size", "2", "--out", tmp_path / "run")
    last = made.out.splitlines()[-1]
    assert last.startswith(f"run   {tmp_path / 'run'}: report.html")
    assert vaefit_cli("show", tmp_path / "run").out.splitlines()[-1] == last
    assert json.loads((tmp_path / "run" / "result.json").read_text())["iterations"] == 1
