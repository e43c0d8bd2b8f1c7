"""The cases build, the diagnosis names their causes, and the counts of right causes are correct."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from tests.diagnosis_cases import __main__ as command
from tests.diagnosis_cases.case import Case
from tests.diagnosis_cases.cases import DATA, FAILING, PASSING
from tests.diagnosis_cases.outcome import Outcome, diagnose, good_enough, plain
from vaefit.vae.metrics.diagnosis import Cause

RUNS = (*FAILING, *PASSING)
RIGHT = Outcome("a", "learning rate", "lr", "COLLAPSED", "learning rate", None, "e", "--lr 0.002", 150, 300, 1.0, 2.0)
PASSING_RUN = replace(RIGHT, known=None, where=None, verdict="MEMORISED", named=None, control_updates=0)


def by_name(name):
    return next(run for run in RUNS if run.name == name)


def test_there_are_enough_of_each_kind():
    causes = [case.cause for case in FAILING]
    assert len(FAILING) >= 18
    assert set(causes) == set(get_args(Cause)) - {"unknown"}
    assert len(PASSING) == 20
    assert {run.name.partition(", ")[0] for run in PASSING} == {"BetaVAE", "transformer", "U-Net", "dense"}
    assert len(DATA) == 4


def test_names_are_unique():
    assert len({run.name for run in RUNS}) == len(RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_it_builds_the_same_each_time(run):
    for build in (run.build, run.fixed) if isinstance(run, Case) else (run.build,):
        one, two = build(), build()
        assert one.model is not two.model
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
        assert np.array_equal(one.batch, two.batch)
        assert one.recipe == two.recipe
        logits = one.model(torch.from_numpy(one.batch))
        logits = logits if isinstance(logits, torch.Tensor) else logits[0]
        targets = one.batch if one.targets is None else one.targets
        assert (logits.shape[0], *logits.shape[2:]) == targets.shape == one.batch.shape
        assert targets.max() < logits.shape[1]
        assert one.weights is None or one.weights.shape == (logits.shape[1],)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8 steps", "transformer, 8 steps"])
def test_a_case_fails_and_its_fix_memorises(name):
    case = by_name(name)
    assert not plain(case.build).passed
    assert plain(case.fixed).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "8 steps",
        "coordinate network without the grid's code",
        "latent averaged over the batch",
        "mean drowned in noise",
        "argmax in the latent",
        "rounded latent",
        "foreign network with beta 30",
        "gradients clipped to 1e-9 under Adam",
        "every parameter normal, std 1e-4",
        "weights divided twice by the number of cells",
        "two hidden units",
        "blank inputs",
    ],
)
def test_the_cause_is_named(name):
    """Quick cases of each cause; `python -m tests.diagnosis_cases` runs them all."""
    outcome = diagnose(by_name(name))
    assert outcome.named == outcome.known
    assert outcome.right


def test_a_passing_run_memorises():
    assert plain(by_name("transformer, 8 x 8, 2 classes").build).passed


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"named": "initialisation"}, False),
        ({"named": None}, False),
        ({"verdict": "MEMORISED"}, False),
    ],
)
def test_an_outcome_is_right_where_the_known_cause_is_named(change, right):
    assert replace(RIGHT, **change).right is right


@pytest.mark.parametrize(
    ("change", "right"),
    [({}, True), ({"named": "unknown"}, False), ({"verdict": "LEARNING"}, False)],
)
def test_a_passing_outcome_is_right_where_no_cause_is_named(change, right):
    assert replace(PASSING_RUN, **change).right is right


def test_twelve_of_fourteen_are_enough_and_no_passing_run_may_have_a_cause():
    wrong = replace(RIGHT, named="unknown")
    assert good_enough([RIGHT] * 12 + [wrong] * 2 + [PASSING_RUN])
    assert not good_enough([RIGHT] * 11 + [wrong] * 3 + [PASSING_RUN])
    assert not good_enough([RIGHT] * 14 + [replace(PASSING_RUN, named="unknown")])


@pytest.mark.slow
def test_the_command_prints_a_row_a_case_and_writes_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "diagnose", lambda case: replace(RIGHT, name=case.name, known=case.cause))
    assert command.main(["--only", "rate 0.5", "--json", str(tmp_path / "failing.json")]) == 0
    found = json.loads((tmp_path / "failing.json").read_text())
    assert (found["passed"], found["failing"], found["right"], found["passing"]) == (True, 1, 1, 0)
    assert found["runs"][0]["times"] == 2.0
    out = capsys.readouterr().out
    assert "rate 0.5" in out
    assert "causes named  1/1" in out
    assert command.main(["--only", "8 steps"]) == 1


def test_the_command_shows_that_the_cause_is_the_cause(capsys):
    assert command.main(["--fixes", "--only", "transformer, 8 steps"]) == 0
    assert "MEMORISED" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--only", "no such thing"], ["--fixes", "--passing"]])
def test_the_command_refuses_what_it_cannot_do(options):
    with pytest.raises(SystemExit) as stopped:
        command.main(options)
    assert stopped.value.code == 2
