"""The files that a dataset depends on, as a cached file names them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..hdf5.sources import Source, SourceWalk, opened_or_none
from ..hdf5.stamp import Stamp, Stamps
from ..location import Location

PREFIXES = ("HDF5_EXTFILE_PREFIX", "HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX")
"""Environment variables with further folders in which HDF5 searches for raw files, link targets, virtual sources: where
one is set, the other files of a dataset are not listed."""


class UnlistedError(Exception):
    """The files that a dataset depends on cannot be listed; the text gives the reason."""


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
    files cannot be listed, and DataError as `SourceWalk`.
    """
    from ..hdf5.dataset import dataset_path, only_dataset

    walk, found = SourceWalk(location), None
    try:
        if walk.stamp(Source("file")) is not None:
            with opened_or_none(location.file) as handle:
                if handle is not None:
                    found = walk.follow(location.dataset or dataset_path(only_dataset(handle, location)), handle)
    except DataError:
        raise
    except (KeyError, OSError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise UnlistedError("its links or sources cannot be read") from error
    sources = Sources(tuple(walk.found))
    if not sources.listable:
        raise UnlistedError(f"its files are searched for in further folders: {', '.join(PREFIXES)}")
    if walk.doubt is not None:
        raise UnlistedError(walk.doubt)
    return sources, tuple(walk.found.values()), None if found is None else found.holder
