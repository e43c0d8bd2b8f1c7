"""Contact sheet: many grids side by side in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..metrics.accuracy import Labels
from .palette import palette
from .reconstructions import GAP, HEAD, PAGE, PAPER, RULE, coloured, draw_header, enlarged, scale_of

MOST_COLUMNS = 12


def draw_contact_sheet(grids: Labels, classes: int, lines: tuple[str, str, str], out: Path) -> None:
    """Write the grids (n, H, W), at least one, as PNG to `out`; equal arguments give equal bytes.

    `lines`: title, line and small line above the grids.
    """
    count, height, width = grids.shape
    scale = scale_of(height, width)
    pitch_x, pitch_y = width * scale + GAP, height * scale + GAP
    # many grids make nearly a square
    wanted = max(8, round(np.sqrt(count * pitch_y / pitch_x)))
    columns = max(1, min(count, wanted, MOST_COLUMNS, PAGE // pitch_x))
    rows = -(-count // columns)
    page_w = max(columns * pitch_x + 3 * GAP, 640)
    image = Image.new("RGB", (page_w, HEAD + rows * pitch_y + GAP), PAPER)
    draw_header(ImageDraw.Draw(image), lines, palette(classes), page_w)
    colours = np.array(palette(classes), dtype=np.uint8)
    every = np.ones((height, width), bool)
    for place, grid in enumerate(grids):
        picture = Image.fromarray(enlarged(coloured(grid, every, colours), scale, RULE))
        image.paste(picture, (2 * GAP + place % columns * pitch_x, HEAD + place // columns * pitch_y))
    image.save(out, format="PNG", optimize=True)
