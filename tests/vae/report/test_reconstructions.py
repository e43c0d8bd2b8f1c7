"""The pictures show what the result says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaefit.vae import BetaVAE, OverfitResult, Recipe, overfit
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.report.curves import draw_curves
from vaefit.vae.report.palette import palette
from vaefit.vae.report.reconstructions import Panels, draw_panels


@pytest.fixture(scope="module")
def result() -> OverfitResult:
    grids = synthesise(SyntheticSpec(grids=6))
    return overfit(BetaVAE(10, 16, 16), grids, recipe=Recipe(iterations=2))


def _colours(file: Path) -> dict[tuple[int, int, int], int]:
    pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {(int(r), int(g), int(b)): int(n) for (r, g, b), n in zip(values, counts, strict=True)}


def test_an_exact_reconstruction_shows_no_error_and_twice_the_target(result: OverfitResult, tmp_path: Path) -> None:
    exact = replace(result, predictions=result.batch.grids)
    wrong = replace(result, predictions=np.zeros_like(result.batch.grids))
    draw_panels(Panels.from_result(exact), tmp_path / "exact.png")
    draw_panels(Panels.from_result(wrong), tmp_path / "wrong.png")
    seen, without = _colours(tmp_path / "exact.png"), _colours(tmp_path / "wrong.png")
    error = (214, 39, 40)
    foreground = int((result.batch.grids != 0).sum())
    assert error not in seen
    assert without[error] == foreground * 6 * 6  # cells of 7 x 7 pixels less their lines
    label = int(np.bincount(result.batch.grids[result.batch.grids != 0]).argmax())
    cells = int((result.batch.grids == label).sum())
    assert seen[palette(10)[label]] - without[palette(10)[label]] == cells * 6 * 6


@pytest.mark.parametrize(("size", "side", "classes"), [(1, 5, 3), (40, 16, 10), (3, 200, 30)])
def test_any_shape_can_be_drawn(size: int, side: int, classes: int, result: OverfitResult, tmp_path: Path) -> None:
    grids = np.random.default_rng(0).integers(0, classes, (size, side, side))
    other = replace(
        result,
        batch=replace(result.batch, grids=grids),
        predictions=np.roll(grids, 1, axis=2),
        accuracies=replace(result.accuracies, classes=(0.5,) * classes),
        ignore_index=0,
    )
    draw_panels(Panels.from_result(other), tmp_path / "any.png")
    with Image.open(tmp_path / "any.png") as picture:
        assert min(picture.size) > side


def test_curves_are_drawn_for_one_record_as_for_many(result: OverfitResult, tmp_path: Path) -> None:
    draw_curves(result, tmp_path / "many.png")
    draw_curves(replace(result, history=result.history[:1]), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5000
    assert (tmp_path / "many.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_every_class_has_its_own_colour() -> None:
    assert len(set(palette(64))) == 64
    assert palette(10)[2] == (255, 65, 54)
