"""A matplotlib figure as SVG to stand in a page: in the page's colours and font, and in the same bytes every time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

INK, FAINT, ACCENT, SECOND, WRONG, AREA, GOOD = (f"#01020{number}" for number in range(7))
"""Colours that no figure has by itself: the page's style says what they are, in light and in dark."""
_CLASSES = {
    INK: "ink", FAINT: "faint", ACCENT: "accent", SECOND: "second", WRONG: "wrong", AREA: "area", GOOD: "good",
}  # fmt: skip
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w-]+)")


@contextmanager
def page_style(name: str) -> Iterator[None]:
    """Draw as matplotlib does by itself, whatever style its user has set; every id is salted with `name`."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # text stays text; the salt makes ids that are the same in every process
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name})
        yield


def inline_svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure, drawn in `page_style`, as an `<svg>` without style attributes, which the page's policy forbids.

    Args:
        name: begins every id, as several figures share one page.
        label: what a screen reader says of it.
    """
    stream = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(stream.getvalue())
    for parent in root.iter():
        for child in list(parent):
            # what is about the file, and a style for every element, which the page's style repeats
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
    found: dict[str, str] = {}
    classes: list[str] = []
    for key, value in node.attrib.items():
        key = _local(key)
        if key == "id":
            if value in used:
                found[key] = f"{name}-{value}"
        elif key == "style":
            for part in filter(None, map(str.strip, value.split(";"))):
                rule, _, said = (piece.strip() for piece in part.partition(":"))
                _declare(rule, said, found, classes)
        elif key == "d":
            found[key] = " ".join(_NUMBER.sub(_shorter, value).split())
        else:
            found[key] = _REFERENCE.sub(lambda match: f"#{name}-{match[1]}", value)
    if node.tag == "text":
        found.setdefault("class", "ink")
    if classes:
        found["class"] = " ".join(classes)
    return found


def _declare(rule: str, said: str, found: dict[str, str], classes: list[str]) -> None:
    """One declaration of a style as an attribute, or as a class where the page decides."""
    if rule in ("fill", "stroke") and said in _CLASSES:
        classes.append(f"{rule}-{_CLASSES[said]}")
    elif rule == "font":
        size = re.search(r"([\d.]+)px", said)
        if size is not None:
            found["font-size"] = size[1]
    elif not rule.startswith("font-family"):
        found[rule] = said


def _local(name: str) -> str:
    """The name without its namespace: inside HTML, SVG has none."""
    return name.rpartition("}")[2]


def _shorter(match: re.Match[str]) -> str:
    """A tenth of a unit is less than a pixel."""
    return f"{float(match[0]):.1f}".removesuffix(".0")
