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
"""More grids than this make no picture to look at; those with most errors are shown."""
PANEL = 112
"""Pixels that the longer side of a grid should have."""
LEGIBLE = 6
"""Pixels that a cell should have even where the grid is then larger, up to `LARGEST`."""
LARGEST = 240
PAGE = 1500
COLUMNS = 4
GAP = 6
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)
_RULE, _FAINT_RULE = (70, 70, 70), (205, 205, 205)
_RIGHT, _WRONG, _IGNORED = (235, 235, 235), (214, 39, 40), (190, 200, 215)

_Pixels = NDArray[np.uint8]


def draw_reconstructions(result: OverfitResult, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    targets, predictions = result.batch.targets, result.predictions
    kept = np.ones(targets.shape, dtype=bool) if result.ignore_index is None else targets != result.ignore_index
    errors = ((targets != predictions) & kept).sum(axis=(1, 2))
    shown = np.arange(len(targets))
    if len(targets) > SHOWN:
        shown = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])

    height, width = targets.shape[1:]
    side = max(height, width)
    scale = max(PANEL // side, min(LEGIBLE, LARGEST // side), 1)
    panel_w, panel_h = width * scale, height * scale
    cell_w, cell_h = 3 * (panel_w + GAP) + 3 * GAP, panel_h + 20 + GAP
    columns = max(1, min(COLUMNS, len(shown), PAGE // cell_w))
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
            _coloured(predictions[i], kept[i], colours),
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
    which = f"all {total} grids" if shown == total else f"{shown} of {total} grids, most errors first chosen"
    font = ImageFont.load_default(12)
    draw.text((2 * GAP, 60), f"{which}: target | reconstruction | error (red: wrong cell)", fill=_FAINT, font=font)
    _legend(draw, palette(len(result.class_accuracy)), width)


def _legend(draw: ImageDraw.ImageDraw, colours: list[Colour], width: int) -> None:
    """The classes from left to right, with their numbers where there is room for them."""
    pitch = max(1, min(26, (width - 4 * GAP) // len(colours)))
    numbered = pitch >= 20
    x = width - 2 * GAP - pitch * len(colours)
    y = 8
    for label, colour in enumerate(colours):
        draw.rectangle(
            (x, y, x + pitch - (4 if numbered else 1), y + 16), fill=colour, outline=_RULE if numbered else None
        )
        if numbered:
            ink = (255, 255, 255) if sum(colour) < 380 else (0, 0, 0)
            draw.text((x + 11, y + 8), str(label), fill=ink, font=ImageFont.load_default(12), anchor="mm")
        x += pitch
    if not numbered:
        draw.text((width - 2 * GAP, y + 18), f"class 0 to {len(colours) - 1}", fill=_FAINT, anchor="ra")


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
