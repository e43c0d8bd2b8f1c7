"""Command line of the process, as `config.json` holds it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_TYPED: ContextVar[Sequence[str] | None] = ContextVar("_TYPED", default=None)


@contextmanager
def typed(arguments: Sequence[str]) -> Iterator[None]:
    """Context manager: `vaefit-cli` runs with these arguments."""
    token = _TYPED.set(arguments)
    try:
        yield
    finally:
        _TYPED.reset(token)


def command_line() -> str:
    """Return the command, quoted for a shell: that of `vaefit-cli`, or of the program that calls vaefit."""
    import shlex  # no help text waits for it

    arguments = _TYPED.get()
    return shlex.join(sys.argv if arguments is None else ["vaefit-cli", *arguments])
