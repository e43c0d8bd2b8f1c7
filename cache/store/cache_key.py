"""What was asked of which files, and how these files looked: what cached counts hang on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ..location import Location
from . import checked_json
from .fingerprint import Stamp, Stamps, content_digest, racy, same_files, same_sizes
from .sources import Base, Source, Sources


@dataclass(frozen=True)
class CacheKey:
    """The question, and the state of every file that the answer was read from."""

    asked_dataset: str | None
    """The dataset the caller named, None where it was the file's only one."""
    sources: Sources
    stamps: Stamps
    content: str
    """`content_digest` of the files; empty where it was not taken."""

    def asks(self, location: Location) -> bool:
        """True for the same question, and files that would be searched for in the same folders."""
        return self.asked_dataset == location.dataset and self.sources.searched_alike

    def still_true(self, location: Location, look: FileState) -> CacheKey | None:
        """The key of the files as they are now where they are the ones of this key, None where they are not.

        Equal stamps suffice where no file was written just before they were taken; else the bytes tell, as they do of
        files that were touched or copied.
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
        """True where nothing was even touched, so that what was read of the files since is what is there now."""
        now = look.stamps(self.sources)
        if now is None or not same_files(self.stamps, now):
            return False
        return not racy(self.stamps) or (self.content != "" and look.content(self.sources) == self.content)

    def changed_file(self, location: Location) -> Path | None:
        """The first file that does not show what the key says of it; None where all do."""
        paths = self.sources.paths(location.file)
        for path, before in zip(paths, self.stamps, strict=True):
            try:
                now = (Stamp.from_path_or_none(path),)
            except OSError:
                return path
            if not same_files((before,), now):
                return path
        return None

    def seen_here(self, location: Location, same_machine: bool) -> CacheKey | None:
        """The key with the stamps that this machine takes of the files; None where they are not those of the key.

        Another machine may number its devices otherwise, so of a key that was made there only size and time of writing
        can be compared. When the stamps were taken stays: what was written since is not of the key.
        """
        try:
            now = self.sources.stamps(location.file)
        except OSError:
            return None
        found: list[Stamp | None] = []
        for before, after in zip(self.stamps, now, strict=True):
            if before is None or after is None:
                if before is not after:
                    return None
                found.append(None)
                continue
            alike = (before.size, before.mtime_ns) == (after.size, after.mtime_ns)
            if not (before.same_file(after) if same_machine else alike):
                return None
            found.append(replace(after, taken_ns=before.taken_ns))
        return replace(self, stamps=tuple(found))

    def encode(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "asked_dataset": self.asked_dataset,
            "content": self.content,
            "prefixes": list(self.sources.prefixes),
            "sources": [
                {"base": source.base, "path": source.path, "stamp": stamp and list(vars(stamp).values())}
                for source, stamp in zip(self.sources.files, self.stamps, strict=True)
            ],
        }

    @classmethod
    def decode(cls, body: dict[str, Any]) -> CacheKey:
        """What `encode` gave; RejectedError for anything else."""
        asked = checked_json.member(body, "asked_dataset")
        entries = checked_json.items(checked_json.member(body, "sources"), least=1)
        files = tuple(_source(entry) for entry in entries)
        if files[0] != Source("file"):
            raise checked_json.RejectedError("its contents do not fit: the first file is not the dataset's own")
        prefixes = checked_json.items(checked_json.member(body, "prefixes"), most=3)
        return cls(
            asked_dataset=None if asked is None else checked_json.words(asked),
            sources=Sources(files, tuple(checked_json.words(prefix) for prefix in prefixes)),
            stamps=tuple(_stamp(entry) for entry in entries),
            content=checked_json.words(checked_json.member(body, "content"), "([0-9a-f]{64})?"),
        )


class FileState:
    """One look at the files of a location; each file is stamped, and read, once for all keys that ask for it."""

    def __init__(self, location: Location) -> None:
        self._main = location.file
        self._stamps: dict[Sources, Stamps | None] = {}
        self._contents: dict[Sources, str | None] = {}

    def stamps(self, sources: Sources) -> Stamps | None:
        """The files as they are, None where that cannot be told."""
        if sources not in self._stamps:
            try:
                self._stamps[sources] = sources.stamps(self._main)
            except OSError:
                self._stamps[sources] = None
        return self._stamps[sources]

    def content(self, sources: Sources) -> str | None:
        """The digest of their bytes, None where they cannot be read; ask for the stamps first."""
        if sources not in self._contents:
            try:
                self._contents[sources] = content_digest(sources.paths(self._main))
            except OSError:
                self._contents[sources] = None
        return self._contents[sources]


def _source(entry: object) -> Source:
    base = checked_json.member(entry, "base")
    known: tuple[Base, ...] = get_args(Base)
    if base not in known:
        raise checked_json.RejectedError("its contents do not fit: a file lies nowhere")
    return Source(base, checked_json.words(checked_json.member(entry, "path")))


def _stamp(entry: object) -> Stamp | None:
    values = checked_json.member(entry, "stamp")
    if values is None:
        return None
    # a time before 1970 is negative, and an inode may fill 64 bits
    return Stamp(*(checked_json.whole(value, -(2**63), 2**64 - 1) for value in checked_json.items(values, 6, 6)))
