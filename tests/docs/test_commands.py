"""Tests that run every command and Python block of README and docs, and follow every link."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown_commands import (
    PAGES,
    ROOT,
    anchors,
    check,
    file_blocks,
    fill,
    links,
    python_blocks,
    run_block,
    sections,
    shell_commands,
)

ELSEWHERE = "bench kernels --compile-only"
"""tests/benchmarks/kernels/test_cross_compile.py runs it; it takes minutes."""
LONG = re.compile(r"bench |sweep |--diagnose|classic|torchrun|python |--tensorboard|train grids|overfit$")
"""Commands that take seconds."""


def cases() -> list[Any]:
    """Return (page, heading, commands) of each section with commands; a section with a long command is slow."""
    found = []
    for page, text in PAGES.items():
        for heading, below in sections(text):
            commands = [command for command in shell_commands(below) if ELSEWHERE not in command]
            slow = [pytest.mark.slow] if any(LONG.search(command) for command in commands) else []
            if commands:
                found.append(pytest.param(page, commands, id=f"{page}: {heading}", marks=slow))
    return found


CASES = cases()
BLOCKS = [block for text in PAGES.values() for block in python_blocks(text)]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with every file that the pages name or show."""
    folder = fill(tmp_path)
    for text in PAGES.values():
        for name, block in file_blocks(text).items():
            (folder / name).write_text(block)
    return folder


def test_the_pages_have_commands_and_blocks_and_the_readme_leads_to_them() -> None:
    assert set(PAGES) == {"README.md", "docs/guide.md", "docs/method.md", "docs/reference.md"}
    assert set(PAGES) - {"README.md"} <= set(links(PAGES["README.md"]))
    assert sum(len(case.values[1]) for case in CASES) >= 40
    assert len(BLOCKS) >= 5
    assert len(PAGES["README.md"].splitlines()) <= 200


@pytest.mark.parametrize(("page", "commands"), CASES)
def test_the_commands_of_a_section_run(
    page: str, commands: list[str], workplace: Path, vaefit_cli: Callable[..., Any]
) -> None:
    for command in commands:
        check(command, workplace, vaefit_cli)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.partition("\n")[0])
def test_a_block_runs(block: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    run_block(block)
    for name in file_blocks(block):
        sys.modules.pop(Path(name).stem, None)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in links(PAGES[page]):
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target
