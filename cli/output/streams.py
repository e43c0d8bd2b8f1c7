"""The process's own stdout, which may be closed, full, or read by nobody any more."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any


def prepare_streams() -> None:
    """Make printing safe: closed streams swallow, and a file name that is not text is printed with escapes."""
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
    """Print lines for a program; a reader that went away is no error, a full disk is (OSError that names stdout)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence_stdout()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), "stdout") from error


def silence_stdout() -> None:
    """Send what is still to come to nowhere, so that Python's own flush at exit does not complain again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
