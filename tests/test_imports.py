"""The rooms import downwards only, and no files or folders import each other in a circle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")
ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on a copy of the package; it follows no links."""
    call = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package as it is installed: folders in the place of links."""
    shutil.copytree(ROOT / "vaefit", tmp_path / "vaefit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_of_pyproject_is_kept(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/checks.py", "import vaefit.vae.recipe"),  # upwards
        ("cache/errors.py", "import torch"),
        ("cache/errors.py", "import vaefit.cache.store.counts_file"),  # a circle of two
        ("vae/recipe.py", "import vaefit.vae.overfitting"),
    ],
)
def test_a_wrong_import_is_found(copy: Path, file: str, line: str) -> None:
    with (copy / "vaefit" / file).open("a") as source:
        source.write(f"\n{line}\n")
    assert lint(copy).returncode == 1
