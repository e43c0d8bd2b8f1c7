"""Class weights in a file: written by `weights --export`, read by `overfit --weights-file`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaefit.cache import DataError
from vaefit.cache.errors import SettingError
from vaefit.cache.store.atomic import write_atomically

from ..errors import RunError
from .hdf5_writer import refuse_existing

KINDS = (".json", ".npy", ".safetensors")
TENSOR = "class_weights"
"""Name of the tensor in a safetensors file."""


def read_weights(file: Path) -> NDArray[Any]:
    """The numbers in a weights file, not checked yet.

    `.npy` holds the array and `.safetensors` one tensor, or one named `class_weights`; any other file is JSON: an
    array, or a file of ours that holds weights (what `weights --json` prints, a result.json, a cached weights file).
    Raises DataError where the file holds none.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        do = "Check the path and its permissions."
        raise DataError("the weights cannot be read", str(file), error.strerror or str(error), do) from error
    try:
        if file.suffix.lower() == ".npy":
            array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
            return array
        if file.suffix.lower() == ".safetensors":
            return _tensor(data)
        return _of_json(json.loads(data))
    except (ValueError, TypeError, EOFError, OverflowError, RecursionError) as error:
        raise DataError(
            "the file holds no class weights",
            str(file),
            got=str(error),
            do="`vaefit-cli weights --export` writes such files; JSON [w0, w1, ...] will do.",
        ) from error


def check_export(file: Path, overwrite: bool) -> None:
    """Raise before anything is computed: SettingError for an ending that says no kind, RunError for a file there."""
    if file.suffix.lower() not in KINDS:
        raise SettingError(
            "the ending of the file says no kind of weights file", "--export", str(file), f"Use {', '.join(KINDS)}."
        )
    refuse_existing(file, overwrite)


def write_weights(file: Path, values: ArrayLike, origin: dict[str, Any]) -> None:
    """Write weights (C,) as float64, all of them or nothing, in the form that the ending says.

    `origin` is plain JSON that says where they come from; `.npy` has no room for it. Raises RunError where the file
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


def _tensor(data: bytes) -> NDArray[Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    except KeyError as error:  # a dtype that numpy does not know
        raise ValueError(f"dtype {error.args[0]}") from error
    if TENSOR in found:
        return found[TENSOR]
    if len(found) != 1:
        raise ValueError(f"{len(found)} tensors, none of them named {TENSOR}")
    return next(iter(found.values()))


def _of_json(found: Any) -> NDArray[np.float64]:
    values = found.get("weights") if isinstance(found, dict) else found
    values = values.get("values") if isinstance(values, dict) else values
    return np.array(values, dtype=np.float64)
