"""Claiming a folder for what is about to be written."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, ClassVar

from ..errors import RunError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ClaimedFolder:
    """A folder that belongs to one run."""

    kind: ClassVar[str]
    """First part of the name of a folder that the caller did not name."""

    path: Path
    made: tuple[Path, ...] = ()
    """The folders that were made for it, innermost first."""

    @classmethod
    def claim(cls, out: Path | None, overwrite: bool) -> Self:
        """Make the folder, or take an empty one; RunError where it cannot be written or holds anything.

        With `overwrite` it may hold anything; the files of an earlier run stay until this one begins. None takes
        ./runs/KIND-YYYYMMDD-HHMMSS.
        """
        if out is not None and out.is_file():
            raise RunError("the run folder is a file", str(out), do="Pass the name of a folder as --out.")
        # without --out, ./runs may have to be made; it goes again too, unless other runs are in it
        path = Path("runs").absolute() if out is None else out.absolute()
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            if out is None:
                path = _fresh(cls.kind)
                made.insert(0, path)
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
            # found out now, not after the fit
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise RunError(
                "the run folder cannot be written", str(path), error.strerror or str(error), "Pass another --out."
            ) from error
        if taken and not overwrite:
            raise RunError("the run folder is not empty", str(path), do="Pass --overwrite, or another --out.")
        return cls(path, tuple(made))

    def release(self) -> None:
        """Give up a claimed folder; one that holds anything, and one that was there before, stays."""
        for folder in self.made:
            with suppress(OSError):
                folder.rmdir()


def _fresh(kind: str) -> Path:
    """Make a folder below ./runs named by the time; a second run within the second gets a number."""
    base = (Path("runs") / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    base.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir()  # whoever makes it has it
        except FileExistsError:
            continue
        return path
    raise AssertionError("counting never ends")
