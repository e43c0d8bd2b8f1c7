"""Tests of compiling for GPUs that are not here, in other processes: in this one, kernels are interpreted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "gfx1100")

SCRIPT = """
import dataclasses, json, sys
from vaefit.benchmarks.kernels import cross_compile
{change}
print(json.dumps([dataclasses.asdict(found) for found in cross_compile.compile_all(tuple(sys.argv[1:]))]))
"""


def environment():
    """Return this process's environment without the variable that makes Triton interpret kernels."""
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def compiled(*targets, change=""):
    """Return the result of `compile_all` in a new process, after the code `change`."""
    call = [sys.executable, "-c", SCRIPT.format(change=change), *targets]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def everything():
    """Result for every kernel and target, as the command compiles them."""
    call = [sys.executable, "-m", "vaefit.cli", "bench", "kernels", "--compile-only", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_passes(everything, target):
    found = [row for row in everything if row["target"] == target]
    assert [(row["kernel"], row["problem"]) for row in found if row["problem"]] == []
    assert len(found) == 21
    for row in found:
        assert 0 < row["registers"] <= 168
        assert row["wide_loads"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        # sixteen cells a thread: their logits do not fit
        ("block = {'BLOCK': 2048}", "stack"),
        # nothing is known to be aligned
        (
            "cross_compile.specialise = lambda launch, real=cross_compile.specialise: (*real(launch)[:2], {})",
            "narrower",
        ),
    ],
)
def test_a_broken_kernel_does_not_pass(change, problem):
    one = """
block = {}
CHANGE
launch = cross_compile._focal(10)
launch = dataclasses.replace(launch, constants={**launch.constants, **block})
cross_compile.cases = lambda: [cross_compile.Case("broken", launch, 10)]
"""
    (found,) = compiled("sm_90", change=one.replace("CHANGE", change))
    assert problem in found["problem"]


def test_nothing_is_compiled_under_the_interpreter(monkeypatch):
    from vaefit.benchmarks.kernels import cross_compile

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        cross_compile.compile_all(("sm_90",))
