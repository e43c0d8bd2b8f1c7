"""Numpy files damaged at random: either the labels that numpy reads, or a clear error, in bounded memory."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.lib import format as npy_format

from tests.fault_injection.tally import Tally

MEMORY = 192 << 20
"""Bytes that the imports of all files may take beyond those of the first."""
SHAPE = (12, 6, 5)

SAME = "the labels that numpy reads"
ERROR = "a clear error, and numpy fails too"
ERROR_ALONE = "a clear error, where numpy reads on"
UNHARMED = "the labels of the undamaged file, where numpy fails"
BAD = {
    "traceback": "a traceback",
    "other": "other labels than numpy reads",
    "more": "labels, where numpy fails",
    "lines": "an error that is not one plain line",
    "memory": "more memory than the limit",
    "slow": "more than 10 seconds",
}


def numpy_drill(count: int, seed: int, only: int | None = None, kept: Path | None = None) -> Tally:
    """Import `count` damaged files, or only the one of number `only`, in a process of their own."""
    tally = Tally("numpy", f"{count} files, seed {seed}" if only is None else f"file {only} of seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        numbers = range(count) if only is None else [only]
        command = [sys.executable, "-m", "tests.fault_injection.numpy_files", folder, str(seed)]
        asked = "\n".join(map(str, numbers))
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            number, words, end, text = json.loads(line)
            bad = end in BAD.values()
            if bad and kept is not None:
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{number}.npy").write_bytes(damaged(number, seed)[0])
            tally.add(end, bad, f"file {number}, {words}: {text}" if bad or only is not None else "")
        for _ in range(len(numbers) - tally.ends.total()):
            tally.add("the process died", bad=True, example=done.stderr[-200:])
    return tally.done()


def damaged(number: int, seed: int) -> tuple[bytes, str]:
    """The bytes of a damaged file, and in words what was done."""
    rng = np.random.default_rng([seed, number])
    name, whole = WHOLE[number % len(WHOLE)]
    data = bytearray(whole())
    kind = int(rng.integers(7))
    # the header of the array, or of the archive's members, is where damage tells
    at = int(rng.integers(min(len(data), 140) if rng.random() < 0.6 else len(data)))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at : at + 4] = rng.bytes(4)
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        data[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == 4:
        del data[at : at + int(rng.integers(1, 20))]
    elif kind == 5:
        data[at : at + 8] = bytes([(0, 255)[int(rng.integers(2))]]) * 8
    else:
        words = [b"(12, 6, 5)", b"False", b"True", b"<i8", b"|u1", b"12", b"fortran_order", b"descr", b"}"]
        others = [b"(-12, 6, 5)", b"(2**40, 6)", b"(1e3, 6, 5)", b"99999999999999999999", b"(((((((((", b"'", b"None",
                  b"'|O8'", b"0x", b"\0", b"(12, 6, 5, 1)", b"(12, True, 30)", b"{}"]  # fmt: skip
        word, other = words[int(rng.integers(len(words)))], others[int(rng.integers(len(others)))]
        data = bytearray(bytes(data).replace(word, other, 1))
        return bytes(data), f"{name}, {word!r} became {other!r}"
    return bytes(data), f"{name}, damage {kind} at {at}"


def labels() -> np.ndarray:
    """The labels of the whole files."""
    return np.random.default_rng(0).integers(0, 9, SHAPE)


def _npy(dtype: str, order: str = "C") -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(labels().astype(dtype), order=order))  # type: ignore[call-overload]
    return stream.getvalue()


def _npz(save: Callable[..., None]) -> bytes:
    stream = io.BytesIO()
    save(stream, labels=labels(), images=labels().astype("u1")[:, 0])
    return stream.getvalue()


def _packed(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("labels.npy", _npy("u1"))
    return stream.getvalue()


def _bomb() -> bytes:
    """A header of a few grids before 256 MB of zeros, which take 256 kB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("labels.npy", "w") as member:
        npy_format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (4, 4, 4)})
        for _ in range(256):
            member.write(bytes(1 << 20))
    return stream.getvalue()


def _objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, labels().astype(object), allow_pickle=True)
    return stream.getvalue()


_BOMB: list[bytes] = []
WHOLE: list[tuple[str, Callable[[], bytes]]] = [
    ("npy i8", lambda: _npy("i8")),
    ("npy u1", lambda: _npy("u1")),
    ("npy f4", lambda: _npy("f4")),
    ("npy in columns", lambda: _npy(">i2", "F")),
    ("npz", lambda: _npz(np.savez)),
    ("npz deflated", lambda: _npz(np.savez_compressed)),
    ("npz lzma", lambda: _packed(zipfile.ZIP_LZMA)),
    ("npz bzip2", lambda: _packed(zipfile.ZIP_BZIP2)),
    ("objects", _objects),
    ("bomb", lambda: (_BOMB or [_BOMB.append(_bomb()), *_BOMB])[-1]),  # type: ignore[func-returns-value]
]
"""Names and makers of the undamaged files."""


def by_numpy(file: Path) -> np.ndarray | None:
    """The labels that numpy reads; None where it fails."""
    try:
        found = np.load(file, allow_pickle=False)
        cells = found["labels"] if isinstance(found, np.lib.npyio.NpzFile) else found
        return np.asarray(cells)
    except Exception:  # whatever numpy says of a damaged file is an answer
        return None


def _import(file: Path, out: Path) -> tuple[str, str]:
    """End of the import of a file, and its error."""
    from vaefit.cache.errors import VaefitError
    from vaefit.vae.data.numpy_import import import_numpy

    try:
        import_numpy(file, out, overwrite=True)
    except VaefitError as error:
        text = str(error)
        return (ERROR if text.isprintable() else BAD["lines"]), text
    except BaseException as error:
        return BAD["traceback"], f"{type(error).__name__}: {error}"
    return SAME, ""


def main(folder: str, seed: int) -> None:
    """Import the files whose numbers are on stdin, and print how each ended."""
    import time
    import warnings

    warnings.simplefilter("ignore")
    start_memory = 0
    for number in map(int, sys.stdin.read().split()):
        data, words = damaged(number, seed)
        file, out = Path(folder) / "in", Path(folder) / "out.h5"
        file.write_bytes(data)
        del data
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        started = time.monotonic()
        end, text = _import(file, out)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        start_memory = start_memory or peak
        if time.monotonic() - started > 10:
            end = BAD["slow"]
        elif peak > before and peak - start_memory > MEMORY:
            end, text = BAD["memory"], f"{peak - start_memory:,} bytes"
        elif len(file.read_bytes()) < 1 << 17:  # numpy itself inflates the bomb
            expected = by_numpy(file)
            if end == ERROR and expected is not None:
                end = ERROR_ALONE
            elif end == SAME:
                with h5py.File(out) as handle:
                    cells = handle["grids"][()]
                if expected is None:  # bytes before an archive, for one
                    end = UNHARMED if np.array_equal(labels(), cells) else BAD["more"]
                elif expected.size != cells.size or not np.array_equal(expected.reshape(cells.shape), cells):
                    end = BAD["other"]
        print(json.dumps([number, words, end, text[:300]]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
