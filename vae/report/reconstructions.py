"""`reconstructions.png`: each grid as target, reconstruction and error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..fitting.result import OverfitResult
from ..metrics.accuracy import Labels
from .palette import Colour, palette

if TYPE_CHECKING:
    from ..training.validation import Validation

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
PAPER, INK, FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)
RULE, _FAINT_RULE = (70, 70, 70), (205, 205, 205)
_RIGHT, _WRONG, _IGNORED = (235, 235, 235), (214, 39, 40), (190, 200, 215)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Panels:
    """Grids and their reconstructions, and what is written over and beside them."""

    targets: Labels
    """(n, H, W), like the next."""
    predictions: Labels
    names: tuple[str, ...]
    """One for each grid."""
    classes: int
    ignore_index: int | None
    title: str
    line: str
    all_drawn: str
    """What is said of the grids where each of them is drawn."""

    @classmethod
    def from_result(cls, result: OverfitResult) -> Panels:
        """Those of the fixed batch."""
        accuracies, shares, batch = result.accuracies, result.shares, result.batch
        skill = "none" if result.skill is None else f"{result.skill:.3f}"
        names = [f"grid {i}" for i in batch.indices] or [f"number {i}" for i in range(len(batch.grids))]
        line = (
            f"after {result.iterations} updates: pixel {accuracies.pixel:.4f}"
            f" (without looking at the input: {shares.background:.4f}),"
            f" worst class {accuracies.worst:.4f}, skill {skill}"
        )
        return cls(
            batch.targets,
            result.predictions,
            tuple(names),
            len(result.class_accuracy),
            result.ignore_index,
            result.verdict,
            line,
            f"all {len(batch.grids)} grids",
        )

    @classmethod
    def from_validation(cls, found: Validation, classes: int, ignore_index: int | None, title: str) -> Panels:
        """Those of a split that are kept to be drawn."""
        skill = "none" if found.skill is None else f"{found.skill:.3f}"
        line = (
            f"of all {found.grids:,} grids: pixel {found.accuracies.pixel:.4f}"
            f" (without looking at the input: {found.shares.background:.4f}),"
            f" macro {found.accuracies.macro:.4f}, worst class {found.accuracies.worst:.4f}, skill {skill}"
        )
        names = tuple(f"number {n}" for n in found.shown)
        drawn = f"{len(names)} of the {found.grids:,} grids, evenly spread"
        return cls(found.targets, found.predictions, names, classes, ignore_index, title, line, drawn)


def draw_panels(panels: Panels, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    targets, predictions = panels.targets, panels.predictions
    kept = np.ones(targets.shape, dtype=bool) if panels.ignore_index is None else targets != panels.ignore_index
    errors = ((targets != predictions) & kept).sum(axis=(1, 2))
    shown = np.arange(len(targets))
    if len(targets) > SHOWN:
        shown = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])

    height, width = targets.shape[1:]
    scale = scale_of(height, width)
    panel_w, panel_h = width * scale, height * scale
    cell_w, cell_h = 3 * (panel_w + GAP) + 3 * GAP, panel_h + 20 + GAP
    columns = max(1, min(COLUMNS, len(shown), PAGE // cell_w))
    rows = -(-len(shown) // columns)
    head = 92
    page_w = max(columns * cell_w + 2 * GAP, 640)
    image = Image.new("RGB", (page_w, head + rows * cell_h + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    _header(draw, panels, len(shown), page_w)

    colours = np.array(palette(panels.classes), dtype=np.uint8)
    small = ImageFont.load_default(12)
    for place, i in enumerate(shown.tolist()):
        x = 2 * GAP + (place % columns) * cell_w
        y = head + (place // columns) * cell_h
        draw.text((x, y), _caption(panels.names[i], int(errors[i])), fill=FAINT, font=small)
        pictures = (
            coloured(targets[i], kept[i], colours),
            coloured(predictions[i], kept[i], colours),
            _error(targets[i], predictions[i], kept[i]),
        )
        for number, panel in enumerate(pictures):
            picture = Image.fromarray(enlarged(panel, scale, _FAINT_RULE if number == 2 else RULE))
            image.paste(picture, (x + number * (panel_w + GAP), y + 18))
    image.save(out, format="PNG", optimize=True)


def scale_of(height: int, width: int) -> int:
    """Pixels that the side of a cell has."""
    side = max(height, width)
    return max(PANEL // side, min(LEGIBLE, LARGEST // side), 1)


def _header(draw: ImageDraw.ImageDraw, panels: Panels, shown: int, width: int) -> None:
    draw.text((2 * GAP, 8), panels.title, fill=INK, font=ImageFont.load_default(22))
    draw.text((2 * GAP, 38), panels.line, fill=INK, font=ImageFont.load_default(14))
    total = len(panels.targets)
    which = panels.all_drawn if shown == total else f"{shown} of {total} grids, most errors first chosen"
    font = ImageFont.load_default(12)
    draw.text((2 * GAP, 60), f"{which}: target | reconstruction | error (red: wrong cell)", fill=FAINT, font=font)
    draw_legend(draw, palette(panels.classes), width)


def draw_legend(draw: ImageDraw.ImageDraw, colours: list[Colour], width: int) -> None:
    """The classes from left to right, with their numbers where there is room for them."""
    pitch = max(1, min(26, (width - 4 * GAP) // len(colours)))
    numbered = pitch >= 20
    x = width - 2 * GAP - pitch * len(colours)
    y = 8
    for label, colour in enumerate(colours):
        draw.rectangle(
            (x, y, x + pitch - (4 if numbered else 1), y + 16), fill=colour, outline=RULE if numbered else None
        )
        if numbered:
            ink = (255, 255, 255) if sum(colour) < 380 else (0, 0, 0)
            draw.text((x + 11, y + 8), str(label), fill=ink, font=ImageFont.load_default(12), anchor="mm")
        x += pitch
    if not numbered:
        draw.text((width - 2 * GAP, y + 18), f"class 0 to {len(colours) - 1}", fill=FAINT, anchor="ra")


def _caption(name: str, errors: int) -> str:
    return f"{name}: {'exact' if errors == 0 else f'{errors} wrong'}"


def coloured(grid: Labels, kept: NDArray[np.bool_], colours: Pixels) -> Pixels:
    """A grid (H, W) in the colours (C, 3) of its classes, as (H, W, 3); cells that are not kept are grey."""
    picture = colours[np.where(kept, grid, 0)]
    picture[~kept] = _IGNORED
    return picture


def _error(target: Labels, prediction: Labels, kept: NDArray[np.bool_]) -> Pixels:
    picture = np.full((*target.shape, 3), _RIGHT, dtype=np.uint8)
    picture[target != prediction] = _WRONG
    picture[~kept] = _IGNORED
    return picture


def enlarged(picture: Pixels, scale: int, rule: Colour) -> Pixels:
    """Each cell as scale x scale pixels, with a fine line between cells where there is room for one."""
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= 5:
        large[::scale] = rule
        large[:, ::scale] = rule
    return large
