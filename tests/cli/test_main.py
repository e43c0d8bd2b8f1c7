"""Help, version and cached answers come without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

HEAVY = ("torch", "triton", "h5py", "numpy", "matplotlib")

# the last line that it prints names what was imported
SCRIPT = """
import sys
from vaefit.cli import run
code = run(sys.argv[1:])
print(code, *sorted(name for name in sys.modules if "." not in name))
"""


def start(*arguments):
    """Run a command in a new process; return its output, exit code and imported top-level modules."""
    call = [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    *shown, last = done.stdout.splitlines()
    code, *modules = last.split()
    assert "vaefit" in modules
    return "\n".join(shown), int(code), set(modules)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--help", "overfit"),
        ("overfit --help", "--batch-size"),
        ("weights --help", "--rebuild"),
        ("data --help", "synth"),
        ("data synth --help", "--grids"),
        ("data import arc --help", "--max-side"),
        ("data import npz --help", "--key"),
        ("sweep --help", "--vary"),
        ("show --help", "run folder"),
        ("compare --help", "run folder"),
        ("doctor --help", "--backend"),
        ("bench --help", "kernels"),
        ("bench kernels --help", "--compile-only"),
        ("bench histogram --help", "--layout"),
        ("bench step --help", "--rounds"),
        ("--version", version("vaefit")),
    ],
)
def test_help_and_version_import_nothing_heavy(arguments, word):
    shown, code, modules = start(*arguments.split())
    assert code == 0
    assert word in shown
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("option", ["--json", "--all-schemes"])
def test_cached_weights_do_not_wait_for_torch(vaefit_cli, dataset, option):
    assert vaefit_cli("weights", dataset, "--json").json["source"] == "scan"
    shown, code, modules = start("weights", dataset, option)
    assert code == 0
    assert "cache" in shown
    assert modules.isdisjoint({"torch", "triton", "matplotlib"})


@pytest.mark.slow
def test_a_check_does_not_wait_for_the_compiler(dataset, tmp_path):
    _, code, modules = start("overfit", dataset, "--iterations", "2", "--out", tmp_path / "run")
    assert code == 1
    assert "torch" in modules
    assert "torch._dynamo" not in modules


def test_help_lists_the_exit_codes(vaefit_cli):
    shown = vaefit_cli("--help").out
    for code in ("0", "1", "2", "3", "130"):
        assert f" {code} " in shown


def test_no_command_prints_the_help(vaefit_cli):
    bare = vaefit_cli()
    assert (bare.code, bare.err) == (0, "")
    assert bare.out == vaefit_cli("--help").out


@pytest.mark.parametrize("command", ["", "overfit", "sweep", "data", "data import npz", "bench kernels"])
def test_the_short_name_of_help(vaefit_cli, command):
    short = vaefit_cli(*command.split(), "-h")
    assert (short.code, short.err) == (0, "")
    assert short.out == vaefit_cli(*command.split(), "--help").out
    assert "-h, --help" in short.out
