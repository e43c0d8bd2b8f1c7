"""The README's commands run as they stand there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown_commands import ROOT, check, fill, python_blocks, run_block, shell_commands

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = shell_commands(README)
ELSEWHERE = ["vaefit-cli bench kernels --compile-only"]
"""What takes minutes, and what another test runs as it stands: test_offline.py."""
SNIPPETS = python_blocks(README)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name."""
    return fill(tmp_path_factory.mktemp("readme"))


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 8
    assert len(SNIPPETS) >= 1
    assert set(ELSEWHERE) <= set(COMMANDS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `bench histogram` measure its memory on less than a GB."""
    monkeypatch.setattr("vaefit.benchmarks.counting.bench.SIZES", (2 << 20, 4 << 20, 6 << 20))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ELSEWHERE])
def test_a_command_runs(command: str, workplace: Path, vaefit_cli: Callable[..., Any]) -> None:
    check(command, workplace, vaefit_cli)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    run_block(snippet)
