"""Fixtures of all tests: a cache folder of their own, a small dataset, and the command line in this process."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import ArrayLike, NDArray

from vaefit.cli import run

# grids this small gain nothing from a second thread, and lose much on a busy machine; torch reads it when imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

# helpers of tests assert too, under `python -O` as well
pytest.register_assert_rewrite("tests.kernels._triton.triton_case", "tests.vae.report.page.parsed_page")

# without a GPU, Triton's kernels run in Python; which of the two is decided when they are imported, by this variable
if find_spec("triton") and not import_module("torch").cuda.is_available():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import_module("vaefit.kernels._triton")

no_triton = import_module("vaefit.kernels.backend").no_usable_triton()  # it imports triton
collect_ignore = ["kernels/_triton", "benchmarks/kernels/test_cross_compile.py"] if no_triton else []

# the same examples everywhere: a failure in CI is a failure here; machines differ in speed
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object or list on stdout; fails where there is anything else, or a number that is not JSON."""

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        found = json.loads(self.out, parse_constant=refuse)
        assert isinstance(found, (dict, list))
        return found


@pytest.fixture(autouse=True)
def seeded_torch() -> None:
    """Seed torch's global generator, so that a model without a seed of its own does not depend on the test order."""
    import_module("torch").manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that is not the user's; one for all tests, so that the embedded corpus is made once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("user_cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("FORCE_COLOR", raising=False)
        yield folder


CURVES = ("draw_curves", "draw_training_curves")


@pytest.fixture(scope="session", autouse=True)
def undrawn() -> Iterator[dict[str, Callable[..., None]]]:
    """Let curves.png be an empty file: matplotlib takes longer than most runs of these tests. Gives what draws it."""
    with pytest.MonkeyPatch.context() as patch:
        curves = import_module("vaefit.vae.report.curves")
        found = {f"vaefit.vae.report.curves.{name}": getattr(curves, name) for name in CURVES}
        for name in found:
            patch.setattr(name, lambda _, out: out.touch())
        yield found


@pytest.fixture
def curves(undrawn: dict[str, Callable[..., None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the curves, for a test that looks at them."""
    for name, draw in undrawn.items():
        monkeypatch.setattr(name, draw)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder for one test, not made yet."""
    folder = tmp_path / "user_cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Gives all warnings so far."""
    with caplog.at_level(logging.WARNING, logger="vaefit"):
        yield lambda: " ".join(r.getMessage() for r in caplog.records if r.name.startswith("vaefit"))


@pytest.fixture(scope="session")
def vaefit_cli() -> Callable[..., Outcome]:
    """Run `vaefit-cli` with the arguments given, in this process."""

    def call(*arguments: str | Path) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([str(argument) for argument in arguments])
        logging.getLogger("vaefit").propagate = True  # a command is a process of its own, but in tests
        return Outcome(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def grids() -> NDArray[np.uint8]:
    """200 different grids of 8 x 8 cells, classes 0..9, about 90 % zeros."""
    rng = np.random.default_rng(20)
    cells = rng.integers(1, 10, (200, 8, 8), dtype=np.uint8)
    cells[rng.random(cells.shape) < 0.9] = 0
    return cells


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Write arrays, by name, to a new HDF5 file and return its path."""

    def write(file: Path, **datasets: ArrayLike) -> Path:
        with h5py.File(file, "w") as handle:
            for name, values in datasets.items():
                handle[name] = values
        return file

    return write


@pytest.fixture
def dataset(tmp_path: Path, grids: NDArray[np.uint8], write_dataset: Callable[..., Path]) -> Path:
    """`grids` as an HDF5 file that nothing was counted of yet."""
    return write_dataset(tmp_path / "grids.h5", grids=grids)
