"""Small JSON files with a schema name and a checksum; a reader checks everything that it takes from one."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ..regular_file import read_regular

LIMIT = 4 << 20
"""No larger file is read or written."""

_log = logging.getLogger("vaefit")

Fields = TypeVar("Fields")
Text = Annotated[str, msgspec.Meta(max_length=1 << 16, pattern=r"\A[^\0]*\Z")]


class RejectedError(ValueError):
    """A file cannot be used; the text says why."""


def add_checksum(schema: str, body: dict[str, Any]) -> bytes:
    """Return the text of a file; RejectedError where it exceeds the size limit of a reader."""
    checked = {"schema": schema, **body}
    text = json.dumps({**checked, "checksum": _checksum(checked)}, indent=1).encode()
    if len(text) > LIMIT:
        raise RejectedError(f"its {len(text):,} bytes are more than the limit of {LIMIT:,}")
    return text


def verify_checksum(path: Path, schema: str) -> dict[str, Any] | None:
    """Return the contents of a file, None without a file; OSError, or RejectedError for a file that is not whole."""
    text = _text(path)
    if text is None:
        return None
    try:
        body = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RejectedError("it is not whole JSON") from error
    if not isinstance(body, dict) or "schema" not in body:
        raise RejectedError("it is not a vaefit file")
    if body["schema"] != schema:
        raise RejectedError(_schema_mismatch(body["schema"], schema))
    if body.pop("checksum", None) != _checksum(body):
        raise RejectedError("its checksum does not fit")
    return body


@contextmanager
def ignored(path: Path, kind: str) -> Iterator[None]:
    """Context manager: log a warning in place of an OSError or RejectedError for a file that is optional."""
    try:
        yield
    except OSError as error:
        _log.warning(f"{path}: the {kind} is ignored: {error.strerror or error}")
    except RejectedError as error:
        _log.warning(f"{path}: the {kind} is ignored: {error}")


def convert(body: dict[str, Any], fields: type[Fields]) -> Fields:
    """Return the contents of a file as a struct or a dataclass; RejectedError, which names the field, for others."""
    try:
        return msgspec.convert(body, fields)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise RejectedError(f"its contents do not fit: {error}") from error


def newer(path: Path, schema: str) -> bool:
    """True where a later version of vaefit wrote `path`, whole or not; this version must not replace it."""
    family, ours = schema.split("/")
    try:
        text = _text(path) or b""
    except (OSError, RejectedError):
        return False
    found = re.search(rb'"schema"\s*:\s*"' + re.escape(family.encode()) + rb'/(\d{1,9})"', text)
    return found is not None and int(found[1]) > int(ours)


def _text(path: Path) -> bytes | None:
    try:
        return read_regular(path, LIMIT)
    except FileNotFoundError:
        return None


def _schema_mismatch(found: object, schema: str) -> str:
    """Return the reason to reject a file with another schema than this version's."""
    family, ours = schema.split("/")
    theirs = re.fullmatch(re.escape(family) + r"/(\d{1,9})", found) if isinstance(found, str) else None
    which = f"it has the schema {found}, this version reads {schema}" if theirs else f"its schema is not {family}"
    if theirs is None:
        return which
    if int(theirs[1]) > int(ours):
        return f"{which}: a newer vaefit wrote it, and only --rebuild replaces it"
    return f"{which}: an older vaefit wrote it, and what it held is counted again"


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
