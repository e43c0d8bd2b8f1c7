"""Every case."""

from __future__ import annotations

from . import knobs, models, pairs

SICK = (*models.CASES, *knobs.CASES, *pairs.CASES)
