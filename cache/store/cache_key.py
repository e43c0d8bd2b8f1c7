"""The cache key: the requested dataset, and the stamp and digest of every file that it was read from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from ..errors import DataError
from ..hdf5.open_files import flush_mappings
from ..hdf5.sources import Base, Source
from ..hdf5.stamp import Stamp, Stamps, racy, same_files, same_sizes
from ..location import Location
from . import checked_json
from .fingerprint import content_digest
from .sources import Sources, UnlistedError, list_sources


class _SourceFields(Struct, frozen=True):
    """A file that the counts depend on, with its stamp: the values of `Stamp`, None for an absent file."""

    base: Base
    path: checked_json.Text
    stamp: tuple[int, int, int, int, int, int] | None

    def __post_init__(self) -> None:
        # a time before 1970 is negative, and an inode may fill 64 bits
        if not all(-(2**63) <= value < 2**64 for value in self.stamp or ()):
            raise ValueError("a stamp has a number of more than 64 bits")


class _KeyFields(Struct, frozen=True):
    """The fields of a `CacheKey` in a file."""

    asked_dataset: checked_json.Text | None
    content: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
    sources: Annotated[tuple[_SourceFields, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if (self.sources[0].base, self.sources[0].path) != ("file", ""):
            raise ValueError("the first file is not the dataset's own")


@dataclass(frozen=True)
class CacheKey:
    """The requested dataset, and the state of every file that its counts were read from."""

    asked_dataset: str | None
    """The dataset that the caller named; None where it was the file's only one."""
    sources: Sources
    stamps: Stamps
    content: str
    """`content_digest` of the files; empty where it was not computed."""

    def asks(self, location: Location) -> bool:
        """True for the same dataset, where HDF5 would search for its files in the same folders."""
        return self.asked_dataset == location.dataset and self.sources.listable

    def still_true(self, location: Location, look: FileState) -> CacheKey | None:
        """Return the key of the files as they are now if they are those of this key, else None.

        Equal stamps prove it unless a file was written just before they were taken. Then the digest of the bytes
        decides, as it does for files that were touched or copied.
        """
        now = look.stamps(self.sources)
        if now is None or not same_sizes(self.stamps, now):
            return None
        if same_files(self.stamps, now) and not racy(self.stamps):
            return self
        if not self.content or look.content(self.sources) != self.content:
            return None
        # the bytes are those of the stamps only if nothing changed while they were read
        after = FileState(location).stamps(self.sources)
        return replace(self, stamps=now) if after is not None and same_files(now, after) else None

    def untouched(self, look: FileState) -> bool:
        """True where no file was touched, so that everything read from the files since then is still true."""
        now = look.stamps(self.sources)
        if now is None or not same_files(self.stamps, now):
            return False
        return not racy(self.stamps) or (self.content != "" and look.content(self.sources) == self.content)

    def changed_file(self, location: Location) -> Path | None:
        """Return the first file whose stamp differs from the key's; None where all are equal."""
        paths = self.sources.paths(location.file)
        for path, before in zip(paths, self.stamps, strict=True):
            try:
                now = (Stamp.from_path_or_none(path),)
            except OSError:
                return path
            if not same_files((before,), now):
                return path
        return None

    def encode(self) -> dict[str, Any]:
        """Return the key as JSON values."""
        return {
            "asked_dataset": self.asked_dataset,
            "content": self.content,
            "sources": [
                {"base": source.base, "path": source.path, "stamp": stamp and list(vars(stamp).values())}
                for source, stamp in zip(self.sources.files, self.stamps, strict=True)
            ],
        }

    @classmethod
    def decode(cls, body: dict[str, Any]) -> CacheKey:
        """Return the key that `encode` wrote; RejectedError for anything else."""
        found = checked_json.convert(body, _KeyFields)
        files = tuple(Source(entry.base, entry.path) for entry in found.sources)
        stamps = tuple(entry.stamp and Stamp(*entry.stamp) for entry in found.sources)
        return cls(found.asked_dataset, Sources(files), stamps, found.content)


class FileState:
    """The state of a location's files at one moment; each file is stamped, and read, once for all keys."""

    def __init__(self, location: Location) -> None:
        self._location, self._main = location, location.file
        self._stamps: dict[Sources, Stamps | None] = {}
        self._contents: dict[Sources, str | None] = {}

    def stamps(self, sources: Sources) -> Stamps | None:
        """Return the stamps of the files now; None where the system cannot give them."""
        if sources not in self._stamps:
            try:
                self._stamps[sources] = sources.stamps(self._main)
            except OSError:
                self._stamps[sources] = None
        return self._stamps[sources]

    def content(self, sources: Sources) -> str | None:
        """Return the digest of the files' bytes; call `stamps` first.

        None where they cannot be read, or are not those that the dataset depends on: a cached file may name any files.
        """
        if sources not in self._contents:
            if len(sources.files) > 1 and not self._depends_on(sources):
                return self._contents.setdefault(sources, None)
            paths = sources.paths(self._main)
            flush_mappings(paths)
            try:
                self._contents[sources] = content_digest(paths)
            except OSError:
                self._contents[sources] = None
        return self._contents[sources]

    def _depends_on(self, sources: Sources) -> bool:
        with suppress(UnlistedError, DataError):
            return list_sources(self._location)[0] == sources
        return False
