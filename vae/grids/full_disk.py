"""A file for HDF5 to write to, on a disk that may fill up."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class PatientFile(io.FileIO):
    """Takes every write, and remembers the first that failed.

    HDF5 does not survive a write that fails under an open file: it brings the process down. So it is told that all is
    well, and `check` tells the caller afterwards.
    """

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`; where that fails, go on behind it as if it were there."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.failure = self.failure or error
            self.seek(len(view) - done, io.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Change the size, or remember why that failed."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self.failure is not None:
            raise self.failure
