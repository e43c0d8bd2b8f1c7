"""Errors of a run."""

from __future__ import annotations

from vaefit.cache.errors import VaefitError


class RunError(VaefitError):
    """A check could not run: device, model, folder or preflight."""
