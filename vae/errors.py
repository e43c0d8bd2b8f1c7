"""Errors of a run; all derive from VaefitError."""

from __future__ import annotations

from vaefit.cache.errors import DataError, SettingError, VaefitError

__all__ = ["DataError", "RunError", "SettingError", "VaefitError"]


class RunError(VaefitError):
    """A run is impossible: device, model, folder or preflight."""
