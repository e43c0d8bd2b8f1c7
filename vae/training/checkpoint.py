"""Checkpoints of a training run: the state that a resumed run needs, in one safetensors file each.

A file holds tensors, and JSON in its header. It contains no code. A digest of the content detects a torn or damaged
file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor, nn

from vaefit.cache.regular_file import check_regular
from vaefit.cache.store.atomic import write_atomically

from ..errors import RunError
from ..model.state import all_tensors

FOLDER = "checkpoints"
KEPT = 2
"""The newest checkpoint, and the previous one in case the newest is damaged."""
_NAME = re.compile(r"step-([0-9]{9,})\.safetensors")
FORMAT = 1
"""Format of the file; a file of another format is not read."""

_log = logging.getLogger("vaefit")


class TornCheckpointError(Exception):
    """The file is torn or damaged; the text says how."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `step` updates."""

    step: int
    """Updates done. The position in the data and the random streams follow from it."""
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """The rest of the state, as JSON values."""

    def write(self, file: Path) -> None:
        """Replace the file by this checkpoint, durably; an OSError leaves the old file."""
        from safetensors.torch import save

        # cloned: safetensors refuses tensors that share memory, such as tied weights
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.tensors.items()
        }
        text = json.dumps({"step": self.step, **self.numbers})
        header = {"format": str(FORMAT), "state": text, "digest": _digest(tensors, text)}
        write_atomically(file, save(tensors, header))

    @classmethod
    def read(cls, file: Path, limit: int | None = None) -> Checkpoint:
        """Read a checkpoint in a run folder, of at most `limit` bytes.

        TornCheckpointError where it is damaged, OSError where it cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(check_regular(file, limit, file.parent.parent), "pt") as opened:
                header = opened.metadata() or {}
                # cloned: the file is mapped into memory, and is removed while the run goes on
                names = opened.keys()
                tensors = {name: opened.get_tensor(name).clone() for name in names}
        except SafetensorError as error:
            raise TornCheckpointError(f"it is no whole safetensors file: {error}") from error
        if header.get("format") != str(FORMAT):
            raise TornCheckpointError(f"its format is {header.get('format')!r}, not {FORMAT}")
        text = header.get("state", "")
        if header.get("digest") != _digest(tensors, text):
            raise TornCheckpointError("its content is not that of its digest")
        try:
            numbers = msgspec.convert(json.loads(text), dict[str, Any])
            return cls(msgspec.convert(numbers.pop("step"), Annotated[int, msgspec.Meta(ge=0)]), tensors, numbers)
        except (ValueError, LookupError, RecursionError) as error:
            raise TornCheckpointError(f"its state cannot be read: {error}") from error


def size_limit(model: nn.Module) -> int:
    """Return the largest size in bytes of a file with the weights or the training state of a model.

    The state has the weights, the best ones, and up to two moments of each; a header has at most 100 MB.
    """
    return 8 * sum(tensor.nbytes for tensor in all_tensors(model).values()) + (100 << 20)


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class CheckpointFolder:
    """Folder `checkpoints` of a run, with its newest checkpoints."""

    path: Path

    @classmethod
    def from_run(cls, run: Path) -> CheckpointFolder:
        """Return the folder of a run; it may not exist yet."""
        return cls(run / FOLDER)

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint and remove all but the two newest; an OSError leaves the existing ones."""
        self.path.mkdir(exist_ok=True)
        file = self.path / f"step-{checkpoint.step:09d}.safetensors"
        checkpoint.write(file)
        for old in self.files()[KEPT:]:
            with suppress(OSError):  # an extra file does no harm
                old.unlink()

    def files(self) -> list[Path]:
        """Return the files of the checkpoints, newest first, damaged ones included."""
        try:
            found = [(int(m[1]), file) for file in self.path.iterdir() if (m := _NAME.fullmatch(file.name))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [file for _, file in sorted(found, reverse=True)]

    def newest(self, limit: int | None = None) -> Checkpoint | None:
        """Return the newest whole checkpoint, with a warning for each damaged one; None where there is no file.

        A file of more than `limit` bytes (see `size_limit`) is not that of the model and counts as damaged. Raises
        RunError where every file is damaged.
        """
        files = self.files()
        reason = ""
        for file in files:
            try:
                return Checkpoint.read(file, limit)
            except (TornCheckpointError, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                _log.warning(f"the checkpoint {file} is skipped: {reason}")
        if files:
            do = "Start the run again, with --overwrite."
            raise RunError("no checkpoint of the run is whole", str(self.path), reason, do)
        return None

    def clear(self) -> None:
        """Remove every checkpoint, and the folder where it is empty then; OSError where that fails."""
        for file in self.files():
            file.unlink()
        with suppress(OSError):
            self.path.rmdir()
