"""`vaefit-cli doctor`: what it tells, and that a broken part is found."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch

import vaefit.vae.objective.objective
import vaefit.vae.runs.self_test
from vaefit.kernels import focal_loss_with_counts


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


def _wrong_gradient(logits, *arguments, **options):
    loss, counts = focal_loss_with_counts(logits, *arguments, **options)
    return loss + 1e-3 * logits.sum() - 1e-3 * logits.sum().detach(), counts


def _wrong_counts(*arguments, **options):
    loss, counts = focal_loss_with_counts(*arguments, **options)
    return loss, counts.T


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
