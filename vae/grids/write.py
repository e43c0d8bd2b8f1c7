"""Writing a dataset of grids: chunked, gzip, with classes and origin in the attributes."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from vaefit.cache.atomic import write_atomically

from ..errors import RunError

CHUNK_CELLS = 1 << 20


def write_grids(out: Path, grids: NDArray[np.uint8], classes: int, origin: str, overwrite: bool = False) -> None:
    """Write grids (N, H, W) uint8 as `/grids` of a new HDF5 file, all of it or nothing.

    Raises RunError where `out` exists and `overwrite` is False, or cannot be written.
    """
    refuse_existing(out, overwrite)
    n, height, width = grids.shape
    chunk = (max(1, min(n, CHUNK_CELLS // (height * width))), height, width)
    # made in memory: HDF5 crashes where the disk is full
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        stored = file.create_dataset("grids", data=grids, chunks=chunk, compression="gzip")
        stored.attrs["classes"] = classes
        stored.attrs["origin"] = origin
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, image.getvalue())
    except OSError as error:
        raise RunError("the file cannot be written", str(out), got=error.strerror or str(error)) from error


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise RunError where `out` exists and may not be replaced; worth asking before the grids are made."""
    if out.is_dir():
        raise RunError("this is a folder", str(out), do="Pass the name of a file.")
    if out.exists() and not overwrite:
        raise RunError("the file exists", str(out), do="Pass --overwrite, or another name.")
