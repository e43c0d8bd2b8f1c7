"""List every file that the cells of a dataset, or their meaning, depend on.

The cells of an HDF5 dataset may lie in raw files, in datasets of other files (a virtual dataset), or behind a link into
another file, and each of these may lead to further files. HDF5 searches several folders for such a file. A file that is
absent from an earlier folder is listed too: if it appears, it is read instead. Each file is stamped before it is
opened, so that an edit during the walk or later shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from ..errors import DataError
from ..hdf5.open_files import open_file
from ..location import Location
from .fingerprint import Stamp, Stamps

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

Base = Literal["file", "folder", "real", "cwd", "absolute"]
"""Start of a path: the main file itself, its folder, its folder after symbolic links are resolved, the working folder,
the root."""

PREFIXES = ("HDF5_EXTFILE_PREFIX", "HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX")
"""Environment variables with further folders in which HDF5 searches for raw files, link targets, virtual sources: where
one is set, the other files of a dataset are not listed."""

_MOST_LINKS = 32
"""Most links from file to file, one behind another; HDF5 itself follows 16."""
_MOST_FILES = 20_000
_UNLIMITED = 2**64 - 1


class UnlistedError(Exception):
    """The files that a dataset depends on cannot be listed; the text gives the reason."""


@dataclass(frozen=True)
class Source:
    """A file, by a path that stays valid when the main file and its neighbours are copied to another folder."""

    base: Base
    path: str = ""

    def resolve(self, main: Path) -> Path:
        """Return the path of the file, which may be absent, for the main file `main`."""
        if self.base == "file":
            return main
        if self.base == "folder":
            return main.absolute().parent / self.path
        if self.base == "real":
            return main.resolve().parent / self.path
        return Path.cwd() / self.path if self.base == "cwd" else Path(self.path)

    def sibling(self, name: str) -> Source:
        """Return the file `name` in the same folder."""
        if self.base == "file":
            return Source("folder", name)
        return Source(self.base, str(PurePath(self.path).parent / name))


@dataclass(frozen=True)
class Sources:
    """The files, the main one first."""

    files: tuple[Source, ...]

    def paths(self, main: Path) -> list[Path]:
        """Return the paths of the files, some of which may be absent."""
        return [source.resolve(main) for source in self.files]

    def stamps(self, main: Path) -> Stamps:
        """Stamp the files now; OSError where the system gives no answer."""
        return tuple(Stamp.from_path_or_none(path) for path in self.paths(main))

    @property
    def listable(self) -> bool:
        """True where HDF5 would search for the other files in the folders that are searched here."""
        return len(self.files) == 1 or not any(os.environ.get(name) for name in PREFIXES)


def list_sources(location: Location) -> tuple[Sources, Stamps, Path | None]:
    """Return the files that a dataset depends on, their stamps, and the path of the file that holds the dataset.

    That path is None where no dataset was found, for which opening it gives the reason. Raises UnlistedError where the
    files cannot be listed, DataError for a dataset that is made of itself.
    """
    walk = _Walk(location.file)
    try:
        walk.start(location)
    except DataError:
        raise
    except (KeyError, OSError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise UnlistedError("its links or sources cannot be read") from error
    sources = Sources(tuple(walk.found))
    if not sources.listable:
        raise UnlistedError(f"its files are searched for in further folders: {', '.join(PREFIXES)}")
    return sources, tuple(walk.found.values()), walk.holder


class _Walk:
    """A walk from the main file along links and virtual sources."""

    def __init__(self, main: Path) -> None:
        self.main = main
        self.found: dict[Source, Stamp | None] = {}
        self.holder: Path | None = None
        self._opened: set[Source] = set()
        self._done: set[tuple[Source, str]] = set()
        self._chain: list[tuple[int, int, str]] = []

    def start(self, location: Location) -> None:
        from ..hdf5.dataset import dataset_path, only_dataset

        main = Source("file")
        name = location.dataset
        if name is None:
            path, stamp = self._stamp(main)
            with _opened(path if stamp else None) as handle:
                name = dataset_path(only_dataset(handle, location)) if handle else None
        if name is not None:
            self.holder = self._object(main, name)

    def _stamp(self, source: Source) -> tuple[Path, Stamp | None]:
        """Return the path of a file, and its stamp at the first visit."""
        path = source.resolve(self.main)
        if source not in self.found:
            if len(self.found) >= _MOST_FILES:
                raise UnlistedError(f"it depends on more than {_MOST_FILES} files")
            try:
                self.found[source] = Stamp.from_path_or_none(path)
            except OSError as error:
                raise UnlistedError(f"{path} cannot be looked at: {error.strerror or error}") from error
        return path, self.found[source]

    def _object(self, source: Source, name: str) -> Path | None:
        """Follow `name` from the root of a file; return the file that holds the dataset, None without a dataset."""
        name = name.strip("/")
        path, stamp = self._stamp(source)
        if stamp is None or (source, name) in self._done:
            return None
        here = (stamp.device, stamp.inode, name)
        if here in self._chain:
            raise DataError(
                "the dataset is made of itself", f"{path}:/{name}", do="Correct the virtual dataset or link."
            )
        if len(self._chain) >= _MOST_LINKS:
            raise UnlistedError(f"its cells lie behind more than {_MOST_LINKS} links")
        self._chain.append(here)
        with _opened(path) as handle:
            if handle:
                self._opened.add(source)
            holder = self._follow(source, handle, name) if handle else None
        self._chain.pop()
        self._done.add((source, name))
        return holder

    def _follow(self, source: Source, handle: h5py.File, name: str) -> Path | None:
        import h5py

        from ..hdf5.dataset import name_bytes

        item, parts, soft = handle["/"], name.split("/"), 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            raw = name_bytes(part)
            link = _link(item, part, raw) if isinstance(item, h5py.Group) else None
            if link is None:
                return None  # a virtual source has fill values then; for a link, opening it gives the error
            if isinstance(link, h5py.ExternalLink):
                return self._elsewhere(self._candidates(source, link.filename), "/".join([link.path, *parts]))
            if isinstance(link, h5py.SoftLink):
                soft += 1
                if soft > _MOST_LINKS:
                    raise UnlistedError(f"it lies behind more than {_MOST_LINKS} links")
                item = handle["/"] if link.path.startswith("/") else item
                parts = link.path.split("/") + parts
            elif isinstance(link, h5py.HardLink):
                item = item[raw or part]
            else:
                raise UnlistedError(f"the link {part} is of an unknown kind")
        if not isinstance(item, h5py.Dataset):
            return None
        self._cells(source, item)
        return source.resolve(self.main)

    def _elsewhere(self, candidates: Iterable[Source], name: str) -> Path | None:
        """Follow `name` in the first file that opens: before HDF5 2, a file that does not open was skipped."""
        for candidate in candidates:
            holder = self._object(candidate, name)
            if candidate in self._opened:
                return holder
        return None

    def _cells(self, source: Source, dataset: h5py.Dataset) -> None:
        """Visit the other files that hold a dataset's cells."""
        if not dataset.is_virtual and not dataset.external:
            return
        access = dataset.id.get_access_plist()
        if access.get_efile_prefix() or access.get_virtual_prefix():
            raise UnlistedError("HDF5 took folders to search from the environment at its start, or from the program")
        if dataset.is_virtual:
            self._virtual(source, dataset)
        for name, _, _ in dataset.external or ():
            # HDF5 searches no other folder than the working folder
            self._stamp(Source("absolute" if PurePath(name).is_absolute() else "cwd", name))

    def _virtual(self, source: Source, dataset: h5py.Dataset) -> None:
        from h5py import h5s

        parts = set()
        for target, file, name, origin in dataset.virtual_sources():
            if re.search("%b|%%", file + name):
                raise UnlistedError("it is virtual with a pattern (%b) for its sources")
            for space in (target, origin):
                regular = space.get_select_type() == h5s.SEL_HYPERSLABS and space.is_regular_hyperslab()
                if regular and any(_UNLIMITED in side for side in space.get_regular_hyperslab()):
                    raise UnlistedError("it is virtual without limits: its sources may grow")
            parts.add((file, name))
        for file, name in sorted(parts):
            self._elsewhere([source] if file == "." else self._candidates(source, file), name)

    def _candidates(self, source: Source, name: str) -> Iterator[Source]:
        """Yield the files that HDF5 tries for a name in `source`, in its order."""
        if PurePath(name).is_absolute():
            yield Source("absolute", name)
            name = PurePath(name).name
        yield source.sibling(name)
        yield Source("cwd", name)
        path = source.resolve(self.main)
        if path.is_symlink() and path.resolve().parent != path.absolute().parent:
            if source.base != "file":
                raise UnlistedError(f"{path} is a link of the file system, and what it names does not lie beside it")
            yield Source("real", name)


def _link(group: h5py.Group, name: str, raw: bytes | None) -> object:
    """Return the link of a group's member, None without one; `raw` is a name that is not UTF-8, which `get` refuses."""
    import h5py

    if raw is None:
        return group.get(name, getlink=True)
    if not group.id.links.exists(raw):
        return None
    return h5py.HardLink() if group.id.links.get_info(raw).type == h5py.h5l.TYPE_HARD else raw


@contextmanager
def _opened(path: Path | None) -> Iterator[h5py.File | None]:
    """Open an HDF5 file for reading; None where it is absent or does not open: opening the dataset gives the error."""
    with ExitStack() as stack:
        handle = None
        if path is not None:
            with suppress(OSError):
                handle = stack.enter_context(open_file(path))
        yield handle
