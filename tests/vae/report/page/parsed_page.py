"""`report.html` as a reader without a browser sees it."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Numbers by their key in `result.json`, texts by the id of the element that they stand in, tags and attributes."""

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
        assert len(found) == len(attrs), f"an attribute of <{tag}> stands twice"
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
        """The attributes of every element of that kind."""
        return [found for name, found in self.tags if name == tag]

    @property
    def animation(self) -> dict[str, Any]:
        """What the page's script reads."""

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        found: dict[str, Any] = json.loads(self.texts["animation-data"], parse_constant=refuse)
        return found

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.uint8]]:
        """Targets (G, H, W), ignored cells where there may be any, and frames (F, G, H, W)."""
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
