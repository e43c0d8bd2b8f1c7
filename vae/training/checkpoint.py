"""One checkpoint: everything that a training run needs to go on as if it had never stopped, in one file.

The file is a safetensors file: tensors, and text in its header. Nothing in it is code, and reading it runs none. A
digest of all that it holds tells a whole file from a torn or damaged one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaefit.cache.store.atomic import write_atomically

FORMAT = 1
"""Of what the file holds; a file of another one is not read."""
_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself reads no larger one."""


class TornCheckpointError(Exception):
    """The file is no whole checkpoint; the text says what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after so many updates."""

    step: int
    """Updates done. Where the data and the random numbers go on follows from it."""
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """What is not a tensor, as JSON holds it."""

    def write(self, file: Path) -> None:
        """Replace the file by this checkpoint, on the disk before it returns; OSError leaves the old one."""
        from safetensors.torch import save

        # cloned: tensors that share memory, as tied weights do, are refused
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.tensors.items()
        }
        text = json.dumps({"step": self.step, **self.numbers})
        header = {"format": str(FORMAT), "state": text, "digest": _digest(tensors, text)}
        write_atomically(file, save(tensors, header))

    @classmethod
    def read(cls, file: Path) -> Checkpoint:
        """Read a checkpoint; TornCheckpointError where it is not whole, OSError where it cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        data = file.read_bytes()
        try:
            tensors, header = load(data), _header(data)
        except (SafetensorError, ValueError, KeyError, RecursionError) as error:
            raise TornCheckpointError(f"it is no whole safetensors file: {error}") from error
        if header.get("format") != str(FORMAT):
            raise TornCheckpointError(f"its format is {header.get('format')!r}, not {FORMAT}")
        text = header.get("state", "")
        if header.get("digest") != _digest(tensors, text):
            raise TornCheckpointError("its content is not that of its digest")
        numbers: dict[str, Any] = json.loads(text)
        return cls(numbers.pop("step"), tensors, numbers)


def _header(data: bytes) -> dict[str, str]:
    """The text in the header, which safetensors gives for files alone: a length (u64), and JSON of that length."""
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError("the header is cut off")
    found = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
