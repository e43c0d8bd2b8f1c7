"""Errors of a run; all derive from VaefitError."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import FrameType

from vaefit.cache.errors import DataError, SettingError, VaefitError

__all__ = ["DataError", "RunError", "SettingError", "UserCodeError", "VaefitError"]

LONGEST_TEXT = 200
MODEL_MODULE = "_vaefit_model_"
"""Prefix of the module that a file of the user's becomes."""
_LIBRARIES = tuple(str(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_NOT_THE_USERS = ("vaefit", "torch", "contextlib", "importlib", "_frozen_importlib", "_frozen_importlib_external")
_NOT_FINITE = re.compile(
    # the last two are torch.distributions' complaint about a parameter or a value that left its range
    r"\b(nan|inf|infinity|non-?finite|not finite|overflow\w*|to satisfy the constraint|within the support)\b",
    re.I,
)


def no_argument(call: str, name: str, known: Iterable[str]) -> str:
    """Return the text of the TypeError for an unknown argument, with the known one that it resembles."""
    near = get_close_matches(name, list(known), 1)
    return f"{call} has no argument {name!r}." + (f" Did you mean {near[0]!r}?" if near else "")


class RunError(VaefitError):
    """A run is impossible: device, model, folder or preflight."""


class UserCodeError(RunError):
    """The user's code, such as the model, raised an exception; `__cause__` is that exception."""

    when = ""
    """The moment: `at update 3, rate 0.1`."""
    not_finite = False
    """A value is NaN, infinite or outside the range of a distribution."""

    @classmethod
    def from_exception(cls, error: BaseException, where: str, when: str = "", who: str = "the model") -> UserCodeError:
        """Return the error of an exception that `who`, of class or source `where`, raised."""
        text, place = first_line(error), place_of(error)
        raised = type(error).__name__ + (f' ("{text}")' if text else "")
        moment = (f" {when}" if when else "") + (f", in {place.replace(', ', ' ')}" if place else "")
        found = cls(f"{who} raised {raised}{moment}", where, do=_advice(error))
        found.__cause__, found.when = error, when
        found.not_finite = isinstance(error, (OverflowError, FloatingPointError)) or bool(
            _NOT_FINITE.search(str(error))
        )
        return found

    def at(self, when: str) -> UserCodeError:
        """Return the same error with the moment at which it was raised, unless it has one."""
        if self.when or self.__cause__ is None:
            return self
        who, _, _ = self.what.partition(" raised ")
        found = self.from_exception(self.__cause__, self.where, when, who)
        found.not_finite = self.not_finite
        return found


def described(error: BaseException) -> str:
    """Return an exception in one line, with its place: `KeyError: 'mask' (net.py, line 12)`."""
    text, place = first_line(error), place_of(error)
    return type(error).__name__ + (f": {text}" if text else "") + (f" ({place})" if place else "")


def place_of(error: BaseException) -> str:
    """Return file and line of the user's code that raised an exception; empty where they are not known."""
    frames = user_frames(error)
    if not frames:
        return ""
    file, here = Path(frames[-1].filename), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}, line {frames[-1].lineno}"


def user_frames(error: BaseException) -> traceback.StackSummary:
    """Return the calls of a traceback that are in the user's code: in no library and not in vaefit.

    Where all code is in libraries, as an installed model is, those outside vaefit and torch.
    """
    calls = [call for call in traceback.walk_tb(error.__traceback__) if _package(call[0]) not in _NOT_THE_USERS]
    own = [call for call in calls if not call[0].f_code.co_filename.startswith((*_LIBRARIES, "<"))]
    return traceback.StackSummary.extract(iter(own or calls))


def from_model_file(error: BaseException) -> bool:
    """Return True if an exception passed through a file that `--model` names."""
    return any(_package(frame).startswith(MODEL_MODULE) for frame, _ in traceback.walk_tb(error.__traceback__))


def user_traceback(error: BaseException) -> str:
    """Return the traceback of the user's exception behind an error, her calls alone; empty where there is none."""
    while isinstance(error, VaefitError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, VaefitError):
        return ""
    last = traceback.format_exception_only(error)
    return "".join(["Traceback of your code (most recent call last):\n", *user_frames(error).format(), *last])


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, shortened."""
    first = str(error).strip().partition("\n")[0]
    return first if len(first) <= LONGEST_TEXT else first[: LONGEST_TEXT - 3] + "..."


def _advice(error: BaseException) -> str:
    if "more than 1 value per channel" in str(error):
        return "Batch statistics of one value do not exist: take two grids or more."
    return "Mend it there."
