"""The wheel holds exactly the package, and the sdist what a reader needs besides."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "cache", "vae", "cli", "benchmarks")
SHIPPED = (".py", ".cpp", ".c", ".jinja", ".css", ".js")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist, built from a copy that has no links, as on a file system without them."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "copy"
    (copy / "vaefit").mkdir(parents=True)
    for file in (ROOT / "vaefit").iterdir():
        if file.is_file():
            shutil.copy(file, copy / "vaefit")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    for name in (*ROOMS, "docs", "examples", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    # the backend itself, so that no network is needed
    build = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_wheel(to); b.build_sdist(to)"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=copy, check=True, capture_output=True)
    return folder


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [file.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("*") if file.suffix in SHIPPED]
    face = {f"vaefit/{file.name}" for file in (ROOT / "vaefit").iterdir() if file.is_file()}
    assert names == {f"vaefit/{file.as_posix()}" for file in files} | face
    assert {"vaefit/__init__.py", "vaefit/py.typed"} <= face


def test_the_sdist_has_docs_examples_and_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {"constraints.txt", "docs/guide.md", "docs/reconstructions.png", "examples/unet.py", "tests/conftest.py"}
    assert wanted <= names
    assert {f"{room}/__init__.py" for room in ROOMS} <= names
