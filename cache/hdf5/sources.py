"""Find every file that the cells of a dataset, or their meaning, depend on; an error names one that is missing.

The cells of an HDF5 dataset may lie in raw files, in datasets of other files (a virtual dataset), or behind a link into
another file, and each of these may lead to further files. HDF5 searches several folders for such a file. Where it finds
none, or the end of a raw file, it gives fill values or zeros and says nothing. A file that is absent from an earlier
folder is listed too: if it appears, it is read instead. Each file is stamped before it is opened, so that an edit
during the walk or later shows.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import DataError
from ..location import Location, name_bytes
from .filters import load_plugins
from .open_files import first_time, open_file
from .stamp import Stamp

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

Base = Literal["file", "folder", "real", "cwd", "absolute"]
"""Start of a path: the main file itself, its folder, its folder after symbolic links are resolved, the working folder,
the root."""

_MOST_LINKS = 32
"""Most links from file to file, one behind another; HDF5 itself follows 16."""
_MOST_FILES = 20_000
_UNLIMITED = 2**64 - 1
_FURTHER = "HDF5 took folders to search from the environment at its start, or from the program"


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


class Found(NamedTuple):
    """A dataset at the end of all links."""

    holder: Path
    """The file that holds it."""
    shape: tuple[int, ...] | None


def require_sources(location: Location, handle: h5py.File, name: str) -> None:
    """Raise DataError where a file or a dataset that holds cells of `name` is missing; see `SourceWalk`."""
    if first_time(location.file, name):
        SourceWalk(location).follow(name, handle)


class SourceWalk:
    """A walk from the main file along links and virtual sources.

    DataError for a file, a dataset or a part of a raw file that is missing; for a named pipe or a device, which HDF5
    would read without an end; and for a dataset that is made of itself.
    """

    def __init__(self, location: Location) -> None:
        self.found: dict[Source, Stamp | None] = {}
        """The files in the order in which they are visited, None for an absent one."""
        self.doubt: str | None = None
        """Why these may not be all files; None where they are."""
        self._location, self._main = location, location.file
        self._opened: set[Source] = set()
        self._done: dict[tuple[Source, str], Found | None] = {}
        self._chain: list[tuple[int, int, str]] = []

    def follow(self, name: str, handle: h5py.File | None = None) -> Found | None:
        """Follow `name` from the root of the main file; None where it has no such dataset."""
        return self._object(Source("file"), name, handle)

    def stamp(self, source: Source) -> Stamp | None:
        """Return the stamp of a file at the first visit; None for an absent one."""
        if source not in self.found:
            path = source.resolve(self._main)
            if len(self.found) == _MOST_FILES:
                self._doubt(f"it depends on more than {_MOST_FILES} files")
            try:
                self.found[source] = Stamp.from_path_or_none(path)
            except OSError as error:
                if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112  # they raise nothing
                    what = f"its cells lie in {path}, which is no regular file"
                    raise DataError(what, str(self._location), do="Store them in a file.") from error
                self._doubt(f"{path} cannot be looked at: {error.strerror or error}")
                self.found[source] = None
        return self.found[source]

    def _doubt(self, why: str) -> None:
        self.doubt = self.doubt or why

    def _object(self, source: Source, name: str, opened: h5py.File | None = None) -> Found | None:
        """Follow `name` from the root of a file; None where the file does not open, or without a dataset."""
        name = name.strip("/")
        path, stamp = source.resolve(self._main), self.stamp(source)
        if stamp is None or (source, name) in self._done:
            return self._done.get((source, name))
        here = (stamp.device, stamp.inode, name)
        if here in self._chain:
            do = "Correct the virtual dataset or link."
            raise DataError("the dataset is made of itself", f"{path}:/{name}", do=do)
        if len(self._chain) >= _MOST_LINKS:
            self._doubt(f"its cells lie behind more than {_MOST_LINKS} links")
            return None
        self._chain.append(here)
        with opened_or_none(path) if opened is None else nullcontext(opened) as handle:
            if handle:
                self._opened.add(source)
            found = self._follow(source, handle, name) if handle else None
        self._chain.pop()
        self._done[source, name] = found
        return found

    def _follow(self, source: Source, handle: h5py.File, name: str) -> Found | None:
        import h5py

        item, parts, soft = handle["/"], name.split("/"), 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            raw = name_bytes(part)
            link = _link(item, part, raw) if isinstance(item, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                target, prefix = "/".join([link.path, *parts]), os.environ.get("HDF5_EXT_PREFIX", "")
                return self._elsewhere(source, name, "the link leads to", link.filename, target, prefix)
            if isinstance(link, h5py.SoftLink):
                soft += 1
                if soft > _MOST_LINKS:
                    self._doubt(f"it lies behind more than {_MOST_LINKS} links")
                    return None
                item = handle["/"] if link.path.startswith("/") else item
                parts = link.path.split("/") + parts
            elif isinstance(link, h5py.HardLink):
                item = item[raw or part]
            else:
                self._doubt(f"the link {part} is of an unknown kind")
                return None
        if not isinstance(item, h5py.Dataset):
            return None
        load_plugins(item)
        access = item.id.get_access_plist()
        holder = source.resolve(self._main)
        for prefix, visit in ((access.get_virtual_prefix(), self._virtual), (access.get_efile_prefix(), self._raw)):
            folder = str(holder.absolute().parent)
            visit(source, item, name, os.fsdecode(prefix or b"").replace("${ORIGIN}", folder))
        return Found(holder, item.shape)

    def _elsewhere(self, source: Source, needing: str, needs: str, file: str, name: str, prefix: str) -> Found:
        """Follow `name` in the first file that opens: before HDF5 2, a file that does not open was skipped.

        DataError where no file opens, or it has no such dataset; `needs` says what for.
        """
        tried: dict[str, str] = {}
        for candidate in [source] if file == "." else self._candidates(source, file, prefix):
            found = self._object(candidate, name)
            path = os.path.normpath(candidate.resolve(self._main).absolute())
            if found is not None:
                return found
            if candidate in self._opened:
                tried = {path: f"{path} without it"}
                break
            tried[path] = f"no {path}" if self.found[candidate] is None else f"{path}, which HDF5 does not open"
        do = "Copy it there, or write the dataset anew without it."
        with suppress(DataError):
            own = source.resolve(self._main).name
            if own != PurePath(file).name and self._object(source, name) is not None:
                do = f"{own} holds /{name.strip('/')} itself: give the file its old name back, {file}, or a link."
        what = f"{needs} {file}:/{name.strip('/')}, which is missing"
        raise DataError(what, f"{source.resolve(self._main)}:/{needing}", "; ".join(tried.values()), do)

    def _raw(self, source: Source, dataset: h5py.Dataset, needing: str, prefix: str) -> None:
        """Visit the raw files, if any; DataError for one that ends before its cells: HDF5 reads zeros there."""
        left = dataset.nbytes
        for file, offset, size in dataset.external or ():
            if prefix:
                self._doubt(_FURTHER)
            # without a prefix, HDF5 searches no other folder than the working folder
            path, least = PurePath(prefix, file), offset + min(size, left)
            stamp = self.stamp(_named(path))
            left -= min(size, left)
            if stamp is None or stamp.size < least:
                got = "no such file" if stamp is None else f"{stamp.size:,} bytes of {least:,}"
                what = f"its cells lie in the raw file {path}, which is {'missing' if stamp is None else 'too short'}"
                do = "Copy the whole file there; a relative path starts in the working folder."
                raise DataError(what, f"{source.resolve(self._main)}:/{needing}", got, do)

    def _virtual(self, source: Source, dataset: h5py.Dataset, needing: str, prefix: str) -> None:
        from h5py import h5s

        if not dataset.is_virtual:
            return
        least: dict[tuple[str, str], tuple[int, ...]] = {}
        cells: dict[tuple[str, str], int] = {}
        for target, file, name, origin in dataset.virtual_sources():
            sides: tuple[int, ...] = ()
            for space in (target, origin):
                if space.get_select_type() != h5s.SEL_HYPERSLABS:
                    continue
                if space.is_regular_hyperslab() and any(_UNLIMITED in side for side in space.get_regular_hyperslab()):
                    self._doubt("it is virtual without limits: its sources may grow")
                    break
                if space is origin:
                    sides = tuple(int(last) + 1 for last in space.get_select_bounds()[1])
            else:
                if origin.get_select_type() == h5s.SEL_ALL:
                    cells[file, name] = target.get_select_npoints()
            for names in self._blocks(source, file, name, prefix):
                least[names] = tuple(map(max, sides, least.get(names, sides)))
        for (file, name), sides in sorted(least.items()):
            found = self._elsewhere(source, needing, "its cells lie in", file, name, prefix)
            size = math.prod(found.shape or ())
            if any(map(int.__gt__, sides, found.shape or ())) or cells.get((file, name), size) != size:
                what = f"its cells lie in {file}:/{name.strip('/')}, which has another size"
                got = f"shape {found.shape}, where " + (f"{sides} is" if sides else f"{cells[file, name]:,} cells are")
                where = f"{source.resolve(self._main)}:/{needing}"
                do = "Take another copy of that file, or write the dataset anew."
                raise DataError(what, where, f"{got} needed", do)

    def _blocks(self, source: Source, file: str, name: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the names of the sources of a mapping: several where `%b` stands for the number of a block.

        HDF5 ends at the first file that is missing; here it is an error if a later one is there.
        """
        if not re.search("%b|%%", file + name):
            yield file, name
            return
        self._doubt("it is virtual with a pattern (%b) for its sources")
        numbers = {0}
        if "%b" in PurePath(file).name:
            name_of = re.compile("([0-9]+)".join(map(re.escape, _numbered(PurePath(file).name, "\0").split("\0"))))
            for candidate in self._candidates(source, _numbered(file, "0"), prefix):
                with suppress(OSError):
                    beside = candidate.resolve(self._main).parent.iterdir()
                    numbers |= {int(found[1]) for path in beside if (found := name_of.fullmatch(path.name))}
        for number in range(max(numbers) + 1):
            yield _numbered(file, str(number)), _numbered(name, str(number))

    def _candidates(self, source: Source, name: str, prefix: str) -> Iterator[Source]:
        """Yield the files that HDF5 tries for a name in `source`, in its order."""
        if PurePath(name).is_absolute():
            yield Source("absolute", name)
            name = PurePath(name).name
        for folder in filter(None, prefix.split(os.pathsep)):
            self._doubt(_FURTHER)
            yield _named(PurePath(folder, name))
        yield source.sibling(name)
        yield Source("cwd", name)
        path = source.resolve(self._main)
        if path.is_symlink() and path.resolve().parent != path.absolute().parent:
            if source.base == "file":
                yield Source("real", name)
            else:
                self._doubt(f"{path} is a link of the file system, and what it names does not lie beside it")


def _named(path: PurePath) -> Source:
    return Source("absolute" if path.is_absolute() else "cwd", str(path))


def _numbered(name: str, number: str) -> str:
    """Return the name of a block's source, in which `%b` stands for its number and `%%` for a per cent sign."""
    return re.sub("%(.)", lambda found: {"b": number, "%": "%"}.get(found[1], found[0]), name)


def _link(group: h5py.Group, name: str, raw: bytes | None) -> object:
    """Return the link of a group's member, None without one; `raw` is a name that is not UTF-8, which `get` refuses."""
    import h5py

    if raw is None:
        return group.get(name, getlink=True)
    if not group.id.links.exists(raw):
        return None
    return h5py.HardLink() if group.id.links.get_info(raw).type == h5py.h5l.TYPE_HARD else raw


@contextmanager
def opened_or_none(path: Path) -> Iterator[h5py.File | None]:
    """Open an HDF5 file for reading; None where it does not open."""
    with ExitStack() as stack:
        handle = None
        with suppress(OSError):
            handle = stack.enter_context(open_file(path))
        yield handle
