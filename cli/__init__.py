"""The command line: `vaefit-cli`."""

from __future__ import annotations

from .main import main, run

__all__ = ["main", "run"]
