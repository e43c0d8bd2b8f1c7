"""Figures of a run: rows of axes, lines and scales, and output as a PNG file or as SVG inside a page."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from .palette import ACCENT, AREA, FAINT, GOOD, INK, SECOND, WRONG

POINTS = 240
"""Steps of a line. More steps cannot be distinguished on a screen, and make the page larger."""
FAR = 5
"""The loss axis is logarithmic if the largest loss is more than this many times the smallest."""
PNG_DPI = 110
TITLE_CHARACTERS = 118
"""Characters in one line of a title."""
_WIDTH, _DPI, _LEFT, _RIGHT, _BOTTOM, _GAP = 10.0, 72, 0.095, 0.76, 0.5, 0.3
"""Width and space below and between the axes in inches; the left and right ends of the axes in shares of the width."""

_CLASSES = {
    INK: "ink", FAINT: "faint", ACCENT: "accent", SECOND: "second", WRONG: "wrong", GOOD: "good", AREA: "area",
}  # fmt: skip
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w-]+)")

Row = TypeVar("Row")
Style = str | tuple[int, tuple[int, ...]]
"""Dashes of a line as matplotlib names them: a word, or an offset and lengths."""


@contextmanager
def default_style(name: str = "") -> Iterator[None]:
    """Context manager and decorator: matplotlib's own defaults instead of the user's; `name` is the salt of SVG ids."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # text stays text; with a salt the ids are the same in every process
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name})
        yield


@dataclass(frozen=True)
class Line:
    """Line of a chart; None and values that are not finite are gaps."""

    name: str
    values: Sequence[float | None]
    colour: str
    style: Style = "-"

    @property
    def numbers(self) -> list[float]:
        """The values, with nan for each gap."""
        return [math.nan if value is None or not math.isfinite(value) else value for value in self.values]

    def draw(self, axes: Axes, steps: Sequence[int]) -> None:
        """Draw the line; nothing if it has no finite value."""
        numbers = self.numbers
        finite = sum(map(math.isfinite, numbers))
        if finite:
            # a line of one point is invisible
            marker = "o" if finite <= 2 else None
            (line,) = axes.plot(steps, numbers, color=self.colour, linestyle=self.style, marker=marker)
            line.set(linewidth=1.6, markersize=4, label=self.name)


def thinned(history: Sequence[Row]) -> list[Row]:
    """Return at most `POINTS` evenly spaced rows, with the first and the last."""
    places = np.unique(np.linspace(0, len(history) - 1, min(len(history), POINTS)).round().astype(int))
    return [history[i] for i in places.tolist()]


def stacked_axes(heights: Sequence[float], xlabel: str, title: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure and its rows of axes, which share the x axis; heights are in inches."""
    lines = textwrap.wrap(title, TITLE_CHARACTERS)
    head = 0.1 + 0.22 * len(lines)
    height = sum(heights) + head + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0].tolist()
    gap = _GAP * len(heights) / sum(heights)
    figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=1 - head / height, bottom=_BOTTOM / height, hspace=gap)
    if lines:
        figure.text(0.02, 1 - 0.08 / height, "\n".join(lines), color=INK, fontsize=11, va="top")
    for axes in rows:
        axes.tick_params(length=0, labelcolor=FAINT, labelsize=10)
        axes.grid(visible=True, color=FAINT, alpha=0.25, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        # the same place in all rows, without measuring the tick labels
        axes.yaxis.set_label_coords(-0.09, 0.5)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=INK, fontsize=10)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(FAINT)
    rows[-1].set_xlabel(xlabel)
    return figure, rows


def scale_losses(axes: Axes, losses: Sequence[float]) -> None:
    """Label the loss axis, and make it logarithmic if the positive losses differ by more than `FAR` times."""
    axes.set_ylabel("loss")
    positive = [value for value in losses if value > 0]
    # closer losses would have one tick between them, or none
    if not positive or max(positive) <= FAR * min(positive):
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return
    axes.set_yscale("log")
    # two decades or fewer also need ticks at 2 and 5: a single number is no scale
    narrow = max(positive) < 100 * min(positive)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
    # plain numbers: setting powers as formulas takes longer than the rest of the drawing
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())


def limit_steps(axes: Axes, steps: Sequence[int]) -> None:
    """Set the ends of the step axis, apart from each other even for one step."""
    room = max(0.02 * (steps[-1] - steps[0]), 0.2)
    axes.set_xlim(steps[0] - room, steps[-1] + room)


def add_legend(axes: Axes) -> None:
    """Write the names of the lines to the right of the axes."""
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=2.6)
    for text in legend.get_texts():
        text.set_color(INK)


@default_style()
def save_png(figure: Figure, out: Path) -> None:
    """Write the figure as PNG to `out`; equal figures give equal bytes."""
    figure.savefig(out, format="png", dpi=PNG_DPI)


def inline_svg(figure: Figure, name: str, label: str) -> Markup:
    """Return the figure as an `<svg>` without style attributes, which the page's security policy forbids.

    Args:
        name: prefix of every id, because several figures share one page.
        label: description for screen readers.
    """
    stream = io.BytesIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with default_style(name):
        figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    root = ElementTree.fromstring(stream.getvalue())
    for parent in root.iter():
        for child in list(parent):
            # file metadata, and a style element that the page's own style replaces
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = {found for node in root.iter() for value in node.attrib.values() for found in _REFERENCE.findall(value)}
    for node in root.iter():
        node.tag = _local(node.tag)
        node.tail = None
        node.attrib = _attributes(node, name, used)
    box = root.attrib["viewBox"]
    root.attrib = {"class": "chart", "viewBox": box, "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attributes(node: ElementTree.Element, name: str, used: set[str]) -> dict[str, str]:
    """Return the attributes for the page: style declarations become attributes or classes; unused ids are left out."""
    found: dict[str, str] = {}
    classes: list[str] = []
    for key, value in node.attrib.items():
        key = _local(key)
        if key == "id":
            if value in used:
                found[key] = f"{name}-{value}"
        elif key == "style":
            for declaration in filter(None, map(str.strip, value.split(";"))):
                rule, _, setting = (part.strip() for part in declaration.partition(":"))
                if rule in ("fill", "stroke") and setting in _CLASSES:
                    classes.append(f"{rule}-{_CLASSES[setting]}")
                elif rule == "font":
                    found["font-size"] = setting.partition("px")[0].rpartition(" ")[2]
                elif not rule.startswith("font-family"):
                    found[rule] = setting
        elif key == "d":
            # a tenth of a unit is less than a pixel
            found[key] = " ".join(_NUMBER.sub(lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), value).split())
        else:
            found[key] = _REFERENCE.sub(lambda m: f"#{name}-{m[1]}", value)
    if node.tag == "text" and not classes:
        classes.append("ink")
    if classes:
        found["class"] = " ".join(classes)
    return found


def _local(name: str) -> str:
    """Return the name without its namespace: SVG inside HTML has none."""
    return name.rpartition("}")[2]
