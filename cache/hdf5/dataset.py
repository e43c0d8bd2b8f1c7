"""Open the dataset of labels (N, H, W) that a location names, and read what its attributes say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from ..errors import DataError, path_errors
from ..location import Location, name_bytes
from .blocks import MAX_LABELS
from .choice import label_datasets
from .label_view import KINDS, as_labels
from .open_files import open_file
from .sources import require_sources

_LISTED = 32
"""Most datasets that are listed."""
_FOREIGN = (
    (rb"version https://git-lfs", "a pointer of Git LFS", "Fetch the file itself: git lfs pull."),
    (rb"\s*<(!doctype )?html", "a web page", "Download the file itself, not the page that shows it."),
    (
        rb"\x93NUMPY|PK\x03\x04",
        "a numpy or zip file",
        "For numpy: `vaefit-cli data import npz FILE grids.h5`.",
    ),
    (rb"\x1f\x8b", "a gzip file", "Unpack it: gunzip FILE."),
    (rb"MATLAB 5", "an older MATLAB file", "Save it in MATLAB with the option -v7.3, or as numpy file."),
    (rb"CDF[\1\2\5]", "a classic netCDF file", "Convert it: nccopy -k nc4 FILE grids.h5."),
)
"""Start, name and advice for files that are taken for HDF5."""
_REVERSING = {"MATLAB_class": "MATLAB", "OCTAVE_NEW_FORMAT": "Octave", "rhdf5-NA.OK": "R"}
"""Attributes of datasets or their groups, and the programs that write them, which store axes in reverse order."""


@contextmanager
def open_grids(location: Location) -> Iterator[h5py.Dataset]:
    """Open the labels (N, H, W) that `location` names, read-only, as integers and without axes of length 1.

    Without a dataset's name it is that of `only_dataset`. Raises DataError where the file is missing, unreadable or not
    HDF5, and where the dataset is missing, ambiguous, of another rank or dtype, or empty.
    """
    file = location.file
    with path_errors(file):
        if not file.exists():
            head, colon, name = str(file).rpartition(":")
            # `file.h5:grids` or `file.h5::/grids`
            name = location.dataset or name
            meant = f"Did you mean {head}:/{name}?" if colon and Path(head).is_file() else "Check the path."
            raise DataError("the file does not exist", str(file), do=meant)
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "no regular file"
            raise DataError(f"this is {kind}, not an HDF5 file", str(file), do="Pass file.h5 or file.h5:/dataset.")
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(open_file(file))
        except OSError as error:
            raise _open_error(file, error) from error
        with damage_named(location):
            name = location.dataset or dataset_path(only_dataset(handle, location))
            require_sources(location, handle, name)  # before a link is followed
            dataset = _named(handle, location, name)
            labels = _checked(dataset, location)
            _require_order_of_axes(dataset, location)
        yield labels


@contextmanager
def damage_named(location: Location) -> Iterator[None]:
    """Raise a DataError in place of h5py's errors for a file whose structure cannot be read."""
    try:
        yield
    except (RuntimeError, KeyError, OSError, OverflowError, TypeError, UnicodeError) as error:
        do = "Take another copy of it, or write it anew."
        raise DataError("the file is damaged", str(location), _first_line(error), do) from error


def dataset_path(dataset: h5py.Dataset) -> str:
    """Return the dataset's path in its file without the leading slash; bytes that are not UTF-8 become surrogates."""
    name = dataset.name
    return (name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)).lstrip("/")


def declared_classes(dataset: h5py.Dataset) -> int | None:
    """Return the HDF5 attribute `classes` of the dataset, else of its file, else None; DataError if not 1..65536."""
    do = "Correct the attribute, or remove it and pass --classes."
    found = _attribute(dataset, "classes", range(1, MAX_LABELS + 1), do)
    return None if found is None else found[0]


def declared_ignore(dataset: h5py.Dataset) -> tuple[int, str] | None:
    """Return the label to ignore and the name of the attribute that says it; None without such an attribute.

    `ignore_index` of the dataset or of its file comes before `_FillValue` of the dataset, which is netCDF's. DataError
    where `ignore_index` is not a whole number.
    """
    do = "Correct the attribute, or remove it."
    found = _attribute(dataset, "ignore_index", range(-(2**63), 2**64), do)
    if found is None and "_FillValue" in dataset.attrs:
        with suppress(DataError):  # of scores, not of labels
            found = _attribute(dataset, "_FillValue", range(-(2**63), 2**64), do)
    return found


def _attribute(dataset: h5py.Dataset, name: str, allowed: range, do: str) -> tuple[int, str] | None:
    """Return the whole number in an attribute of the dataset, else of its file, and the attribute's name."""
    file = dataset.file
    where = f"{file.filename}:/{dataset_path(dataset)}"
    for attributes, place in ((dataset.attrs, where), (file.attrs, file.filename)):
        if name not in attributes:
            continue
        held = attributes.get_id(name)  # a few bytes, where an attribute may hold gigabytes
        alone = math.prod(held.shape or ()) == 1 and held.dtype.kind in "iuf"
        number = np.asarray(attributes[name]).reshape(()).item() if alone else None
        if number is None or not -(2**63) <= number < 2**64 or number != int(number) or int(number) not in allowed:
            what = f"the attribute `{name}` is not a whole number from {allowed[0]} to {allowed[-1]}"
            got = f"{held.dtype} of shape {held.shape}" if number is None else str(number)
            raise DataError(what, place, got, do)
        return int(number), name
    return None


def stored_shape(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return the shape in the file, with the axes of length 1 that labels lose."""
    return tuple(dataset.id.shape)


def passed_over(dataset: h5py.Dataset, location: Location) -> tuple[str, ...]:
    """Return the paths of the file's other datasets where the location names none; of many, the first and a number."""
    if location.dataset is not None:
        return ()
    others = [f"/{dataset_path(d)}" for d in _datasets(dataset.file) if d.shape and d.name != dataset.name]
    return (*others[:_LISTED], *([f"{len(others) - _LISTED} more"] if len(others) > _LISTED else []))


def _named(handle: h5py.File, location: Location, name: str) -> h5py.Dataset:
    raw = name_bytes(name)
    found = handle.get(name) if raw is None else _item(handle, raw)
    if found is None and raw is None and handle.get(name, getlink=True) is not None:
        what = "the link leads to nothing that can be opened"
        raise DataError(what, str(location), do="Check the file and the dataset that it names.")
    if isinstance(found, h5py.Dataset):
        return found
    what = "there is no such dataset" if found is None else "this is a group, not a dataset"
    raise DataError(what, str(location), do=f"The file holds: {_listing(handle)}.")


def _item(handle: h5py.File, name: bytes) -> object:
    """Return what `get` returns, which fails for names that are not UTF-8."""
    with suppress(KeyError):
        return handle[name]
    return None


def only_dataset(handle: h5py.File, location: Location) -> h5py.Dataset:
    """Return the dataset of an open file that holds the labels; DataError where there is none, or several may."""
    found = label_datasets(_datasets(handle))
    if len(found) == 1:
        return found[0]
    if not found:
        what = "no dataset of integer labels shaped (N, H, W) is in the file"
        links = _links(handle)
        do = "Store labels as an integer array of three dimensions."
        if links:
            do = f"Name the link that leads to it, as in {location.file}:/{next(iter(links))}."
        listed = [_listing(handle), *(f"/{name}, a link to {target}" for name, target in links.items())]
        raise DataError(what, str(location), ", ".join(filter(None, listed[:9])) or "an empty file", do)
    names = ", ".join(f"{location.file}:/{dataset_path(d)} {d.shape} {d.dtype}" for d in found[:_LISTED])
    raise DataError(f"{len(found)} datasets could be the labels", str(location), do=f"Name one of them: {names}.")


def _checked(dataset: h5py.Dataset, location: Location) -> h5py.Dataset:
    """Return the dataset as labels (N, H, W); DataError where it is none."""
    where = f"{location.file}:/{dataset_path(dataset)}"
    if dataset.dtype.kind not in KINDS:
        do = "Store them as an integer dtype."
        raise DataError("the labels are not integers", where, f"dtype {dataset.dtype}", do)
    labels = as_labels(dataset) if dataset.shape else dataset
    if labels.shape is None or labels.ndim != 3:
        what = "grids are three dimensions, (N, H, W)"
        raise DataError(what, where, f"shape {dataset.shape}", "Reshape the dataset.")
    if 0 in labels.shape:
        raise DataError("the dataset is empty", where, got=f"shape {dataset.shape}", do="Store at least one grid.")
    return labels


def _datasets(handle: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    handle.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _listing(handle: h5py.File) -> str:
    names = [f"/{dataset_path(d)} {d.shape} {d.dtype}" for d in _datasets(handle)]
    shown = ", ".join(names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _links(handle: h5py.File) -> dict[str, str]:
    """Return the names and targets of the links to other files."""
    found: dict[str, str] = {}

    def note(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            found[name] = f"{link.filename}:{link.path}"

    handle.visititems_links(note)
    return found


def _require_order_of_axes(dataset: h5py.Dataset, location: Location) -> None:
    """Raise DataError for a dataset of a program that stores an array's axes in reverse order."""
    for attributes in (dataset.attrs, dataset.parent.attrs):
        for program in (name for mark, name in _REVERSING.items() if mark in attributes):
            axes = f"{dataset.shape} here, {dataset.shape[::-1]} in {program}"
            name = f"[{dataset_path(dataset)!r}][()]"
            copy = f"import h5py; h5py.File('grids.h5', 'w')['labels'] = h5py.File({str(location.file)!r}){name}"
            do = (
                f'Write it anew: python -c "{copy}.T" where the grids are the first axis in {program}, with '
                ".swapaxes(1, 2) in place of .T where they are the last."
            )
            what = f"{program} wrote this dataset, and HDF5 has its axes in reverse order"
            raise DataError(what, str(location), axes, do)


def _open_error(file: Path, error: OSError) -> DataError:
    """Return the error for an existing file that HDF5 could not open."""
    try:
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError as unreadable:
        got = unreadable.strerror or str(unreadable)
        return DataError("the file cannot be read", str(file), got, "Check its permissions.")
    if "unable to lock file" in str(error):
        do = "Close it there, or set HDF5_USE_FILE_LOCKING=FALSE if nothing is being written."
        return DataError("the file is open for writing elsewhere", str(file), _first_line(error), do)
    if "h5clear" in str(error):
        do = (
            "Wait for its writer; if that was killed, clear the mark of a copy: h5clear -s FILE, one of the HDF5 tools."
        )
        return DataError("the file is marked as open for writing", str(file), do=do)
    for start, kind, do in _FOREIGN:
        if re.match(start, head, re.IGNORECASE):
            return DataError(f"this is {kind}, not an HDF5 file", str(file), do=do)
    do = "`vaefit-cli data import` makes HDF5 from ARC tasks and numpy files."
    return DataError("the file is not HDF5, or it is damaged", str(file), _first_line(error), do)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
