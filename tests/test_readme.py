"""The README's commands run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.S)
    for line in block.splitlines()
    if line.startswith(("vaefit-cli ", "python train_vae.py"))
]
ELSEWHERE = ["vaefit-cli bench kernels --compile-only"]
"""What takes minutes, and what another test runs as it stands: test_offline.py."""
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
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
    return folder


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 8
    assert len(SNIPPETS) >= 1
    assert set(ELSEWHERE) <= set(COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ELSEWHERE])
def test_a_command_runs(command: str, workplace: Path) -> None:
    words = shlex.split(command)
    if words[0] == "python":
        program = [sys.executable, str(Path(__file__).parents[1] / words[1])]
        words = words[1:]
    else:
        program = [sys.executable, "-m", "vaefit.cli"]
    done = subprocess.run([*program, *words[1:]], cwd=workplace, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    if "overfit" in command:  # whatever the verdict on this data, there is one
        assert re.search("MEMORISED|LEARNING|COLLAPSED", done.stdout)
    else:
        assert done.returncode == 0
        assert done.stdout


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    exec(compile(snippet, "README.md", "exec"), {})
