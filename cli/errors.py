"""Errors of a command: one message on stderr, or as JSON on stdout, and the exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from .output.streams import print_json, silence_stdout

USAGE = 2
COULD_NOT_RUN = 3
INTERRUPTED = 130


class StoppedError(Exception):
    """Ctrl-C with advice on what to do next; typer would not pass a KeyboardInterrupt."""


class InterruptedRunError(Exception):
    """Ctrl-C ended a run early, and its result was printed as that of any other."""


@dataclass(frozen=True)
class Failure:
    """Error of a command: what is wrong, where, what was found, what to do, and the exit code."""

    what: str
    where: str = ""
    got: str = ""
    do: str = ""
    code: int = COULD_NOT_RUN
    traceback: str = ""
    """Traceback of the user's code, which `--verbose` prints."""

    @classmethod
    def from_error(cls, error: Exception) -> Failure:
        """Return the failure for an error; one that is not ours, the user's or the system's is a mistake in vaefit.

        The traceback of such a mistake is printed.
        """
        from vaefit.cache.errors import SettingError, VaefitError
        from vaefit.vae.errors import RunError, UserCodeError, from_model_file, user_traceback

        if not isinstance(error, (VaefitError, MemoryError, OSError)) and from_model_file(error):
            error = UserCodeError.from_exception(error, "--model")
        if isinstance(error, VaefitError):
            code = USAGE if isinstance(error, SettingError) else COULD_NOT_RUN
            hers = user_traceback(error) if isinstance(error, RunError) else ""
            return cls(error.what, error.where, error.got, error.do, code, hers)
        if isinstance(error, MemoryError):
            return cls("this does not fit into memory")
        if isinstance(error, OSError):
            return cls(error.strerror or str(error), str(error.filename or ""))
        traceback.print_exception(error)
        got = f"{type(error).__name__}: {error}"
        return cls("this is a mistake in vaefit", got=got, do="Please report it, with the lines above.")

    @classmethod
    def from_usage_error(cls, error: Any, arguments: Sequence[str]) -> Failure:
        """Return the failure for a wrong command line; `error` is click's UsageError."""
        command = _command(error, arguments)
        help_text = f"See `{command} --help`."
        if type(error).__name__ == "NoArgsIsHelpError":
            known = ", ".join(error.ctx.command.commands)
            return cls(f"a command is missing; there are {known}", command, do=help_text, code=USAGE)
        names = getattr(getattr(error, "param", None), "opts", ())
        typed = next((i for i, word in enumerate(arguments[:-1]) if word in names), None)
        got = "" if typed is None else arguments[typed + 1]
        return cls(error.format_message().rstrip("."), command, got, help_text, USAGE)

    @classmethod
    def interrupted(cls, do: str = "What was written so far is whole.") -> Failure:
        """Return the failure for Ctrl-C."""
        return cls("interrupted", do=do, code=INTERRUPTED)

    def report(self, as_json: bool, verbose: bool = False) -> int:
        """Print the error, if `verbose` behind the traceback of the user's code, and return the exit code."""
        from vaefit.cache.errors import printable, sentence  # with numpy, for which no help text waits

        parts = asdict(self)
        del parts["code"], parts["traceback"]
        if verbose and self.traceback:
            with suppress(OSError):
                print(self.traceback, end="", file=sys.stderr)
        if as_json:
            try:
                print_json({"error": parts, "exit": self.code})
                return self.code
            except OSError:
                silence_stdout()  # stdout cannot be written to; stderr may still be read
        with suppress(OSError):  # without streams, the exit code is all that is left
            # one write: several processes of a job may print at once
            print(printable("error: " + sentence(**parts)) + "\n", end="", file=sys.stderr)
        return self.code


def _command(error: Any, arguments: Sequence[str]) -> str:
    """Return the command that the error is about, as it was typed."""
    if error.ctx is not None:
        return str(error.ctx.command_path)
    return " ".join(["vaefit-cli", *(word for word in arguments[:1] if not word.startswith("-"))])
