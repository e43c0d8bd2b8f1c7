"""Print on a stdout that may be closed, full, or a broken pipe."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any


def prepare_streams() -> None:
    """Replace closed streams by the null device, and print characters that have no encoding with escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_json(content: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Print one object or one list; see `print_text`."""
    print_text(json.dumps(content, allow_nan=False))


def print_text(text: str) -> None:
    """Print lines for a program; a broken pipe is no error, a full disk is an OSError that names stdout."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence_stdout()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), "stdout") from error


def silence_stdout() -> None:
    """Send further output to the null device, so that the flush at exit of Python raises nothing."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
