"""Opening the one (N, H, W) integer dataset that a location means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from .errors import DataError
from .location import Location


@contextmanager
def open_grids(location: Location) -> Iterator[h5py.Dataset]:
    """Open the (N, H, W) integer dataset that `location` means, read-only.

    Raises DataError where the file is missing, unreadable or not HDF5, and where the dataset is missing, ambiguous, of
    another rank or dtype, or empty.
    """
    file = location.file
    if not file.exists():
        raise DataError("the file does not exist", str(file), do="Check the path; no DATA uses the embedded corpus.")
    if file.is_dir():
        raise DataError("this is a folder, not an HDF5 file", str(file), do="Pass file.h5 or file.h5:/dataset.")
    try:
        handle = h5py.File(file, "r")
    except OSError as error:
        readable = _is_readable(file)
        raise DataError(
            "the file is not HDF5, or it is damaged" if readable else "the file cannot be read",
            str(file),
            got=_first_line(error),
            do="`vaefit-cli data import` makes HDF5 from ARC tasks." if readable else "Check its permissions.",
        ) from error
    with handle:
        dataset = _pick(handle, location)
        _check(dataset, location)
        yield dataset


def dataset_path(dataset: h5py.Dataset) -> str:
    """The dataset's path in its file, without the leading slash."""
    return str(dataset.name).lstrip("/")


def declared_classes(dataset: h5py.Dataset) -> int | None:
    """The number of classes in the HDF5 attribute `classes`, None without one; DataError if it is not 1..256."""
    if "classes" not in dataset.attrs:
        return None
    value = np.asarray(dataset.attrs["classes"])
    if value.size != 1 or value.dtype.kind not in "iu" or not 1 <= int(value.reshape(())) <= 256:
        raise DataError(
            "the attribute `classes` is not a number from 1 to 256",
            f"{dataset.file.filename}:/{dataset_path(dataset)}",
            got=str(dataset.attrs["classes"]),
            do="Mend the attribute, or remove it and pass --classes.",
        )
    return int(value.reshape(()))


def _pick(handle: h5py.File, location: Location) -> h5py.Dataset:
    if location.dataset is not None:
        try:
            found = handle.get(location.dataset)
        except (OSError, KeyError) as error:
            raise DataError("the dataset cannot be opened", str(location), got=_first_line(error)) from error
        if isinstance(found, h5py.Dataset):
            return found
        raise DataError(
            "there is no such dataset" if found is None else "this is a group, not a dataset",
            str(location),
            do=f"The file holds: {_listing(handle)}.",
        )
    grids = [d for d in _datasets(handle) if d.ndim == 3 and d.dtype.kind in "iu"]
    if len(grids) == 1:
        return grids[0]
    if not grids:
        raise DataError(
            "no dataset of integer labels shaped (N, H, W) is in the file",
            str(location),
            got=_listing(handle) or "an empty file",
            do="Store labels as an integer array of three dimensions.",
        )
    names = ", ".join(f"{location.file}:/{dataset_path(d)}" for d in grids)
    raise DataError(f"{len(grids)} datasets could be the grids", str(location), do=f"Name one of them: {names}.")


def _check(dataset: h5py.Dataset, location: Location) -> None:
    where = f"{location.file}:/{dataset_path(dataset)}"
    if dataset.dtype.kind not in "iu":
        raise DataError(
            "the labels are not integers", where, got=f"dtype {dataset.dtype}", do="Store them as an integer dtype."
        )
    if dataset.shape is None or dataset.ndim != 3:
        raise DataError(
            "grids are three dimensions, (N, H, W)", where, got=f"shape {dataset.shape}", do="Reshape the dataset."
        )
    if 0 in dataset.shape:
        raise DataError("the dataset is empty", where, got=f"shape {dataset.shape}", do="Store at least one grid.")


def _datasets(handle: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    handle.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _listing(handle: h5py.File) -> str:
    names = [f"/{dataset_path(d)} {d.shape} {d.dtype}" for d in _datasets(handle)]
    shown = ", ".join(names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _is_readable(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
