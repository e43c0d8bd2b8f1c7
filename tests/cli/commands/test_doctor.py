"""`vaefit-cli doctor`: what it tells, and that a broken part is found."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import version

import pytest
import torch

import vaefit.vae.objective.objective
import vaefit.vae.runs.self_test
from vaefit.kernels import choose_backend, focal_loss_with_counts
from vaefit.kernels.cpu import compiled


def test_a_healthy_machine(vaefit_cli, user_cache):
    outcome = vaefit_cli("doctor", "--json")
    found = outcome.json
    assert outcome.code == 0
    assert found["passed"]
    assert all(trial["passed"] for trial in found["trials"])
    assert found["versions"]["torch"] == version("torch")
    assert found["cache_folder"].startswith(str(user_cache))
    assert found["cache_problem"] is None
    assert found["backend"] == (
        "eager (tensors are on cuda)" if torch.cuda.is_available() else "eager (tensors are on cpu)"
    )


def test_for_people(vaefit_cli):
    outcome = vaefit_cli("doctor", "--backend", "reference", "--device", "cpu", "--quiet")
    assert outcome.code == 0
    assert "reference (asked for)" in outcome.out
    assert "all is well" in outcome.out
    assert outcome.err == ""


@pytest.fixture
def built_nowhere(user_folder, monkeypatch):
    """A cache folder without libraries; afterwards this process forgets what `auto` found in it."""
    if compiled.obstacle() is not None or sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("needs a C and a C++ compiler")
    compiled.enabled.cache_clear()
    yield user_folder / "vaefit" / "native"
    monkeypatch.undo()
    compiled.enabled.cache_clear()


@pytest.mark.slow
def test_build_lets_auto_take_the_compiled_kernel(vaefit_cli, dataset, built_nowhere, tmp_path):
    assert vaefit_cli("doctor", "--device", "cpu", "--json").json["backend"] == "eager (tensors are on cpu)"
    assert not built_nowhere.exists()
    first = vaefit_cli("doctor", "--device", "cpu", "--build")
    assert first.code == 0, first.err
    for name in ("focal loss, float32", "focal loss, float64", "focal loss, bfloat16", "byte counter"):
        assert re.search(rf"^{name} +built in \d+\.\d s: {re.escape(str(built_nowhere))}/", first.out, re.MULTILINE)
    assert re.search(
        r"^focal loss  compiled \(tensors are on cpu; built by vaefit-cli doctor --build\)$", first.out, re.M
    )

    again = vaefit_cli("doctor", "--device", "cpu", "--build", "--json").json
    assert again["passed"]
    assert [library["seconds"] for library in again["built"]] == [None] * 4
    assert sorted(library["file"] for library in again["built"]) == sorted(map(str, built_nowhere.glob("*.so")))

    out = tmp_path / "run"
    run = vaefit_cli("overfit", dataset, "--device", "cpu", "--batch-size", "4", "--out", out, "--json")
    assert run.code == 0, run.err
    assert run.json["backend"] == "compiled"
    choice = "compiled (tensors are on cpu; built by vaefit-cli doctor --build)"
    assert choice in (out / "config.json").read_text(encoding="utf-8")
    eager = vaefit_cli("overfit", dataset, "--backend", "eager", "--batch-size", "4", "--device", "cpu", "--json")
    assert eager.json["backend"] == "eager"

    next(built_nowhere.glob("focal-*.so")).parent.chmod(0o777)
    compiled.enabled.cache_clear()
    assert vaefit_cli("doctor", "--device", "cpu", "--json").json["backend"] == "eager (tensors are on cpu)"


def test_a_build_for_one_run_changes_no_later_one(vaefit_cli, built_nowhere):
    logits, targets = torch.zeros(2, 3), torch.tensor([0, 1])
    compiled.load.cache_clear()
    focal_loss_with_counts(logits, targets, backend="compiled")
    assert len(list(built_nowhere.glob("*.so"))) == 1
    assert choose_backend("auto", logits).name == "eager"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "wording"),
    [("CXX", "CXX is 'nosuch', which is no program on the PATH"), ("CC", "'nosuch' is no program on the PATH")],
)
def test_build_without_a_compiler_is_one_sentence(vaefit_cli, built_nowhere, monkeypatch, variable, wording):
    monkeypatch.setenv(variable, "nosuch")
    outcome = vaefit_cli("doctor", "--build")
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert wording in outcome.err


def test_build_without_a_cache_folder_is_refused(vaefit_cli, built_nowhere, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    outcome = vaefit_cli("doctor", "--build")
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert "the built library cannot be kept: " in outcome.err
    assert "Not a directory" in outcome.err


def _wrong_gradient(logits, *arguments, **options):
    loss, counts = focal_loss_with_counts(logits, *arguments, **options)
    return loss + 1e-3 * logits.sum() - 1e-3 * logits.sum().detach(), counts


def _wrong_counts(*arguments, **options):
    loss, counts = focal_loss_with_counts(*arguments, **options)
    return loss, counts.T


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "part"), [(_wrong_gradient, "focal loss and gradient"), (_wrong_counts, "confusion counts")]
)
def test_a_broken_kernel_is_found(vaefit_cli, monkeypatch, broken, part):
    monkeypatch.setattr(vaefit.vae.objective.objective, "focal_loss_with_counts", broken)
    outcome = vaefit_cli("doctor", "--json")
    assert outcome.code == 1
    failed = {trial["name"]: trial["detail"] for trial in outcome.json["trials"] if not trial["passed"]}
    assert list(failed) == [part, "memorising 4 grids"]
    assert "float64 reference" in failed["memorising 4 grids"]
    assert "the self-test failed" in vaefit_cli("doctor").out


def test_a_part_that_raises_is_reported(vaefit_cli, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such library")

    monkeypatch.setattr(vaefit.vae.runs.self_test, "class_counts", broken)
    found = vaefit_cli("doctor", "--json").json
    assert [t["detail"] for t in found["trials"] if not t["passed"]] == ["RuntimeError: no such library"]


def test_a_cache_folder_that_cannot_be_written(vaefit_cli, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = vaefit_cli("doctor", "--json").json
    assert found["cache_problem"] == "Not a directory"
    assert found["passed"]


@pytest.mark.parametrize(
    ("arguments", "code", "wording"),
    [
        (("--backend", "magic"), 2, "one of auto, triton, compiled, eager, reference"),
        (("--device", "tpu"), 2, "one of auto, cpu, cuda"),
        (("--backend", "triton", "--device", "cpu"), 3, "tensors are on cpu"),
    ],
)
def test_what_cannot_be_examined(vaefit_cli, arguments, code, wording):
    outcome = vaefit_cli("doctor", *arguments)
    assert outcome.code == code
    assert wording in outcome.err
