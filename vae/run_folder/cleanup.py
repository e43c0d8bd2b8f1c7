"""What an earlier run has left in the folder of a new one, of training or of the check."""

from __future__ import annotations

import re
from contextlib import suppress

from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.checkpoint import CheckpointFolder
from .folder import WrittenFolder
from .tensorboard_events import FOLDER as EVENTS
from .tensorboard_events import remove_event_files

FILES = (
    "config.json", "metrics.csv", "steps.csv", "result.json", "report.html", "reconstructions.png", "curves.png",
    "samples.png", "model.safetensors",
)  # fmt: skip
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..+)?")


def remove_earlier(folder: WrittenFolder) -> None:
    """Remove the files of an earlier run, whichever command it was of, and no others.

    A run of one kind over one of the other must not leave half of it: checkpoints, say, that are not of this run.
    Raises RunError where a file cannot be removed.
    """
    folder.remove(FILES)
    remove_unfinished(folder)
    with folder.failing(CHECKPOINTS):
        CheckpointFolder.from_run(folder.path).clear()
    with folder.failing(EVENTS):
        remove_event_files(folder.path)


def remove_unfinished(folder: WrittenFolder) -> None:
    """Remove what killed processes left of files that they were writing; nobody else may be writing there."""
    for place in (folder.path, folder.path / CHECKPOINTS):
        with suppress(OSError):
            for file in place.iterdir():
                if _TEMPORARY.fullmatch(file.name):
                    file.unlink()
