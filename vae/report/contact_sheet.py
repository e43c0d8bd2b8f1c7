"""Contact sheet: many grids side by side in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..metrics.accuracy import Labels
from .palette import palette
from .reconstructions import GAP, HEAD, PAGE, PAPER, RULE, coloured, draw_header, enlarged, scale_of

MOST_COLUMNS = 12


@dataclass(frozen=True)
class ContactSheet:
    """Grids, and the text above them."""

    grids: Labels
    """(n, H, W), at least one."""
    classes: int
    title: str
    line: str
    small: str
    """Second line, in a smaller font."""


def draw_contact_sheet(sheet: ContactSheet, out: Path) -> None:
    """Write the sheet as PNG to `out`; equal sheets give equal bytes."""
    count, height, width = sheet.grids.shape
    scale = scale_of(height, width)
    pitch_x, pitch_y = width * scale + GAP, height * scale + GAP
    # many grids make nearly a square
    wanted = max(8, round(np.sqrt(count * pitch_y / pitch_x)))
    columns = max(1, min(count, wanted, MOST_COLUMNS, PAGE // pitch_x))
    rows = -(-count // columns)
    page_w = max(columns * pitch_x + 3 * GAP, 640)
    image = Image.new("RGB", (page_w, HEAD + rows * pitch_y + GAP), PAPER)
    draw_header(ImageDraw.Draw(image), (sheet.title, sheet.line, sheet.small), palette(sheet.classes), page_w)
    colours = np.array(palette(sheet.classes), dtype=np.uint8)
    every = np.ones((height, width), bool)
    for place, grid in enumerate(sheet.grids):
        picture = Image.fromarray(enlarged(coloured(grid, every, colours), scale, RULE))
        image.paste(picture, (2 * GAP + place % columns * pitch_x, HEAD + place // columns * pitch_y))
    image.save(out, format="PNG", optimize=True)
