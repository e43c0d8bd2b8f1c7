"""Writing the files of a run into its folder: whole, or not at all, and with one clear error where that fails."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vaefit.cache.store.atomic import replacing, write_atomically

from ..errors import RunError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Rows:
    """A CSV file that grows by a row at a time, each of them whole in the file before the next."""

    name: str
    _stream: IO[Any]
    _write: Callable[[list[object]], None]

    def write(self, row: list[object]) -> None:
        """Add a row; None leaves its field empty."""
        self._write(["" if value is None else value for value in row])

    def length(self) -> int:
        """Bytes of the file, all of them on the disk when this returns; OSError where they cannot be."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return os.fstat(self._stream.fileno()).st_size


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


@dataclass(frozen=True)
class WrittenFolder(ClaimedFolder):
    """A claimed folder, and how files get into it. Every method raises RunError for a file that cannot be written."""

    def write(self, name: str, data: bytes) -> None:
        """Replace a file, durably."""
        with self.failing(name):
            write_atomically(self.path / name, data)

    def draw(self, name: str, draw: Callable[[Path], None]) -> None:
        """Replace a file by what `draw` writes to the path that it is given."""
        with self.failing(name), replacing(self.path / name) as temporary:
            draw(temporary)

    def remove(self, names: tuple[str, ...]) -> None:
        """Remove files, those that are there."""
        for name in names:
            with self.failing(name):
                (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def rows(self, name: str, length: int | None = None) -> Iterator[Rows]:
        """Open a CSV file for rows: a new one, or the first `length` bytes of the one that is there."""
        with self.failing(name):
            if length is not None:
                os.truncate(self.path / name, length)
            mode = "w" if length is None else "a"
            stream = (self.path / name).open(mode, newline="", encoding="utf-8", buffering=1)
        writer = csv.writer(stream, lineterminator="\n")

        def write(row: list[object]) -> None:
            with self.failing(name):
                writer.writerow(row)

        try:
            yield Rows(name, stream, write)
        except BaseException:
            with suppress(OSError):  # a full disk fails again here, and would hide what happened
                stream.close()
            raise
        stream.close()

    @contextmanager
    def failing(self, name: str) -> Iterator[None]:
        """Raise the RunError that an OSError means: `name` cannot be written."""
        try:
            yield
        except OSError as error:
            do = "Check the permissions and the free space there."
            where = str(self.path / name)
            raise RunError("the file cannot be written", where, error.strerror or str(error), do) from error


def weights_file(model: nn.Module) -> bytes:
    """The state dict of a model as the bytes of a safetensors file."""
    from safetensors.torch import save

    # cloned: tensors that share memory, as tied weights do, are refused
    return save(
        {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor)
        }
    )
