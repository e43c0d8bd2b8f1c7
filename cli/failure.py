"""One clear error on stderr, or as JSON on stdout, and the exit code that goes with it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

USAGE = 2
COULD_NOT_RUN = 3
INTERRUPTED = 130


@dataclass(frozen=True)
class Failure:
    """What is wrong, where, what was found, what to do; and the exit code."""

    what: str
    where: str = ""
    got: str = ""
    do: str = ""
    code: int = COULD_NOT_RUN

    @classmethod
    def of(cls, error: Exception) -> Failure | None:
        """The failure that an error of ours or of the system means; None for any other."""
        from vaefit.cache.errors import SettingError, VaefitError

        if isinstance(error, VaefitError):
            code = USAGE if isinstance(error, SettingError) else COULD_NOT_RUN
            return cls(error.what, error.where, error.got, error.do, code)
        if isinstance(error, BrokenPipeError):
            # the reader of stdout went away; Python's own flush at exit must not complain again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return cls("the reader of the output went away", "stdout")
        if isinstance(error, OSError):
            return cls(error.strerror or str(error), str(error.filename or ""))
        return None

    @classmethod
    def of_usage(cls, error: Any) -> Failure:
        """The failure that a wrong command line means; `error` is click's UsageError."""
        context = error.ctx
        path = context.command_path if context is not None else "vaefit-cli"
        return cls(error.format_message().rstrip("."), path, do=f"See `{path} --help`.", code=USAGE)

    @classmethod
    def interrupted(cls) -> Failure:
        """Ctrl-C."""
        return cls("interrupted", do="What was written so far is whole.", code=INTERRUPTED)

    def report(self, as_json: bool) -> int:
        """Print it and return the exit code."""
        if as_json:
            parts = asdict(self)
            del parts["code"]
            print(json.dumps({"error": parts, "exit": self.code}))
        else:
            print("error: " + self._sentence(), file=sys.stderr)
        return self.code

    def _sentence(self) -> str:
        place = f"{self.where}: " if self.where else ""
        found = f" (got {self.got})" if self.got else ""
        return f"{place}{self.what}{found}.{' ' if self.do else ''}{self.do}"
