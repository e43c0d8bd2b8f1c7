"""Folder of a run: claim it, write its files whole or not at all, and remove those of an earlier run."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from vaefit.cache.store.atomic import replacing, write_atomically

from ..errors import RunError
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.checkpoint import CheckpointFolder
from .lock import LOCK, locked
from .tensorboard_events import FOLDER as EVENTS
from .tensorboard_events import remove_event_files

if TYPE_CHECKING:
    from typing_extensions import Self

FILES = (
    "config.json", "metrics.csv", "steps.csv", "result.json", "report.html", "reconstructions.png", "curves.png",
    "samples.png", "model.safetensors",
)  # fmt: skip
"""Files of an overfit or a training run."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..+)?")


@dataclass(frozen=True)
class Rows:
    """CSV file that grows row by row; each row is whole in the file before the next."""

    folder: RunFolder
    name: str
    _stream: IO[str]

    def write(self, row: list[object]) -> None:
        """Add a row; None leaves its field empty. RunError where the file cannot be written."""
        with self.folder.failing(self.name):
            csv.writer(self._stream, lineterminator="\n").writerow(row)

    def length(self) -> int:
        """Flush to the disk and return the length in bytes; OSError where that fails."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return os.fstat(self._stream.fileno()).st_size


@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one run. Every method raises RunError for a file that cannot be written."""

    kind: ClassVar[str]
    """First part of the name of a folder that the caller did not name."""

    path: Path

    @classmethod
    @contextmanager
    def claimed(cls, out: Path | None, overwrite: bool) -> Iterator[Self]:
        """Context manager: make the folder or take an empty one, lock it, and remove it where it stays empty.

        With `overwrite` it may hold anything; the files of an earlier run stay until this one begins. None takes
        ./runs/KIND-YYYYMMDD-HHMMSS. RunError where it cannot be written, is not empty, or another process writes in it.
        """
        if out is not None and out.is_file():
            raise RunError("the run folder is a file", str(out), do="Pass the name of a folder as --out.")
        path = Path("runs").absolute() if out is None else out.absolute()
        with ExitStack() as stack:
            try:
                path = _make_and_lock(path, cls.kind if out is None else None, stack)
                taken = any(file.name != LOCK for file in path.iterdir())
            except OSError as error:
                reason = error.strerror or str(error)
                raise RunError("the run folder cannot be written", str(path), reason, "Pass another --out.") from error
            if taken and not overwrite:
                raise RunError("the run folder is not empty", str(path), do="Pass --overwrite, or another --out.")
            yield cls(path)

    def remove_earlier(self) -> None:
        """Remove the files of an earlier run of either command, and no others.

        Files of both commands are removed: checkpoints of a training run must not lie beside an overfit run.
        """
        self.remove(FILES)
        self.remove_unfinished()
        with self.failing(CHECKPOINTS):
            CheckpointFolder.from_run(self.path).clear()
        with self.failing(EVENTS):
            remove_event_files(self.path)

    def remove_unfinished(self) -> None:
        """Remove the temporary files of killed processes; no other process may be writing in the folder."""
        for place in (self.path, self.path / CHECKPOINTS):
            with suppress(OSError):
                for file in place.iterdir():
                    if _TEMPORARY.fullmatch(file.name):
                        file.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file; its content is on the disk when this returns."""
        with self.failing(name):
            write_atomically(self.path / name, data)

    def draw(self, name: str, draw: Callable[[Path], None]) -> None:
        """Replace a file by the one that `draw` writes to the path of its argument."""
        with self.failing(name), replacing(self.path / name) as temporary:
            draw(temporary)

    def remove(self, names: tuple[str, ...]) -> None:
        """Remove the files that exist."""
        for name in names:
            with self.failing(name):
                (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def rows(self, name: str, length: int | None = None) -> Iterator[Rows]:
        """Open a CSV file for rows: a new file, or the first `length` bytes of the existing one."""
        with self.failing(name):
            if length is not None:
                os.truncate(self.path / name, length)
            mode = "w" if length is None else "a"
            stream = (self.path / name).open(mode, newline="", encoding="utf-8", buffering=1)
        try:
            yield Rows(self, name, stream)
        except BaseException:
            with suppress(OSError):  # a full disk fails again here, and would hide what happened
                stream.close()
            raise
        stream.close()

    @contextmanager
    def failing(self, name: str) -> Iterator[None]:
        """Raise RunError for an OSError in the block: `name` cannot be written."""
        try:
            yield
        except OSError as error:
            do = "Check the permissions and the free space there."
            where = str(self.path / name)
            raise RunError("the file cannot be written", where, error.strerror or str(error), do) from error


def _make_and_lock(path: Path, kind: str | None, stack: ExitStack, tries: int = 10) -> Path:
    """Make the folder, or with `kind` a new one in it, and lock it until the stack ends; OSError where that fails."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        if kind is not None:
            path = _fresh(path, kind)
            made.insert(0, path)
        stack.enter_context(locked(path, made))
    except FileNotFoundError:  # another process made it too, gave it up, and removed it
        if not tries:
            raise
        return _make_and_lock(path if kind is None else path.parent, kind, stack, tries - 1)
    return path


def _fresh(folder: Path, kind: str) -> Path:
    """Make a folder in the folder, named by the time; a second run in the same second gets a number."""
    path = base = folder / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = base.with_name(f"{base.name}-{number}")


def weights_file(model: nn.Module) -> bytes:
    """Return the state dict of a model as the bytes of a safetensors file."""
    from safetensors.torch import save

    # cloned: safetensors refuses tensors that share memory, as tied weights do
    return save(
        {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor)
        }
    )
