"""Which vaefit this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def vaefit_version() -> str:
    """The installed version; `unknown` where vaefit runs from a checkout that is not installed."""
    try:
        return version("vaefit")
    except PackageNotFoundError:
        return "unknown"
