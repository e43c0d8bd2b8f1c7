"""Every case."""

from __future__ import annotations

from tests.diagnosis_cases import bad_data, bad_models, bad_settings

SICK = (*bad_models.CASES, *bad_settings.CASES, *bad_data.CASES)
