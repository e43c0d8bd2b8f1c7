"""One clear error on stderr, or as JSON on stdout, and the exit code that goes with it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from .output.streams import print_json, silence_stdout

USAGE = 2
COULD_NOT_RUN = 3


@dataclass(frozen=True)
class Failure:
    """What is wrong, where, what was found, what to do; and the exit code."""

    what: str
    where: str = ""
    got: str = ""
    do: str = ""
    code: int = COULD_NOT_RUN
    unexpected: bool = False
    """A mistake of ours: the traceback is wanted."""

    @classmethod
    def from_error(cls, error: Exception) -> Failure:
        """The failure that an error means; any but ours and the system's is a mistake of ours."""
        from vaefit.cache.errors import SettingError, VaefitError

        if isinstance(error, VaefitError):
            code = USAGE if isinstance(error, SettingError) else COULD_NOT_RUN
            return cls(error.what, error.where, error.got, error.do, code)
        if isinstance(error, MemoryError):
            return cls("this does not fit into memory")
        if isinstance(error, OSError):
            return cls(error.strerror or str(error), str(error.filename or ""))
        return cls(
            "this is a mistake in vaefit",
            got=f"{type(error).__name__}: {error}",
            do="Please report it, with the lines above.",
            unexpected=True,
        )

    @classmethod
    def from_usage_error(cls, error: Any, arguments: Sequence[str]) -> Failure:
        """The failure that a wrong command line means; `error` is click's UsageError."""
        command = _command(error, arguments)
        help_text = f"See `{command} --help`."
        if type(error).__name__ == "NoArgsIsHelpError":
            known = ", ".join(error.ctx.command.commands)
            return cls(f"a command is missing; there are {known}", command, do=help_text, code=USAGE)
        parameter = getattr(error, "param", None)
        option = parameter.opts[0] if parameter is not None else ""
        got = arguments[arguments.index(option) + 1] if option and option in arguments[:-1] else ""
        return cls(error.format_message().rstrip("."), command, got, help_text, USAGE)

    @classmethod
    def interrupted(cls, do: str = "What was written so far is whole.") -> Failure:
        """Ctrl-C."""
        return cls("interrupted", do=do, code=INTERRUPTED)

    def report(self, as_json: bool) -> int:
        """Print it and return the exit code."""
        parts = asdict(self)
        del parts["code"], parts["unexpected"]
        if as_json:
            try:
                print_json({"error": parts, "exit": self.code})
                return self.code
            except OSError:
                silence_stdout()  # it is full, or cannot be written to; people may still read the other stream
        from vaefit.cache.errors import printable, sentence

        with suppress(OSError):  # there is nowhere to tell it; the exit code still does
            # in one piece: several processes of a job may tell it at once
            print(printable("error: " + sentence(**parts)) + "\n", end="", file=sys.stderr)
        return self.code


def _command(error: Any, arguments: Sequence[str]) -> str:
    """The command that the error is about, as it was typed."""
    if error.ctx is not None:
        return str(error.ctx.command_path)
    words = itertools.takewhile(lambda word: not word.startswith("-"), arguments)
    return " ".join(["vaefit-cli", *itertools.islice(words, 1)])


INTERRUPTED = 130


class StoppedError(Exception):
    """Ctrl-C, where there is more to say than that; the text says what to do. typer lets no KeyboardInterrupt pass."""
