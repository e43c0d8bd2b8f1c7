"""The advice of each error, followed: the command then runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

MODEL = """
import torch
from torch import nn
from torch.nn.functional import interpolate, pad

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b = nn.Conv2d(num_classes, 8, 3, padding=1), nn.Conv2d(8, num_classes, 1)

    def forward(self, x):
        logits = self.b(self.a(x).relu())
        return RETURNED

class Colours(Net):
    def __init__(self, num_classes, colours):
        super().__init__(num_classes)

class Norm(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.cells = nn.Sequential(nn.Flatten(), nn.Linear(640, 8), nn.BatchNorm1d(8), nn.Linear(8, 640))

    def forward(self, x):
        return self.cells(x).view(x.shape)
"""
# what the model returns, the advice, and what it returns when the advice is followed; $ is the group of the advice
RETURNED = [
    ("logits.argmax(1)", "leave the argmax out", "logits"),
    ("logits.permute(0, 2, 3, 1)", r"(permute\(0, 3, 1, 2\)) what it returns", "logits.permute(0, 2, 3, 1).$"),
    ("logits.flatten(1)", r"by (view\([^)]*\))", "logits.flatten(1).$"),
    ("logits[:, :, ::4, ::4]", r"lacks upsampling\. Add it, or (interpolate\(logits, size=\(8, 8\)\))", "$"),
    ("interpolate(logits, size=(32, 32))", "upsamples too often", "logits"),
    ("logits[:, :, 1:-1, 1:-1]", "or (pad) what it returns", "$(logits[:, :, 1:-1, 1:-1], (1, 1, 1, 1))"),
    ("pad(logits, (1, 0, 0, 0))", "crop or pad what it returns", "pad(logits, (1, 0, 0, 0))[:, :, :, 1:]"),
    ("logits[:, :1]", r"Return 10 channels, one a class", "logits"),
    ("logits[:, :7]", r"Build it with 10 classes", "logits"),
    ("logits.detach()", "a detach", "logits"),
    ("(logits,) if self.training else {'x': logits}", "the same form in training and in evaluation", "logits"),
    ("self.missing(logits)", r"Mend it there\.", "logits"),
    ("logits if torch.is_grad_enabled() else logits.nothing", r"Mend it there\.", "logits"),
    ("[logits.tolist()]", r"Wrap it in a module whose forward .* returns logits", "logits"),
]
# options, the advice, the options that it replaces, and those that replace them
OPTIONS = [
    ("--model net.py:Nett", r"got (Net)\b|(Net), ", "--model", "--model net.py:Net"),
    (
        "--model net.py:Colours",
        r"It takes \(num_classes, (colours)\).*--model-arg key=value",
        "",
        "--model-arg colours=3",
    ),
    ("--model net.py:Net --model-arg hidden=3", r"It takes \(num_classes\)", "--model-arg", ""),
    ("--model net.py:Norm --batch-size 1", "take two grids or more", "--batch-size", "--batch-size 2"),
    ("--model net.py:Net --beta 1", "leave beta and free bits at 0", "--beta", "--beta 0"),
    ("--batch-size 4000", r"Pass --batch-size (\d+), or", "--batch-size", "--batch-size $"),
    ("--batch-size 210", r"or (--allow-duplicates)\.", "", "$"),
    ("--indices 3,3", r"or pass (--allow-duplicates)", "", "$"),
    ("--indices 3,4000", r"Use indices 0 to (\d+)", "--indices", "--indices 3,$"),
    ("--graph", r"pass (--no-graph)", "", "$"),
    ("--lr fast", "not a number, nor (auto)", "--lr", "--lr $"),
    ("--optimizer sgd", r"one of adam, (muon)", "--optimizer", "--optimizer $"),
    ("--out full", r"Pass (--overwrite), or", "", "$"),
    ("--out full", r"or another (--out)", "--out", "$ empty"),
]


@pytest.fixture
def run(vaefit_cli: Callable[..., Any], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `overfit` with options for two updates; a model that returns an expression is in net.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")

    def call(options: Sequence[str], returned: str = "logits") -> Any:
        (tmp_path / "net.py").write_text(MODEL.replace("RETURNED", returned))
        size = () if {"--batch-size", "--indices"} & set(options) else ("--batch-size", "8")
        return vaefit_cli("overfit", dataset, "--iterations", "2", *size, *options, "--json")

    return call


def advised(outcome: Any, advice: str) -> str:
    """Return the first group of the advice in the error of a command that failed, or nothing."""
    assert outcome.code in (2, 3), outcome.out
    error = outcome.json["error"]
    found = re.search(advice, f"{error['what']} got {error['got']} {error['do']}")
    assert found, error
    return next((group for group in found.groups() if group), "")


@pytest.mark.slow
@pytest.mark.parametrize(("returned", "advice", "followed"), RETURNED)
def test_a_model_that_is_changed_as_advised(run: Any, returned: str, advice: str, followed: str) -> None:
    options = ("--model", "net.py:Net", "--lr", "0.01")
    group = advised(run(options, returned), advice)
    outcome = run(options, followed.replace("$", group))
    assert outcome.code in (0, 1), outcome.out


@pytest.mark.slow
@pytest.mark.parametrize(("options", "advice", "replaced", "by"), OPTIONS)
def test_options_that_are_changed_as_advised(run: Any, options: str, advice: str, replaced: str, by: str) -> None:
    words = options.split()
    group = advised(run(words), advice)
    if replaced:
        place = words.index(replaced)
        del words[place : place + 2]
    outcome = run([*words, *by.replace("$", group).split()])
    assert outcome.code in (0, 1), outcome.out


@pytest.mark.slow
def test_the_rate_after_an_exception_of_the_model_that_values_are_not_finite(run: Any) -> None:
    limited = "logits if logits.abs().max() < 9 else self.fail(float('nan') * logits)"
    source = f"{limited}\n\n    def fail(self, x):\n        raise ValueError('nan')"
    words = ["--model", "net.py:Net", "--iterations", "60"]
    found = run([*words, "--lr", "3"], source).json
    assert found["verdict"] == "DIVERGED"
    assert "the model raised ValueError" in found["reason"]
    lower = re.search(r": try --lr (\S+)\.$", found["next"])
    assert lower
    assert run([*words, "--lr", lower[1]], source).json["verdict"] != "DIVERGED"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_before_the_first_update_is_no_matter_of_the_rate(run: Any) -> None:
    options = ("--model", "net.py:Net", "--lr", "0.01")
    found = run(options, "self.b(self.a(x / 0))").json
    assert found["verdict"] == "DIVERGED"
    assert found["next"].endswith("try --diagnose.")
    mended = run([*options, "--diagnose"], "self.b(self.a(x / 0))").json["diagnosis"]
    assert mended["where"] == "a"
