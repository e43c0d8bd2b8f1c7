"""`reconstructions.png`: each grid of the batch as target, reconstruction and error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..result import OverfitResult
from ..signals import Labels
from .palette import Colour, palette

SHOWN = 32
"""More grids than this are too small to read; those with most errors are shown."""
PANEL = 112
"""Pixels of the longer side of one picture, at least one a cell."""
GAP = 6
COLUMNS = 4
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)
_RULE, _FAINT_RULE = (70, 70, 70), (205, 205, 205)
_RIGHT, _WRONG, _IGNORED = (235, 235, 235), (214, 39, 40), (190, 200, 215)

_Pixels = NDArray[np.uint8]


def draw_reconstructions(result: OverfitResult, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    targets, predictions = result.batch.grids, result.predictions
    kept = np.ones(targets.shape, dtype=bool) if result.ignore_index is None else targets != result.ignore_index
    errors = ((targets != predictions) & kept).sum(axis=(1, 2))
    shown = np.arange(len(targets))
    if len(targets) > SHOWN:
        shown = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])

    height, width = targets.shape[1:]
    scale = max(1, PANEL // max(height, width))
    panel_w, panel_h = width * scale, height * scale
    cell_w, cell_h = 3 * (panel_w + GAP) + 3 * GAP, panel_h + 20 + GAP
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    head = 92
    page_w = max(columns * cell_w + 2 * GAP, 640)
    image = Image.new("RGB", (page_w, head + rows * cell_h + GAP), _PAPER)
    draw = ImageDraw.Draw(image)
    _header(draw, result, len(shown), page_w)

    colours = np.array(palette(len(result.class_accuracy)), dtype=np.uint8)
    small = ImageFont.load_default(12)
    for place, i in enumerate(shown.tolist()):
        x = 2 * GAP + (place % columns) * cell_w
        y = head + (place // columns) * cell_h
        draw.text((x, y), _caption(result, i, int(errors[i])), fill=_FAINT, font=small)
        panels = (
            _coloured(targets[i], kept[i], colours),
            _coloured(predictions[i], np.ones_like(kept[i]), colours),
            _error(targets[i], predictions[i], kept[i]),
        )
        for number, panel in enumerate(panels):
            picture = Image.fromarray(_enlarge(panel, scale, _FAINT_RULE if number == 2 else _RULE))
            image.paste(picture, (x + number * (panel_w + GAP), y + 18))
    image.save(out, format="PNG", optimize=True)


def _header(draw: ImageDraw.ImageDraw, result: OverfitResult, shown: int, width: int) -> None:
    accuracies, shares = result.accuracies, result.shares
    skill = "none" if result.skill is None else f"{result.skill:.3f}"
    draw.text((2 * GAP, 8), result.verdict, fill=_INK, font=ImageFont.load_default(22))
    line = (
        f"after {result.iterations} updates: pixel {accuracies.pixel:.4f}"
        f" (without looking at the input: {shares.background:.4f}),"
        f" worst class {accuracies.worst:.4f}, skill {skill}"
    )
    draw.text((2 * GAP, 38), line, fill=_INK, font=ImageFont.load_default(14))
    total = len(result.batch.grids)
    which = f"all {total} grids" if shown == total else f"the {shown} of {total} grids with most errors"
    font = ImageFont.load_default(12)
    draw.text((2 * GAP, 60), f"{which}: target | reconstruction | error (red: wrong cell)", fill=_FAINT, font=font)
    colours = palette(len(result.class_accuracy))
    if len(colours) > 21:
        return
    x = width - 2 * GAP - 26 * len(colours)
    for label, colour in enumerate(colours):
        draw.rectangle((x, 60, x + 22, 76), fill=colour, outline=_RULE)
        ink = (255, 255, 255) if sum(colour) < 380 else (0, 0, 0)
        draw.text((x + 11, 68), str(label), fill=ink, font=font, anchor="mm")
        x += 26


def _caption(result: OverfitResult, i: int, errors: int) -> str:
    name = f"grid {result.batch.indices[i]}" if result.batch.indices else f"number {i}"
    return f"{name}: {'exact' if errors == 0 else f'{errors} wrong'}"


def _coloured(grid: Labels, kept: NDArray[np.bool_], colours: _Pixels) -> _Pixels:
    picture = colours[np.where(kept, grid, 0)]
    picture[~kept] = _IGNORED
    return picture


def _error(target: Labels, prediction: Labels, kept: NDArray[np.bool_]) -> _Pixels:
    picture = np.full((*target.shape, 3), _RIGHT, dtype=np.uint8)
    picture[target != prediction] = _WRONG
    picture[~kept] = _IGNORED
    return picture


def _enlarge(picture: _Pixels, scale: int, rule: Colour) -> _Pixels:
    """Each cell as scale x scale pixels, with a fine line between cells where there is room for one."""
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= 5:
        large[::scale] = rule
        large[:, ::scale] = rule
    return large
