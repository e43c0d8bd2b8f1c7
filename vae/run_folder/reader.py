"""Reading a run folder again."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..results.overfit_summary import RunSummary
from ..results.training_summary import KIND, TrainSummary

UNFINISHED = "the run was not finished: it has no result.json"


@dataclass(frozen=True)
class StoredRun:
    """A finished run, of a check or of training, as its folder has it."""

    folder: Path
    summary: RunSummary | TrainSummary
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
        raise RunError("the file is not whole JSON", str(file), str(error), "Make the run again.") from error
    if not isinstance(found, dict):
        raise RunError("the file holds no JSON object", str(file), type(found).__name__, "Make the run again.")
    return found


def _summary(file: Path, found: dict[str, Any]) -> RunSummary | TrainSummary:
    import msgspec

    kind: type[RunSummary | TrainSummary] = TrainSummary if found.get("kind") == KIND else RunSummary
    try:
        return kind.from_json(found)
    except msgspec.ValidationError as error:
        do = "It was written by another version of vaefit, or changed by hand: make the run again."
        raise RunError("the result of the run cannot be read", str(file), str(error), do) from error


def _missing(folder: Path, name: str) -> RunError:
    if not folder.exists():
        do = "Pass the folder that `overfit` or `train` named at its end."
        return RunError("there is no such run folder", str(folder), do=do)
    if (folder / "sweep.csv").is_file() and name == "result.json":
        return RunError("this is the folder of a sweep, not of one run", str(folder), do="Pass a run folder in it.")
    if name == "result.json" and _trains(folder):
        do = f"Go on with `vaefit-cli train --resume {folder}`."
        return RunError(UNFINISHED, str(folder), _how_far(folder), do)
    if name == "result.json" and (folder / "metrics.csv").is_file():
        return RunError(UNFINISHED, str(folder), f"metrics.csv of {_rows(folder)} steps", "Run the check again.")
    do = "Pass the folder that `overfit` or `train` named."
    return RunError("this is not the folder of a run", str(folder), f"no {name} in it", do)


def _trains(folder: Path) -> bool:
    """The folder is that of a training run, finished or not."""
    try:
        return bool(json.loads((folder / "config.json").read_bytes()).get("kind") == KIND)
    except (OSError, ValueError, RecursionError, AttributeError):
        return False


def _how_far(folder: Path) -> str:
    """What an unfinished training run has on the disk, in words."""
    from ..training.checkpoint import CheckpointFolder

    files = CheckpointFolder.from_run(folder).files()
    # by its name alone: to read it would disturb a process that is training here
    newest = f"newest checkpoint of update {int(files[0].stem.rpartition('-')[2]):,}" if files else "no checkpoint yet"
    return f"metrics.csv of {_rows(folder)} validations, {newest}"


def _rows(folder: Path) -> int:
    """Rows of `metrics.csv`, its header left out."""
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return max(text.count("\n") - 1, 0)
