"""Tests of the monitor: output that does not depend on the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaefit.kernels import confusion_counts
from vaefit.vae import CollapseMonitor
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.monitor.warnings import Collapsed

GRIDS = torch.from_numpy(synthesise(SyntheticSpec(grids=4096, height=8, width=8)).astype(np.int64))


def batch(seed, number=48):
    return GRIDS[torch.randperm(len(GRIDS), generator=torch.Generator().manual_seed(seed))[:number]]


def answer(monitor, predictions, targets):
    counts = confusion_counts(predictions, targets, num_classes=10)
    return monitor.update(counts, predictions, targets)


def test_one_picture_for_all_inputs():
    picture = batch(9)[:1]
    monitor, found = CollapseMonitor(num_classes=10, warmup=100), []
    for step in range(1, 301):
        targets = batch(step)
        found += answer(monitor, targets if step <= 150 else picture.expand_as(targets), targets)
    collapses = [w for w in found if isinstance(w, Collapsed)]
    (warning,) = collapses
    assert (warning.kind, warning.label, warning.share) == ("collapsed", None, None)
    assert 150 < warning.step <= 170
    assert warning.skill <= 0.05
    assert warning.variation == 0
    assert f"one picture for all inputs (pixel accuracy {warning.accuracy:.3f}, skill" in str(warning)


def test_different_pictures_are_no_collapse_however_wrong():
    monitor = CollapseMonitor(num_classes=10, warmup=0, patience=1000)
    assert not any(answer(monitor, batch(1000 + step), batch(step)) for step in range(50))


def test_nothing_is_said_of_a_plateau_at_the_start():
    monitor, found = CollapseMonitor(num_classes=10, warmup=200, patience=1000), []
    for step in range(1, 301):
        targets = batch(step)
        found += answer(monitor, torch.zeros_like(targets), targets)
    assert [(w.kind, w.step, w.label) for w in found] == [("collapsed", 200, 0)]
    assert "class 0 nearly everywhere" in str(found[0])
    assert "100.0 % of the predictions" in str(found[0])


def test_one_class_everywhere_is_detected_from_counts_alone_and_again_after_it_was_over():
    held = torch.tensor([9000, 500, 500])
    collapsed, learned = torch.zeros(3, 3, dtype=torch.int64), torch.diag(held)
    collapsed[:, 0] = held
    monitor = CollapseMonitor(num_classes=3, warmup=0, patience=1000)
    found = []
    for counts in (collapsed, learned, collapsed):
        for _ in range(20):
            found += monitor.update(counts)
    assert [(w.kind, w.step, w.label, w.skill) for w in found] == [("collapsed", s, 0, None) for s in (20, 60)]


def test_a_class_that_covers_the_targets_as_well_is_no_collapse():
    monitor = CollapseMonitor(num_classes=2, warmup=0)
    assert not any(monitor.update(torch.tensor([[995, 0], [5, 0]])) for _ in range(100))


@pytest.mark.parametrize("number", [1, 2, 3, 8, 33, 100])
def test_a_network_that_answers_well_has_not_collapsed(number):
    monitor = CollapseMonitor(num_classes=10, warmup=0, every=1)
    for step in range(20):
        targets = batch(step, number)
        predictions = torch.where(torch.rand(targets.shape) < 0.02, torch.randint(0, 10, targets.shape), targets)
        assert answer(monitor, predictions, targets) == ()


def test_ignored_cells_do_not_count():
    """The output depends on the input only in ignored cells."""
    monitor = CollapseMonitor(num_classes=10, warmup=0, ignore_index=-1, every=1)
    found = []
    for step in range(4):
        targets = batch(step)
        predictions = targets.clone()
        predictions[:, 1:] = 0
        targets[:, 0] = -1
        counts = confusion_counts(predictions, targets, ignore_index=-1, num_classes=10)
        found += monitor.update(counts, predictions, targets)
    assert [(w.kind, w.label) for w in found] == [("collapsed", 0)]
    nothing = torch.full((4, 8, 8), -1)
    assert monitor.update(torch.zeros(10, 10, dtype=torch.int64), torch.zeros_like(nothing), nothing) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_checked_like_predictions(dtype):
    found = []
    for as_logits in (False, True):
        monitor = CollapseMonitor(num_classes=10, warmup=0, every=2)
        for step in range(6):
            targets = batch(step)
            predictions = batch(100)[:1].expand_as(targets)
            output = torch.nn.functional.one_hot(predictions, 10).movedim(3, 1).to(dtype) if as_logits else predictions
            found += monitor.update(confusion_counts(predictions, targets, num_classes=10), output, targets.int())
    assert len(found) == 2
    assert found[0] == found[1]


def test_cells_without_a_class_count_nowhere():
    targets = torch.randint(0, 4, (4, 6, 6))
    targets[:, 0] = -100
    monitor = CollapseMonitor(4, every=1)
    logits = torch.randn(4, 4, 6, 6)
    assert monitor.update(confusion_counts(logits, targets), logits, targets) == ()
