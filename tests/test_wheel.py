"""The wheel holds what the tree holds, and nothing that would land beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "cache", "vae", "cli", "benchmarks")


def test_a_wheel_from_a_clean_copy_has_every_module_below_vaefit(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    # the backend itself, so that no network is needed
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert {name.split("/")[0] for name in names} == {"vaefit"}
    files = (file.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("*"))
    kinds = (".py", ".cpp", ".c", ".jinja", ".css", ".js")
    assert names == {f"vaefit/{file.as_posix()}" for file in files if file.suffix in kinds or file.name == "py.typed"}
