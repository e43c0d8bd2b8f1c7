"""Run folders, weights files and cached files damaged at random: each command that reads one ends with one plain error.

Bytes, values of JSON and headers of tensors change, and files become pipes, devices and links. A run may also go on
where the damage does not tell; a traceback, a hang, and memory without a bound are bad.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from tests.fault_injection.commands import Ended, Started
from tests.fault_injection.rivals import CHECK, TRAIN, cut_off
from tests.fault_injection.tally import Tally
from vaefit.vae.training.checkpoint import Checkpoint

MEMORY = 2 << 30
"""Bytes of address space of a command beside what the imports take."""
WALL_S = 120.0
Rng = np.random.Generator

SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to /dev/zero": lambda file: file.symlink_to("/dev/zero"),
    "a link out": lambda file: file.symlink_to(shutil.copy("/etc/hostname", file.parents[1] / "outside")),
    "a folder": Path.mkdir,
    "a terabyte of zeros": lambda file: (file.touch(), os.truncate(file, 1 << 40)),
    "absent": lambda file: None,
    "a loop": lambda file: file.symlink_to(file.name),
}
TOKENS = (
    "NaN", "-Infinity", "1e999", '"\\ud800"', '"\\u001b[2J\\n"', '"a\\u0000b"', "9" * 30, "9" * 5000, "null", "true",
    "[" * 3000 + "]" * 3000, "-1", "0", "1.5", "1e300", "2147483648", "9223372036854775807", '""', "[]", "{}", "[[]]",
    "[0]", "[null]", '{"a": 1}', '"../../etc"', '"/dev/zero"', '"' + "x" * 100_000 + '"',
)  # fmt: skip
"""JSON that takes the place of a value."""
_MARK = '"@"'


def mutants(count: int, seed: int, only: int | None = None) -> Tally:
    """Run so many commands, each on a damaged file of its own."""
    tally = Tally("mutants", f"{count} damaged files of runs, weights and caches, seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        scene = _Scene(Path(folder))
        for number in range(count) if only is None else [only]:
            words, ended = scene.mutant(number, np.random.default_rng([seed, number, 13]))
            fault = ended.fault
            end = fault or {0: "passed", 1: "failed", 2: "wrong command line"}.get(ended.code or 0, "one error")
            tally.add(
                end,
                bool(fault),
                f"{number}: {words}: {ended.last}" if fault or ended.code == 2 or only is not None else "",
            )
            for name, value in (("most seconds", ended.seconds), ("most MiB", ended.peak / 2**20)):
                tally.figures[name] = round(max(tally.figures.get(name, 0.0), value), 1)
    return tally.done()


class _Scene:
    """Whole files of each kind, and the commands that read them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data.h5"
        os.environ["XDG_CACHE_HOME"] = str(folder / "home")
        with h5py.File(self.data, "w") as handle:
            handle["grids"] = np.random.default_rng(3).integers(0, 4, (64, 6, 6), dtype=np.uint8)
        check, run = str(folder / "check"), str(folder / "run")
        lines = [["overfit", str(self.data), *CHECK, "--out", check], ["train", str(self.data), *TRAIN, "--out", run]]
        self.whole = ["w.json", "w.npy", "w.safetensors"]
        lines += [["weights", str(self.data), "--export", str(folder / name)] for name in self.whole]
        for line in lines:
            ended = self.run(line)
            if ended.code not in (0, 1):
                raise RuntimeError(f"{line} failed: {ended.err}")
        cut = folder / "cut"
        line = ["train", str(self.data), *TRAIN, "--checkpoint-every", "0", "--out", str(cut)]
        cut_off(Started(line, folder), cut)
        for name in ("check", "run", "cut"):
            self.whole += [str(file.relative_to(folder)) for file in (folder / name).rglob("*")]
        self.whole = [name for name in self.whole if name.endswith((".json", ".csv", ".npy", ".safetensors"))]
        self.whole += ["data.h5.vaefit.json"]

    def run(self, line: list[str]) -> Ended:
        """Run a command under the limits."""
        return Started([*line, "--quiet"], self.folder, int(WALL_S), MEMORY).ended(WALL_S)

    def mutant(self, number: int, rng: Rng) -> tuple[str, Ended]:
        """Damage one file, run one command that reads it, and return in words what was done, and the end."""
        name = self.whole[number % len(self.whole)]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            place = Path(folder)
            top = name.split("/")[0]
            if (self.folder / top).is_dir():
                shutil.copytree(self.folder / top, place / top)
            else:
                for file in (name, "data.h5"):
                    shutil.copy2(self.folder / file, place / file)
            words = _damage(place / name, rng)
            line = self._line(place, top, rng)
            return f"{name} {words}, {' '.join(line[:1] + line[2:])}"[:400], self.run(line)

    def _line(self, place: Path, top: str, rng: Rng) -> list[str]:
        run, out, data = str(place / top), ["--out", str(place / "out")], str(place / "data.h5")
        if top.startswith("w."):
            lines = [["overfit", str(self.data), *CHECK, *out, "--weights-file", run]]
        elif top.endswith(".json"):
            lines = [["weights", data], ["weights", data, "--json"]]
        else:
            whole = str(self.folder / top)
            lines = [["show", run], ["show", run, "--json"], ["compare", run, whole], ["compare", whole, run, "--json"]]
            lines += [["evaluate", run, *out], ["sample", run, "--count", "4"]]
            lines += [["overfit", "--from", run, "--iterations", "1", *out]]
            if top == "cut":
                lines = [["train", "--resume", run], lines[0], lines[-1]]
            elif top == "run":
                lines += [["evaluate", run, "--checkpoint", "last", *out], ["train", "--resume", run]]
        return lines[int(rng.integers(len(lines)))]


def _damage(file: Path, rng: Rng) -> str:
    """Damage a file in place; return in words how."""
    way = rng.random()
    if way < 0.1:
        name = list(SPECIAL)[int(rng.integers(len(SPECIAL)))]
        file.unlink()
        SPECIAL[name](file)
        return f"is {name}"
    if way < 0.4:
        file.write_bytes(_bytes(file.read_bytes(), rng))
        return "has other bytes"
    if file.suffix == ".safetensors":
        return _tensors(file, rng)
    if file.suffix == ".json":
        text, words = _json(json.loads(file.read_bytes()), rng)
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        return words
    rows = file.read_bytes().split(b"\n")
    at = int(rng.integers(len(rows)))
    rows[at : at + 1] = [rows[at]] * int(rng.integers(3)) or [b",".join(rows[at].split(b",")[1:])]
    file.write_bytes(b"\n".join(rows))
    return f"has another row {at}"


def _bytes(data: bytes, rng: Rng) -> bytes:
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    piece = [b"", bytes(length), rng.bytes(length), data[:length] * 2, b"\xff\xfe", b"9" * length]
    return data[:at] + piece[int(rng.integers(len(piece)))] + (data[at + length :] if rng.random() < 0.8 else b"")


def _json(body: Any, rng: Rng) -> tuple[str, str]:
    """Return the text of an object in which one value, at any depth, is another or is gone; and words."""
    path: list[Any] = []
    place = body
    while isinstance(place, (dict, list)) and place and (not path or rng.random() < 0.7):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        path.append(keys[int(rng.integers(len(keys)))])
        outer, place = place, place[path[-1]]
    if not path:
        return TOKENS[0], "is NaN"
    where = ".".join(map(str, path))
    if rng.random() < 0.2:
        del outer[path[-1]]
        return json.dumps(body), f"lacks {where}"
    token = TOKENS[int(rng.integers(len(TOKENS)))]
    outer[path[-1]] = "@"
    return json.dumps(body).replace(_MARK, token, 1), f"has {token[:20]} at {where}"


def _tensors(file: Path, rng: Rng) -> str:
    """Change the header of a safetensors file, or a checkpoint as one that is whole."""
    data = file.read_bytes()
    if file.parent.name == "checkpoints" and rng.random() < 0.7:
        found = Checkpoint.read(file)
        names = sorted(found.tensors)
        name = names[int(rng.integers(len(names)))]
        if rng.random() < 0.5:
            try:
                text, words = _json(json.loads(json.dumps(found.numbers)), rng)
                numbers = json.loads(text)
            except (ValueError, RecursionError):
                numbers, words = {}, "has no numbers"
            replace(found, numbers=numbers if isinstance(numbers, dict) else {}).write(file)
            return f"{words}, its digest right"
        other = found.tensors.pop(name)
        if rng.random() < 0.7:
            others = [other[..., :-1] if other.ndim else other.reshape(1), other.double(), torch.full_like(other, -1)]
            found.tensors[name] = others[int(rng.integers(3))]
        found.write(file)
        return f"has another tensor {name}, its digest right"
    length = int.from_bytes(data[:8], "little")
    text, words = _json(json.loads(data[8 : 8 + length]), rng)
    header = text.encode(errors="surrogatepass")
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    return f"{words} in its header"
