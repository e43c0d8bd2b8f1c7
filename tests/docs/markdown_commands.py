"""Shell commands, Python blocks and links of the Markdown pages, and a folder in which they run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.ranks_of_a_job import run_job

ROOT = Path(__file__).parents[2]
PAGES = {
    page: (ROOT / page).read_text(encoding="utf-8")
    for page in ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
}
PROGRAMS = ("vaefit-cli ", "torchrun ", "python ", "echo ")


def sections(text: str) -> list[tuple[str, str]]:
    """Return the headings of a page, each with the text below it up to the next heading."""
    parts = re.split(r"^#+ (.*)$", re.sub(r"(?m)^(```.*\n(?:.*\n)*?```)$", _hide_comments, text), flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _hide_comments(block: re.Match[str]) -> str:
    """Indent the comment lines of a code block, so that they are no headings."""
    return re.sub(r"(?m)^#", " #", block[0])


def shell_commands(text: str) -> list[str]:
    """Return the commands of the `sh` blocks that start one of our programs, without their comments."""
    return [
        line.split("  #")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S)
        for line in block.splitlines()
        if line.startswith(PROGRAMS)
    ]


def python_blocks(text: str) -> list[str]:
    """Return the `python` blocks."""
    return re.findall(r"```python\n(.*?)```", text, flags=re.S)


def file_blocks(text: str) -> dict[str, str]:
    """Return the `python` blocks whose first line is a file's name, by that name."""
    named = {re.match(r"# (\w+\.py)\n", block): block for block in python_blocks(text)}
    return {match[1]: block for match, block in named.items() if match}


def links(text: str) -> list[str]:
    """Return the targets of links and pictures that stay on this site."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    return [target for target in re.findall(r"\]\(([^)]+)\)", prose) if "://" not in target]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def fill(folder: Path) -> Path:
    """Put the files that the commands name into a folder."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 10, (300, 8, 8), dtype=np.uint8)
    cells[:, 2:] = 0
    (folder / "arc").mkdir()
    for number in range(10):
        pairs = [{"input": a.tolist(), "output": b.tolist()} for a, b in cells[8 * number :][:8].reshape(4, 2, 8, 8)]
        (folder / "arc" / f"{number}.json").write_text(json.dumps({"train": pairs[:3], "test": pairs[3:]}))
    np.savez(folder / "grids.npz", grids=cells, names=np.arange(300))
    with h5py.File(folder / "grids.h5", "w") as file:
        file["grids"] = cells
    (folder / "shards").mkdir()
    for number in (2, 10):
        with h5py.File(folder / "shards" / f"train-{number}.h5", "w") as file:
            file["grids"] = cells[number:]
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Context manager: change the working folder, then restore it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(command: str, folder: Path, vaefit_cli: Callable[..., Any]) -> tuple[int, str, str]:
    """Run a command as it stands; return its exit code, stdout and stderr.

    `vaefit-cli` runs in this process, because its start takes longer than most commands (tests/cli/test_main.py tests
    it); the ranks of `torchrun` run in processes forked from this one; `python` is this interpreter.
    """
    program, *words = shlex.split(command)
    if program == "vaefit-cli":
        with inside(folder):
            outcome = vaefit_cli(*words)
        return outcome.code, outcome.out, outcome.err
    if program == "torchrun":
        ranks, command = int(words[words.index("--nproc-per-node") + 1]), words[words.index("vaefit.cli") + 1 :]
        with inside(folder):
            outcomes = run_job(ranks, *command)
        return max(one.code for one in outcomes), outcomes[0].out, "".join(one.err for one in outcomes)
    if program == "python" and words[0] == "train_vae.py":
        words[0] = str(ROOT / "train_vae.py")
    call = command if program == "echo" else [sys.executable, *words]
    done = subprocess.run(call, shell=program == "echo", cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def check(command: str, folder: Path, vaefit_cli: Callable[..., Any]) -> None:
    """Run a command and check its exit code and output."""
    code, out, err = run(command, folder, vaefit_cli)
    assert code in (0, 1), out + err
    assert "Traceback" not in err
    if "overfit" in command:  # whatever the verdict on this data, there is one
        assert re.search("MEMORISED|LEARNING|COLLAPSED", out)
    else:
        assert code == 0, out + err
        assert out or ">" in command


def run_block(block: str) -> None:
    """Run a Python block as a program."""
    exec(compile(block, "markdown", "exec"), {"__name__": "markdown"})
