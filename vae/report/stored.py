"""Reading a run folder again."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from .summary import RunSummary

UNFINISHED = "the run was not finished: it has no result.json"


@dataclass(frozen=True)
class StoredRun:
    """A finished run, as its folder has it."""

    folder: Path
    summary: RunSummary
    config: dict[str, Any]
    """What `config.json` holds."""

    @classmethod
    def read(cls, folder: Path) -> StoredRun:
        """Read `result.json` and `config.json`; RunError where the folder holds no finished run of this version."""
        result = read_json(folder, "result.json")
        return cls(folder, _summary(folder / "result.json", result), read_json(folder, "config.json"))

    def metrics(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv` as they are written; empty where the file is gone."""
        try:
            with (self.folder / "metrics.csv").open(newline="", encoding="utf-8") as stream:
                return list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error):
            return []


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of a run folder; RunError says what the folder holds instead."""
    file = folder / name
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, name) from None
    except OSError as error:
        do = "Check what it is, and its permissions."
        raise RunError("the file cannot be read", str(file), error.strerror or str(error), do) from error
    except (ValueError, RecursionError) as error:
        raise RunError("the file is not whole JSON", str(file), str(error), "Run the check again.") from error
    if not isinstance(found, dict):
        raise RunError("the file holds no JSON object", str(file), type(found).__name__, "Run the check again.")
    return found


def _summary(file: Path, found: dict[str, Any]) -> RunSummary:
    import msgspec

    try:
        return RunSummary.of_json(found)
    except msgspec.ValidationError as error:
        do = "It was written by another version of vaefit, or changed by hand: run the check again."
        raise RunError("the result of the run cannot be read", str(file), str(error), do) from error


def _missing(folder: Path, name: str) -> RunError:
    if not folder.exists():
        return RunError(
            "there is no such run folder", str(folder), do="Pass the folder that `overfit` named at its end."
        )
    if (folder / "sweep.csv").is_file() and name == "result.json":
        return RunError("this is the folder of a sweep, not of one run", str(folder), do="Pass a run folder in it.")
    if (folder / "metrics.csv").is_file() and name == "result.json":
        rows = (folder / "metrics.csv").read_text(encoding="utf-8", errors="replace").count("\n") - 1
        return RunError(UNFINISHED, str(folder), f"metrics.csv of {max(rows, 0)} steps", "Run the check again.")
    return RunError(
        "this is not the folder of a run", str(folder), f"no {name} in it", "Pass the folder that `overfit` named."
    )
