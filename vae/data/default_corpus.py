"""The corpus that is used where no DATA is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaefit.cache.store.counts_file import user_cache_folder

# a change to what `synthesise` draws needs a new number here, or old caches would answer for new cells
_VERSION = 1


def embedded_corpus(announce: Callable[[str], None] = lambda _: None) -> Path:
    """The 80,000 synthetic grids as HDF5 in the user's cache folder, made on first use (`announce` is told).

    Raises RunError where that folder cannot be written.
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
