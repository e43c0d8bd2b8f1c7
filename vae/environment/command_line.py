"""Command line of the process, as `config.json` holds it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_TYPED: ContextVar[str | None] = ContextVar("_TYPED", default=None)


@contextmanager
def typed(arguments: Sequence[str]) -> Iterator[None]:
    """Context manager: `vaefit-cli` runs with these arguments."""
    token = _TYPED.set(shlex.join(["vaefit-cli", *arguments]))
    try:
        yield
    finally:
        _TYPED.reset(token)


def command_line() -> str:
    """Return the command, quoted for a shell: that of `vaefit-cli`, or of the program that calls vaefit."""
    return _TYPED.get() or shlex.join(sys.argv)
