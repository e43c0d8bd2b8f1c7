"""Errors with four parts: what is wrong, where, what was found, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral


def sentence(what: str, where: str, got: str, do: str) -> str:
    """Join the four parts to one line, without the empty ones."""
    place = f"{where}: " if where else ""
    found = f" (got {got})" if got else ""
    advice = f" {do}" if do else ""
    return f"{place}{what}{found}.{advice}"


class VaefitError(ValueError):
    """Base of the errors that a user can act on.

    `str()` joins the parts; each is an attribute, a string that may be empty.
    """

    def __init__(self, what: str, where: str = "", got: str = "", do: str = "") -> None:
        parts = printable(what), printable(where), printable(got), printable(do)
        self.what, self.where, self.got, self.do = parts
        super().__init__(*parts)

    def __str__(self) -> str:
        return sentence(self.what, self.where, self.got, self.do)


def printable(text: str) -> str:
    """Escape control characters: names come from files, which may be damaged."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class DataError(VaefitError):
    """A dataset, a cached file or the labels in them cannot be used."""


@contextmanager
def path_errors(path: object, do: str = "Check the path and its permissions.") -> Iterator[None]:
    """Context manager: raise a DataError in place of an OSError for `path`."""
    try:
        yield
    except OSError as error:
        raise DataError(error.strerror or str(error), str(path), do=do) from error


class SettingError(VaefitError):
    """A value given by the caller is wrong by itself, whatever the data."""


def require(condition: bool, option: str, value: object, wanted: str) -> None:
    """Raise the SettingError of an option whose value is not `wanted`, unless the condition holds."""
    if not condition:
        raise SettingError("the value cannot be used", option, str(value), f"Use {wanted}.")


def require_range(option: str, value: int, low: int, high: int) -> None:
    """Raise the SettingError of a whole number that is not from `low` to `high`."""
    whole = isinstance(value, Integral) and low <= value <= high
    require(whole, option, value, f"a whole number from {low} to {high}")
