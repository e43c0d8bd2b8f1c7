"""Naming a dataset: a file and, where it holds several, the one that is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import DataError


@dataclass(frozen=True)
class Location:
    """A file and, where the caller named one, the dataset in it (its path without the leading slash)."""

    file: Path
    dataset: str | None = None

    @classmethod
    def parse(cls, text: str | Path | Location) -> Location:
        """Split `file.h5:/dataset`; a text without `:/`, or that is a file as it stands, is all file."""
        if isinstance(text, Location):
            return text
        if not str(text) or "\0" in str(text):
            raise DataError("this is no name of a file", repr(str(text)), do="Pass file.h5 or file.h5:/dataset.")
        file, colon, dataset = str(text).rpartition(":/")
        if not colon or len(file) == 1 or Path(text).is_file():
            return cls(Path(text))
        if not dataset.strip("/"):
            raise DataError("no dataset is named after ':/'", str(text), do="Pass file.h5:/dataset, or only file.h5.")
        return cls(Path(file), dataset.strip("/"))

    def __str__(self) -> str:
        return str(self.file) if self.dataset is None else f"{self.file}:/{self.dataset}"
