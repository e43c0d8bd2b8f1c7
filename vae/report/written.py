"""Writing the files of a run into its folder: whole, or not at all, and with one clear error where that fails."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from vaefit.cache.atomic import replacing, write_atomically

from ..errors import RunError
from .claim import ClaimedFolder


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
