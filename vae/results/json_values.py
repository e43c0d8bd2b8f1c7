"""JSON: values in its own types, and the text of a file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return the value in the types of JSON; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def record_values(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, its records included, in the types of JSON."""
    return {key: plain(value) for key, value in asdict(record).items()}


def json_file(content: object) -> bytes:
    """Return the indented text of a JSON file."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
