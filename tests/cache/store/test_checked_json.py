"""Cached and partial files that another version, another tool, a full disk or an attacker wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaefit.cache import DataError, count_dataset
from vaefit.cache.dataset_counts import stored_counts
from vaefit.cache.store import checked_json, counts_file, partial_scan

COUNTS = [1000, 200, 80]


pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture
def data(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    (tmp_path / "data").mkdir()
    return write_dataset(tmp_path / "data" / "maps.h5", grids=np.repeat([0, 1, 2], COUNTS).reshape(20, 8, 8))


def beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.vaefit.json")


def answer(data: Path, **settings: Any) -> tuple[list[int], str]:
    found = count_dataset(data, **settings)
    return found.counts.tolist(), found.source


def forge(file: Path, schema: str = counts_file.SCHEMA, **changes: Any) -> None:
    """Change a sealed file, and give it the checksum that goes with that."""
    body = json.loads(file.read_text()) | changes
    body = {
        k: v for k, v in body.items() if k not in ("schema", "checksum", *(n for n, v in changes.items() if v is ...))
    }
    sealed_text = {"schema": schema, **body}
    file.write_text(json.dumps({**sealed_text, "checksum": checked_json._checksum(sealed_text)}))


def test_an_older_version_is_named_and_counted_again(data: Path, said: Any) -> None:
    count_dataset(data)
    # the version before may have counted an image, or a void label
    forge(beside(data), "vaefit.counts/3", weights={"scheme": "sqrt_inverse", "values": [0.5, 1.0, 1.5]})
    assert answer(data) == (COUNTS, "scan")
    assert "schema vaefit.counts/3, this version reads vaefit.counts/4: an older" in said()
    assert answer(data) == (COUNTS, "cache")


@pytest.mark.parametrize("torn", [False, True])
def test_a_newer_version_is_named_and_left_alone(data: Path, user_folder: Path, said: Any, torn: bool) -> None:
    count_dataset(data)
    forge(beside(data), "vaefit.counts/5", field="of the future")
    if torn:
        beside(data).write_bytes(beside(data).read_bytes()[:-9])
    theirs = beside(data).read_bytes()
    found = count_dataset(data)
    assert (found.counts.tolist(), found.source) == (COUNTS, "scan")
    assert user_folder in found.cache_file.parents
    assert torn or "schema vaefit.counts/5, this version reads vaefit.counts/4: a newer" in said()
    assert answer(data) == (COUNTS, "cache")
    assert beside(data).read_bytes() == theirs
    assert count_dataset(data, rebuild=True).cache_file == beside(data)
    assert json.loads(beside(data).read_text())["schema"] == counts_file.SCHEMA


def test_where_only_newer_versions_hold_the_places(data: Path, user_folder: Path, said: Any) -> None:
    count_dataset(data)
    beside(data).rename(beside(data).with_suffix(".kept"))
    beside(data).mkdir()
    other = count_dataset(data).cache_file
    beside(data).rmdir()
    for place in (beside(data), other):
        place.write_text('{"schema": "vaefit.counts/12"}')
    found = count_dataset(data)
    assert (found.counts.tolist(), found.cache_file) == (COUNTS, None)
    assert "only --rebuild replaces it" in said()


HOSTILE = [
    {"labels": [1000, 200, -80]},
    {"labels": [1000, 200, 79]},
    {"labels": [1000.0, 200, 80]},
    {"labels": [True, 1199, 80]},
    {"labels": [0] * 65536 + [1280]},
    {"labels": "1000"},
    {"labels": {"0": 1280}},
    {"labels": ...},
    {"labels": [2**63, 1280 - 2**63]},
    {"shape": [20, 8]},
    {"shape": [20, 8, 8, 1]},
    {"shape": [-20, -8, 8]},
    {"shape": [2**62, 2**62, 2**62]},
    {"outside": 5},
    {"outside": 1, "labels": [999, 200, 80]},
    {"outside": 1, "labels": [999, 200, 80], "outside_label": 7},
    {"outside_label": -100},
    {"declared_ignore": 2**65},
    {"stored_shape": [20, 8]},
    {"passed_over": "images"},
    {"declared_classes": 0},
    {"declared_classes": 10**9},
    {"declared_classes": [4]},
    {"dataset": None},
    {"dataset": "grids\0"},
    {"content": "x" * 64},
    {"content": 5},
    {"sources": []},
    {"sources": [[]]},
    {"sources": [{"base": "file", "path": "", "stamp": [1, 2, 3]}]},
    {"sources": [{"base": "file", "path": "", "stamp": [2**80] * 6}]},
    {"sources": [{"base": "file", "path": "", "stamp": ["0"] * 6}]},
    {"sources": [{"base": "moon", "path": "", "stamp": None}]},
    {"sources": [{"base": ["file"], "path": "", "stamp": None}]},
    {"sources": [{"base": "absolute", "path": "/etc/passwd", "stamp": None}]},
    {"sources": [{"base": "file", "path": "", "stamp": None}]},
    {"asked_dataset": 7},
    {"chunks": [0, 8, 8]},
    {"filters": [["deflate"]]},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
def test_contents_that_cannot_be_true_are_a_miss(data: Path, changes: dict[str, Any]) -> None:
    """Hostile JSON is rejected under a checksum that fits, too."""
    count_dataset(data)
    forge(beside(data), **changes)
    assert answer(data) == (COUNTS, "scan")
    assert answer(data) == (COUNTS, "cache")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 3_000_000,
        b'{"a":' * 500_000,
        b'{"schema": "vaefit.counts/4", "labels": [' + b"9" * 100_000 + b"]}",
        b'{"schema": "vaefit.counts/4", "labels": [NaN, Infinity]}',
        b'{"schema": ["vaefit.counts/4"]}',
        b'{"schema": "vaefit.counts/' + b"9" * 5000 + b'"}',
        b'{"schema": "vaefit.counts/4"}',
        b" " * (checked_json.LIMIT + 1),
        b"\x80\x04\x95",
        b"\xed\xa0\x80",
        "\ud800".encode("utf-16", "surrogatepass"),
    ],
    ids=lambda text: str(text[:30]),
)
def test_text_that_is_no_cached_file_is_a_miss(data: Path, said: Any, text: bytes) -> None:
    beside(data).write_bytes(text)
    assert answer(data) == (COUNTS, "scan")
    assert "ignored" in said()
    assert answer(data) == (COUNTS, "cache")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_json_under_any_name_is_decoded_or_rejected(data: Path, drawn: st.DataObject) -> None:
    if not beside(data).exists():
        count_dataset(data)
    body = json.loads(beside(data).read_text())
    place: Any = body
    for _ in range(drawn.draw(st.integers(1, 3))):
        inner = drawn.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[inner], (dict, list)) or not place[inner]:
            break
        place, outer, key = place[inner], place, inner
    else:
        place, inner = outer, key
    place[inner] = drawn.draw(json_values)
    with suppress(checked_json.RejectedError):
        counts_file._decode(body)


def test_a_named_pipe_is_not_waited_for(data: Path, said: Any) -> None:
    os.mkfifo(beside(data))
    assert answer(data)[0] == COUNTS
    assert "it is a named pipe" in said()


def test_counts_of_too_many_files_are_not_cached(data: Path, monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    monkeypatch.setattr(checked_json, "LIMIT", 500)
    found = count_dataset(data)
    assert (found.counts.tolist(), found.cache_file) == (COUNTS, None)
    assert "could not be cached" in said()


def test_stored_counts_of_another_version_are_none(data: Path) -> None:
    count_dataset(data)
    assert stored_counts(data).counts.tolist() == COUNTS
    forge(beside(data), "vaefit.counts/1")
    with pytest.raises(DataError, match="no cached counts"):
        stored_counts(data)


PARTIAL = {"route": "contiguous/1", "spans": 0, "cells": 0, "counts": [0] * 256, "outside": 0}


@pytest.mark.parametrize(
    "checkpoint",
    [
        PARTIAL | {"cells": 5},
        PARTIAL | {"counts": [5, -5] + [0] * 254},
        PARTIAL | {"counts": [0]},
        PARTIAL | {"spans": -1},
        PARTIAL | {"spans": 2**63 - 1},
        PARTIAL | {"cells": 7, "counts": [7] + [0] * 255, "spans": 1},
        PARTIAL | {"cells": 1280, "counts": [0, 1280] + [0] * 254},
        PARTIAL | {"cells": 10**15, "counts": [10**15] + [0] * 255},
        PARTIAL | {"route": None},
        PARTIAL,
        [],
    ],
    ids=str,
)
def test_a_partial_file_that_cannot_be_true(data: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Any) -> None:
    monkeypatch.setattr(partial_scan, "SECONDS", 0.0)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_dataset(data, progress=stop)
    file = data.with_name(".maps.h5.vaefit.partial.json")
    route = json.loads(file.read_text())["checkpoint"]["route"]
    if isinstance(checkpoint, dict) and checkpoint["route"]:
        checkpoint["route"] = route
    forge(file, partial_scan.SCHEMA, checkpoint=checkpoint)
    assert answer(data) == (COUNTS, "scan")
    assert not file.exists()
