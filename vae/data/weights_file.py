"""Files of class weights: `weights --export` writes them, `overfit --weights-file` reads them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaefit.cache import DataError
from vaefit.cache.errors import SettingError
from vaefit.cache.regular_file import read_regular
from vaefit.cache.store.atomic import write_atomically

from ..errors import RunError
from .hdf5_writer import refuse_existing
from .numpy_import import array_from_bytes

KINDS = (".json", ".npy", ".safetensors")
LIMIT = 64 << 20
"""Bytes of a file; a result.json of a long training run holds weights too."""
TENSOR = "class_weights"
"""Name of the tensor in a safetensors file."""


_DAMAGED = (ValueError, TypeError, EOFError, OverflowError, RecursionError, LookupError, SyntaxError, TokenError)
"""Errors of json and numpy for a damaged file."""


def read_weights(file: Path) -> NDArray[Any]:
    """Return the numbers in a weights file, not checked yet.

    `.npy` holds the array; `.safetensors` holds one tensor, or one named `class_weights`; any other file is JSON: an
    array, or an object with weights (the output of `weights --json`, a result.json, a cached weights file).
    Raises DataError where the file holds no weights.
    """
    try:
        data = read_regular(file, LIMIT)
    except OSError as error:
        do = "Check the path and its permissions."
        raise DataError("the weights cannot be read", str(file), error.strerror or str(error), do) from error
    try:
        if file.suffix.lower() == ".npy":
            return array_from_bytes(data)
        if file.suffix.lower() == ".safetensors":
            return _from_safetensors(data)
        found = json.loads(data)
        values = found.get("weights") if isinstance(found, dict) else found
        return np.array(values.get("values") if isinstance(values, dict) else values, dtype=np.float64)
    except _DAMAGED as error:
        do = "`vaefit-cli weights --export` writes such files; JSON [w0, w1, ...] will do."
        raise DataError("the file holds no class weights", str(file), str(error), do) from error


def check_export(file: Path, overwrite: bool) -> None:
    """Raise SettingError for an unknown ending, and RunError for a file that exists; call it before any computation."""
    if file.suffix.lower() not in KINDS:
        what = "the ending of the file says no kind of weights file"
        raise SettingError(what, "--export", str(file), f"Use {', '.join(KINDS)}.")
    refuse_existing(file, overwrite)


def write_weights(file: Path, values: ArrayLike, origin: dict[str, Any]) -> None:
    """Write weights (C,) as float64 in the format of the file's ending; the file is replaced as a whole.

    `origin` is JSON that describes where the weights come from; `.npy` cannot hold it. Raises RunError where the file
    cannot be written.
    """
    array = np.asarray(values, dtype=np.float64)
    if file.suffix.lower() == ".npy":
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        data = stream.getvalue()
    elif file.suffix.lower() == ".safetensors":
        from safetensors.numpy import save

        data = save({TENSOR: array}, {name: json.dumps(value) for name, value in origin.items()})
    else:
        data = (json.dumps({**origin, "weights": array.tolist()}, indent=1) + "\n").encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, data)
    except OSError as error:
        do = "Check the permissions and the free space there."
        raise RunError("the weights cannot be written", str(file), error.strerror or str(error), do) from error


def _from_safetensors(data: bytes) -> NDArray[Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    except KeyError as error:  # a dtype that numpy does not have
        raise ValueError(f"dtype {error.args[0]}") from error
    if TENSOR not in found and len(found) != 1:
        raise ValueError(f"{len(found)} tensors, none of them named {TENSOR}")
    return found[TENSOR] if TENSOR in found else next(iter(found.values()))
