"""`reconstructions.png`: target, reconstruction and error of each grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data.batch import Batch
from ..fitting.result import OverfitResult
from ..metrics.accuracy import Labels, kept_cells
from ..metrics.verdict import three_decimals
from .palette import Colour, palette

if TYPE_CHECKING:
    from ..training.validation import Validation

MOST_GRIDS = 32
"""Grids in the picture; of more, those with the most errors are drawn."""
PANEL = 112
"""Pixels of the longer side of a grid, if its cells are then large enough."""
LEGIBLE = 6
"""Least pixels of a cell, as long as the grid has at most `LARGEST`."""
LARGEST = 240
PAGE = 1500
COLUMNS = 4
HEAD = 92
"""Pixels above the grids."""
GAP = 6
PAPER, INK, FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)
RULE, _FAINT_RULE = (70, 70, 70), (205, 205, 205)
_RIGHT_WRONG, _IGNORED = np.array([(235, 235, 235), (214, 39, 40)], dtype=np.uint8), (190, 200, 215)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Panels:
    """Grids and their reconstructions, and the text above and beside them."""

    targets: Labels
    """(n, H, W), like the next."""
    predictions: Labels
    names: tuple[str, ...]
    """A title for each grid."""
    classes: int
    ignore_index: int | None
    title: str
    line: str
    all_drawn: str
    """Text that counts the grids, if all of them are drawn."""

    @classmethod
    def from_result(cls, result: OverfitResult) -> Panels:
        """Return the panels of the fixed batch."""
        accuracies, shares, batch = result.accuracies, result.shares, result.batch
        line = (
            f"after {result.iterations} updates: pixel {accuracies.pixel:.4f}"
            f" (without looking at the input: {shares.background:.4f}),"
            f" worst class {accuracies.worst:.4f}, skill {three_decimals(result.skill)}"
        )
        return cls(
            batch.targets,
            result.predictions,
            grid_names(batch),
            len(result.class_accuracy),
            result.ignore_index,
            result.verdict,
            line,
            f"all {len(batch.grids)} grids",
        )

    @classmethod
    def from_validation(cls, found: Validation, classes: int, ignore_index: int | None, title: str) -> Panels:
        """Return the panels of the validation grids that were kept for the picture."""
        line = (
            f"of all {found.grids:,} grids: pixel {found.accuracies.pixel:.4f}"
            f" (without looking at the input: {found.shares.background:.4f}),"
            f" macro {found.accuracies.macro:.4f}, worst class {found.accuracies.worst:.4f},"
            f" skill {three_decimals(found.skill)}"
        )
        names = tuple(f"number {n}" for n in found.shown)
        drawn = f"{len(names)} of the {found.grids:,} grids, evenly spread"
        return cls(found.targets, found.predictions, names, classes, ignore_index, title, line, drawn)


def grid_names(batch: Batch) -> tuple[str, ...]:
    """Return a name for each grid: its index in the dataset, else its number in the batch."""
    return tuple(f"grid {i}" for i in batch.indices) or tuple(f"number {i}" for i in range(len(batch.grids)))


def draw_panels(panels: Panels, out: Path) -> None:
    """Write the panels as PNG to `out`."""
    targets, predictions = panels.targets, panels.predictions
    kept = kept_cells(targets, panels.ignore_index)
    errors = ((targets != predictions) & kept).sum(axis=(1, 2))
    shown = np.arange(len(targets))
    if len(targets) > MOST_GRIDS:
        shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_GRIDS])

    height, width = targets.shape[1:]
    scale = scale_of(height, width)
    panel_w, panel_h = width * scale, height * scale
    cell_w, cell_h = 3 * (panel_w + GAP) + 3 * GAP, panel_h + 20 + GAP
    columns = max(1, min(COLUMNS, len(shown), PAGE // cell_w))
    rows = -(-len(shown) // columns)
    page_w = max(columns * cell_w + 2 * GAP, 640)
    image = Image.new("RGB", (page_w, HEAD + rows * cell_h + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    all_drawn, total = len(shown) == len(targets), len(targets)
    which = panels.all_drawn if all_drawn else f"{len(shown)} of {total} grids, most errors first chosen"
    small_line = f"{which}: target | reconstruction | error (red: wrong cell)"
    draw_header(draw, (panels.title, panels.line, small_line), palette(panels.classes), page_w)

    colours = np.array(palette(panels.classes), dtype=np.uint8)
    small = ImageFont.load_default(12)
    for place, i in enumerate(shown.tolist()):
        x = 2 * GAP + (place % columns) * cell_w
        y = HEAD + (place // columns) * cell_h
        caption = f"{panels.names[i]}: {f'{errors[i]} wrong' if errors[i] else 'exact'}"
        draw.text((x, y), caption, fill=FAINT, font=small)
        pictures = (
            coloured(targets[i], kept[i], colours),
            coloured(predictions[i], kept[i], colours),
            coloured(targets[i] != predictions[i], kept[i], _RIGHT_WRONG),
        )
        for number, panel in enumerate(pictures):
            picture = Image.fromarray(enlarged(panel, scale, _FAINT_RULE if number == 2 else RULE))
            image.paste(picture, (x + number * (panel_w + GAP), y + 18))
    image.save(out, format="PNG", optimize=True)


def scale_of(height: int, width: int) -> int:
    """Return the pixels of the side of a cell."""
    side = max(height, width)
    return max(PANEL // side, min(LEGIBLE, LARGEST // side), 1)


def draw_header(draw: ImageDraw.ImageDraw, lines: tuple[str, str, str], colours: list[Colour], width: int) -> None:
    """Write title, line and small line, and draw the classes from left to right, with numbers if there is room."""
    for text, y, size, ink in zip(lines, (8, 38, 60), (22, 14, 12), (INK, INK, FAINT), strict=True):
        draw.text((2 * GAP, y), text, fill=ink, font=ImageFont.load_default(size))
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


def coloured(grid: Labels | NDArray[np.bool_], kept: NDArray[np.bool_], colours: Pixels) -> Pixels:
    """Return the grid (H, W) in the colours (C, 3) of its classes, as (H, W, 3); cells that are not kept are grey."""
    picture = colours[np.where(kept, grid, 0)]
    picture[~kept] = _IGNORED
    return picture


def enlarged(picture: Pixels, scale: int, rule: Colour) -> Pixels:
    """Return the picture with scale x scale pixels a cell, and a fine line between cells from scale 5 on."""
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= 5:
        large[::scale] = rule
        large[:, ::scale] = rule
    return large
