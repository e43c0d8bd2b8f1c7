"""Small JSON files with a name for their layout and a checksum, read without trust in what they hold."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

LIMIT = 4 << 20
"""No larger file is read or written."""

_MOST = 2**63 - 1


class RejectedError(ValueError):
    """A file that is not believed; the text says why."""


def add_checksum(schema: str, body: dict[str, Any]) -> bytes:
    """The text of a file; RejectedError where it is too long to be read again."""
    sealed = {"schema": schema, **body}
    text = json.dumps({**sealed, "checksum": _checksum(sealed)}, indent=1).encode()
    if len(text) > LIMIT:
        raise RejectedError(f"its {len(text):,} bytes are more than the {LIMIT:,} that would be read")
    return text


def verify_checksum(path: Path, schema: str) -> dict[str, Any] | None:
    """What a file holds, None where there is none; OSError, or RejectedError for one that is torn, foreign or else."""
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
        raise RejectedError(_other(body["schema"], schema))
    if body.pop("checksum", None) != _checksum(body):
        raise RejectedError("its checksum does not fit")
    return body


def newer(path: Path, schema: str) -> bool:
    """True where a later version of vaefit wrote `path`, torn or not: that is not this version's to replace."""
    family, ours = schema.split("/")
    try:
        text = _text(path) or b""
    except (OSError, RejectedError):
        return False
    found = re.search(rb'"schema"\s*:\s*"' + re.escape(family.encode()) + rb'/(\d{1,9})"', text)
    return found is not None and int(found[1]) > int(ours)


def _text(path: Path) -> bytes | None:
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(state.st_mode):  # to open a named pipe would wait for ever
        raise RejectedError("it is a folder" if stat.S_ISDIR(state.st_mode) else "it is no regular file")
    with path.open("rb") as stream:
        text = stream.read(LIMIT + 1)
    if len(text) > LIMIT:
        raise RejectedError(f"it is larger than the {LIMIT:,} bytes that are read")
    return text


def _other(found: object, schema: str) -> str:
    """What to say of a file with another schema than this version's."""
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


def whole(value: object, low: int = 0, high: int = _MOST) -> int:
    """A whole number in a file, from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise RejectedError("its contents do not fit: a number is out of range")
    return value


def words(value: object, pattern: str = r"[^\0]{0,65536}") -> str:
    """A text in a file that matches the whole of `pattern`."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
        raise RejectedError("its contents do not fit: a text is not what it should be")
    return value


def items(value: object, least: int = 0, most: int = _MOST) -> list[Any]:
    """A list in a file, of `least` to `most` items."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise RejectedError("its contents do not fit: a list is too short or too long")
    return value


def member(body: object, name: str) -> Any:
    """The value of a name in an object of a file."""
    if not isinstance(body, dict) or name not in body:
        raise RejectedError(f"its contents do not fit: {name} is missing")
    return body[name]
