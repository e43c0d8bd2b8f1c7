"""Colours of the classes and of the charts."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

INK, FAINT, ACCENT, SECOND = "#1b1c1e", "#5c5f64", "#1d5fa8", "#a34d00"
WRONG, GOOD, AREA = "#b3261e", "#1a6b3c", "#ccdaea"
"""The light theme of `report.css`. In SVG each is a CSS class, which the page changes in the dark theme."""
MOST_CLASSES = 32
"""Classes with a row in a chart or a table; of more, those with the most errors are shown."""
# the colours in which ARC tasks are shown everywhere
_ARC: tuple[Colour, ...] = (
    (0, 0, 0), (0, 116, 217), (255, 65, 54), (46, 204, 64), (255, 220, 0),
    (170, 170, 170), (240, 18, 190), (255, 133, 27), (127, 219, 255), (135, 12, 37),
)  # fmt: skip
_GOLDEN = 0.618033988749895


def palette(classes: int) -> list[Colour]:
    """Return the RGB (0..255) of each class: ARC's ten, then hues far from their neighbours, in three tones."""
    colours = list(_ARC[:classes])
    for c in range(len(_ARC), classes):
        r, g, b = colorsys.hsv_to_rgb((c * _GOLDEN) % 1.0, (0.55, 0.85, 0.7)[c % 3], (0.95, 0.75, 0.55)[c // 3 % 3])
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    return colours


def hex_colours(classes: int) -> tuple[str, ...]:
    """Return the colour of each class as `#rrggbb`."""
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(classes))
