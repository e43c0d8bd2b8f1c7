"""The name of a dataset: a file, and optionally the dataset in it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError, path_errors

_URL = re.compile("(s3a?|gs|gcs|https?|ftp|hf|az|abfss?|hdfs|file):/", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """A file and, if the caller named it, the dataset in the file (its path without the leading slash)."""

    file: Path
    dataset: str | None = None

    @classmethod
    def parse(cls, text: str | Path | Location) -> Location:
        """Split `file.h5:/dataset`; a text without `:/`, or that is the name of a file, is a file alone.

        Raises DataError for a text that names no file, and where the system does not say if the file exists.
        """
        if isinstance(text, Location):
            return text
        if not isinstance(text, (str, Path)):
            do = "Pass file.h5 or file.h5:/dataset as a text or a path, or a list of these."
            raise DataError("a dataset is named by a text or a path", got=f"{type(text).__name__} {text!r:.40}", do=do)
        if not str(text) or "\0" in str(text):
            raise DataError("this is no name of a file", repr(str(text)), do="Pass file.h5 or file.h5:/dataset.")
        if _URL.match(str(text)) and not Path(str(text).partition(":")[0]).exists():
            do = "Copy the file to a disk first, and pass its path."
            raise DataError("this is a URL, and only files are read", str(text), do=do)
        file, colon, dataset = str(text).rpartition(":/")
        if not colon or len(file) == 1 or _is_file(Path(text)):
            found = cls(Path(text))
        elif dataset.strip("/"):
            found = cls(Path(file), dataset.strip("/"))
        else:
            raise DataError("no dataset is named after ':/'", str(text), do="Pass file.h5:/dataset, or only file.h5.")
        if not found.exists() and found.dataset is None and found.file.name.endswith(":"):
            raise DataError("no dataset is named after ':'", str(text), do="Pass file.h5:/dataset, or only file.h5.")
        return found

    def exists(self) -> bool:
        """True where the file exists; DataError where the system does not say, as for a name that is too long."""
        with path_errors(self.file):
            return self.file.exists()

    @property
    def absolute(self) -> Path:
        """Absolute path of the file; DataError where the working folder was deleted."""
        do = "Change to a folder that exists, or pass absolute paths."
        with path_errors("the working folder", do):
            return self.file.absolute()

    def __str__(self) -> str:
        return str(self.file) if self.dataset is None else f"{self.file}:/{self.dataset}"


def _is_file(path: Path) -> bool:
    # a text that is too long for one name may still be a file and a dataset
    with suppress(OSError):
        return path.is_file()
    return False


def name_bytes(name: str) -> bytes | None:
    """Return the bytes of a name that is not UTF-8, as h5py needs them; None for any other name."""
    raw = name.encode(errors="surrogateescape")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw
    return None
