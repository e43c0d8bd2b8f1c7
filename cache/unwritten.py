"""What this process has written to HDF5 files through handles that are still open, and HDF5 still holds back.

HDF5 gives a second handle of a file what the first has written, but the bytes of the file, its times and so its cached
counts know nothing of it.
"""

from __future__ import annotations

import sys
from contextlib import suppress


def flush_writers() -> None:
    """Flush every HDF5 file that this process has open for writing; a file without changes keeps its times."""
    if "h5py" not in sys.modules:
        return  # then none is open, and a cached answer needs no HDF5
    from h5py import h5f

    for handle in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        # another thread may have closed it by now; what a full disk does not take, the writer is told when it closes it
        with suppress(OSError, RuntimeError, ValueError):
            if handle.get_intent() & h5f.ACC_RDWR:
                h5f.flush(handle)
