"""The checkpoints of a run: the newest ones, written one after another and found again."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from .checkpoint import Checkpoint, TornCheckpointError

FOLDER = "checkpoints"
KEPT = 2
"""The newest, and the one before, for where the newest is found damaged."""

_log = logging.getLogger("vaefit")
_NAME = re.compile(r"step-([0-9]{9,})\.safetensors")


@dataclass(frozen=True)
class CheckpointFolder:
    """The folder `checkpoints` of a run."""

    path: Path

    @classmethod
    def from_run(cls, run: Path) -> CheckpointFolder:
        """That of a run folder; it need not be there."""
        return cls(run / FOLDER)

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint and remove what is older than the two newest; OSError leaves those that are there."""
        self.path.mkdir(exist_ok=True)
        file = self.path / f"step-{checkpoint.step:09d}.safetensors"
        checkpoint.write(file)
        for old in self.files()[KEPT:]:
            with suppress(OSError):  # one more than needed is no harm
                old.unlink()

    def files(self) -> list[Path]:
        """The files of the checkpoints, newest first, whole or not."""
        try:
            found = [(int(m[1]), file) for file in self.path.iterdir() if (m := _NAME.fullmatch(file.name))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [file for _, file in sorted(found, reverse=True)]

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint; each one that is skipped is told as a warning. None where there is no file.

        Raises RunError where there are files and none is whole.
        """
        files = self.files()
        said = ""
        for file in files:
            try:
                return Checkpoint.read(file)
            except (TornCheckpointError, OSError) as error:
                said = str(error)
                _log.warning(f"the checkpoint {file} is skipped: {said}")
        if files:
            do = "Start the run again, with --overwrite."
            raise RunError("no checkpoint of the run is whole", str(self.path), said, do)
        return None

    def clear(self) -> None:
        """Remove every checkpoint, and the folder if nothing else is in it; OSError where that fails."""
        for file in self.files():
            file.unlink()
        with suppress(OSError):
            self.path.rmdir()
