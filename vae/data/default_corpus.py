"""Embedded synthetic corpus, the dataset of a run without DATA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaefit.cache.store.counts_file import user_cache_folder

# increase it with every change of the cells that `synthesise` draws, or an old corpus in the cache is used
_VERSION = 1


def embedded_corpus(announce: Callable[[str], None] = lambda _: None) -> Path:
    """Return the HDF5 file of 80,000 synthetic grids in the user's cache folder; write it on first use.

    `announce` is called with a note before the file is written. Raises RunError where the folder cannot be written.
    """
    file = user_cache_folder() / f"synthetic-v{_VERSION}.h5"
    if not file.exists():
        from .hdf5_writer import write_grids
        from .synthetic import SyntheticSpec, synthesise

        spec = SyntheticSpec()
        announce(f"making the embedded corpus of {spec.grids:,} grids, once: {file}")
        origin = f"vaefit synthetic corpus, version {_VERSION}, seed {spec.seed}"
        write_grids(file, synthesise(spec), spec.classes, origin, overwrite=True)
    return file
