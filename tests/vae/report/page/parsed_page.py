"""Parser of `report.html`, for tests without a browser."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Contents of a page: numbers by their key in `result.json`, texts by the id of their element, tags, attributes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.numbers: dict[str, Any] = {}
        self.texts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.policy = ""
        self._open: list[tuple[str, str | None]] = []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.tags.append((tag, found))
        if tag == "data":
            key, value = found["data-key"], json.loads(found["value"] or "")
            assert self.numbers.setdefault(key or "", value) == value
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag not in VOID:
            self._open.append((tag, found.get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag

    def handle_data(self, data: str) -> None:
        for _, name in self._open:
            if name is not None:
                self.texts[name] = self.texts.get(name, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element with this tag."""
        return [found for name, found in self.tags if name == tag]

    @property
    def animation(self) -> dict[str, Any]:
        """Data of the page's script."""

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        found: dict[str, Any] = json.loads(self.texts["animation-data"], parse_constant=refuse)
        return found

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.uint8]]:
        """Return targets (G, H, W), ignored cells if there can be any, and frames (F, G, H, W)."""
        animation = self.animation
        shape = len(animation["names"]), animation["height"], animation["width"]
        blocks = np.frombuffer(zlib.decompress(base64.b64decode(animation["packed"])), np.uint8).reshape(-1, *shape)
        first = 2 if animation["ignoring"] else 1
        assert len(blocks) == first + len(animation["frames"])
        return (
            blocks[0],
            blocks[1] if animation["ignoring"] else None,
            np.bitwise_xor.accumulate(blocks[first:], axis=0),
        )

    def check_structure(self) -> None:
        """Check that ids are unique and exist, headings follow each other, charts have a name, and no path is nan."""
        ids = [found["id"] for _, found in self.tags if "id" in found]
        assert len(ids) == len(set(ids))
        used = re.findall(r'(?:href="|url\()#([\w-]+)', self.source)
        used += [name for _, found in self.tags for name in (found.get("aria-labelledby") or "").split()]
        assert set(used) <= set(ids)
        levels = [int(tag[1]) for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]
        assert (levels[0], levels.count(1)) == (1, 1)
        assert all(after - before <= 1 for before, after in pairwise(levels))
        for found in self.all("svg"):
            assert found.get("aria-hidden") == "true" or found["aria-label"]
        assert [found for _, found in self.tags if "nan" in (found.get("d") or found.get("width") or "")] == []

    def check_requests(self, *forbidden: str) -> None:
        """Check that nothing in the page causes a request or runs, and that it has none of the forbidden tags."""
        assert not re.search(r"https?:|@import|url\((?!#)", self.source)
        for tag, attributes in self.tags:
            assert tag not in ("link", "iframe", "object", "embed", "base", "image", *forbidden)
            assert "style" not in attributes
            assert (attributes.get("href") or "#").startswith("#")
            assert not [name for name in attributes if name.startswith("on")]


def look_up(found: Any, key: str) -> Any:
    """Return the value of a key such as `dataset.counts.3`."""
    for part in key.split("."):
        found = found[int(part) if isinstance(found, list) else part]
    return found
