"""Tests of the monitor: classes that die or are not learned, losses that are not finite, no warning from noise.

Collapse is in test_output_collapse.py.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vaefit.benchmarks import monitor as benchmark
from vaefit.cache.errors import SettingError
from vaefit.vae import CollapseMonitor
from vaefit.vae.monitor.warnings import ClassDied, ClassNotLearned, NonFiniteLoss


class Training:
    """Counts of a network that paints whole objects rightly or not, with a recall of its own for each class."""

    def __init__(self, seed, objects, recall, batch=32, drift=0.0):
        self.rng = np.random.default_rng(seed)
        self.objects, self.recall, self.batch = np.array(objects), np.array(recall, dtype=float), batch
        self.drift = drift

    def step(self):
        """(C, C) counts of one step; class 0 takes what is wrong. `objects` is how many a grid holds of each class."""
        rng, classes = self.rng, len(self.recall)
        counts = np.zeros((classes, classes), dtype=np.int64)
        self.recall[self.recall > 0] = np.clip(
            self.recall[self.recall > 0] + rng.normal(0, self.drift, (self.recall > 0).sum()), 0.1, 0.95
        )
        for c, number in enumerate(rng.poisson(self.batch * self.objects)):
            sizes, p = rng.integers(2, 16, number), self.recall[c]
            # cells of one object mostly go together
            chance = rng.beta(0.6 * p, 0.6 * (1 - p), number) if p > 0 else np.zeros(number)
            right = int(rng.binomial(sizes, chance).sum())
            counts[c, c] += right
            counts[c, 0 if c else 1] += sizes.sum() - right
        return torch.from_numpy(counts)


def watch(monitor, training, steps):
    return [warning for _ in range(steps) for warning in monitor.update(training.step())]


@pytest.mark.parametrize("seed", range(20))
def test_a_death_is_found_within_20_steps(seed):
    rng = np.random.default_rng(seed)
    training = Training(seed, [10, 0.3, 0.2, 0.1], [0.95, *rng.uniform(0.2, 0.95, 3)])
    monitor = CollapseMonitor(num_classes=4)
    steps = 60 + seed % 10
    assert watch(monitor, training, steps) == []
    before, training.recall[1] = training.recall[1], 0.0
    (warning,) = watch(monitor, training, 20)
    assert isinstance(warning, ClassDied)
    assert (warning.kind, warning.label, warning.recall <= 0.02) == ("class_died", 1, True)
    assert steps < warning.step <= steps + 20
    assert 0.7 * before < warning.before < before + 0.1, "the steps before may hold some after the death"
    assert f"step {warning.step}: class 1 died: its recall was {warning.before:.2f}" in str(warning)
    assert "checkpoint" in str(warning)
    assert watch(monitor, training, 200) == [], "it was said before"


def test_a_class_that_dies_again_is_said_again():
    training = Training(0, [10, 0.3], [0.9, 0.6])
    monitor = CollapseMonitor(num_classes=2)
    for _ in range(2):
        training.recall[1] = 0.6
        assert watch(monitor, training, 200) == []
        training.recall[1] = 0.0
        assert [w.kind for w in watch(monitor, training, 40)] == ["class_died"]


def test_a_class_that_comes_and_goes_has_not_died():
    training = Training(0, [10, 0.3], [0.9, 0.6])
    monitor, found = CollapseMonitor(num_classes=2), []
    for number in range(1200):
        training.recall[1] = 0.6 if number // 15 % 2 == 0 else 0.0
        found += monitor.update(training.step())
    assert found == []
    training.recall[1] = 0.0
    assert [w.kind for w in watch(monitor, training, 200)] == ["class_died"]


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_death(seed):
    """Classes from many cells in each step to a few in hundreds; batches from 2 grids to 128; recalls that wander."""
    rng = np.random.default_rng(seed)
    batch = int(rng.choice([2, 8, 32, 128]))
    training = Training(seed, 10 ** rng.uniform(-3.5, 0, 10), rng.uniform(0.12, 0.95, 10), batch, drift=0.01)
    assert watch(CollapseMonitor(num_classes=10), training, 1000) == []


@pytest.mark.parametrize("objects", [0.0, 1e-4])
def test_a_class_that_the_targets_stop_holding_has_not_died(objects):
    training = Training(0, [10, 0.5], [0.9, 0.9])
    monitor = CollapseMonitor(num_classes=2)
    watch(monitor, training, 200)
    training.objects[1], training.recall[1] = objects, 0.0
    assert watch(monitor, training, 600) == []


def test_an_object_in_every_colour_in_turn_is_no_death():
    """Predictions of a network at its start: every object in one class, then in another."""
    monitor, found = CollapseMonitor(num_classes=4), []
    for number in range(240):
        painted = 1 + number // 60 % 3
        counts = torch.zeros(4, 4, dtype=torch.int64)
        counts[0, 0], counts[1:, painted] = 3000, 100
        found += monitor.update(counts)
    assert found == []


def test_a_class_that_fades_away_slowly_is_found():
    training = Training(0, [10, 0.3], [0.9, 0.6])
    monitor, found = CollapseMonitor(num_classes=2), []
    for number in range(600):
        training.recall[1] = max(0.6 - number / 500, 0.0)
        found += monitor.update(training.step())
    assert [(w.kind, w.label) for w in found] == [("class_died", 1)]
    assert 300 <= found[0].step <= 400


def test_a_class_that_is_not_learned_is_said_once():
    training = Training(0, [10, 0.3, 0.3], [0.9, 0.6, 0.0])
    monitor = CollapseMonitor(num_classes=3, patience=100)
    assert watch(monitor, training, 99) == []
    (warning,) = watch(monitor, training, 400)
    assert isinstance(warning, ClassNotLearned)
    assert (warning.kind, warning.step, warning.label, warning.right) == ("class_not_learned", 100, 2, 0)
    assert warning.steps == 100
    assert f"of its {warning.cells:,} cells in the last 100 steps, 0 were predicted rightly" in str(warning)
    training.recall[2] = 0.6
    assert watch(monitor, training, 20) == []
    training.recall[2] = 0.0
    assert [w.kind for w in watch(monitor, training, 200)] == ["class_not_learned"]


def test_a_class_that_was_hardly_ever_there_need_not_be_learned():
    training = Training(0, [10, 3e-4], [0.9, 0.0])
    assert watch(CollapseMonitor(num_classes=2, patience=100), training, 500) == []


def test_a_loss_that_is_not_finite():
    training = Training(0, [10, 0.3], [0.9, 0.6])
    monitor = CollapseMonitor(num_classes=2)
    found = []
    for step in range(1, 81):
        loss = float("inf") if step in (13, 14, 25, 47) else 0.5
        found += monitor.update(training.step(), loss=torch.tensor(loss) if step % 2 else loss)
    assert [(w.kind, w.step, w.first) for w in found] == [("non_finite", 20, 13), ("non_finite", 50, 47)]
    assert isinstance(found[0], NonFiniteLoss)
    assert math.isinf(found[0].loss)
    assert "step 20: the loss has been inf since step 13" in str(found[0])


def test_warnings_go_to_the_logger_unless_they_are_taken(caplog):
    taken = []
    collapsed = torch.tensor([[900, 0], [100, 0]])
    with caplog.at_level(logging.WARNING, logger="vaefit"):
        for on_warning in (None, taken.append):
            monitor = CollapseMonitor(num_classes=2, warmup=0, on_warning=on_warning)
            found = [w for _ in range(40) for w in monitor.update(collapsed)]
            assert len(found) == 1
    assert taken == found
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [("vaefit", "WARNING", str(found[0]))]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].step = 1


@pytest.mark.parametrize("at", [1, 95, 100, 107, 215])
def test_a_resumed_run_goes_on_identically(at):
    def steps():
        training, rng = Training(3, [10, 0.3, 0.2, 0.1], [0.9, 0.8, 0.7, 0.0]), np.random.default_rng(1)
        for step in range(400):
            training.recall[1] = 0.8 if step < 105 or 170 < step < 300 else 0.0
            targets = torch.from_numpy(rng.integers(0, 4, (8, 4, 4)))
            yield training.step(), targets * (step % 200 < 100), targets, float("nan") if rng.random() < 0.01 else 1.0

    def monitor():
        return CollapseMonitor(num_classes=4, warmup=0, patience=150)

    def update(monitor, counts, predictions, targets, loss):
        return monitor.update(counts, predictions, targets, loss=loss)

    through, stopped, expected, found = monitor(), monitor(), [], []
    for number, step in enumerate(steps()):
        expected += update(through, *step)
        if number == at:
            file = io.BytesIO()
            torch.save(stopped.state_dict(), file)
            stopped = monitor()
            stopped.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        found += update(stopped, *step)
    assert list(map(str, found)) == list(map(str, expected))
    assert {w.kind for w in found} == {"class_died", "class_not_learned", "collapsed", "non_finite"}


def test_a_state_is_not_changed_by_what_follows():
    training = Training(0, [10, 0.3], [0.9, 0.6])
    monitor = CollapseMonitor(num_classes=2)
    watch(monitor, training, 15)
    state = monitor.state_dict()
    before = {name: value.clone() for name, value in state.items() if isinstance(value, torch.Tensor)}
    other = CollapseMonitor(num_classes=2)
    other.load_state_dict(state)
    for each in (monitor, other):
        watch(each, training, 30)
    assert all(torch.equal(value, state[name]) for name, value in before.items())


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_between_checks():
    monitor, counts, loss = CollapseMonitor(num_classes=2), torch.ones(2, 2, dtype=torch.int64), torch.tensor(1.0)
    logits, targets = torch.zeros(4, 2, 3, 3), torch.zeros(4, 3, 3, dtype=torch.int64)
    for step in range(1, 31):
        with Operators() as seen:
            monitor.update(counts, logits, targets, loss=loss)
        if step % 10:
            assert seen.names <= {"select", "copy_", "detach", "view", "reshape", "_unsafe_view"}


def test_counts_may_be_written_over_after_the_call():
    training, counts = Training(0, [10, 0.3], [0.9, 0.6]), torch.zeros(2, 2, dtype=torch.int64)
    monitor, found = CollapseMonitor(num_classes=2), []
    for step in range(100):
        training.recall[1] = 0.6 if step < 60 else 0.0
        counts.copy_(training.step())
        found += monitor.update(counts)
    assert [w.kind for w in found] == ["class_died"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_counts_on_a_gpu_and_a_state_from_there():
    training = Training(0, [10, 0.3], [0.95, 0.6])
    monitor, found, fresh = CollapseMonitor(num_classes=2), [], True
    logits, targets = torch.randn(4, 2, 3, 3, device="cuda"), torch.zeros(4, 3, 3, dtype=torch.int64, device="cuda")
    for step in range(100):
        training.recall[1] = 0.6 if step < 60 else 0.0
        counts, loss = training.step().cuda(), logits.mean()
        # a check waits for the device, and so does the first step, which moves the monitor there
        torch.cuda.set_sync_debug_mode("default" if fresh or monitor.step % 10 == 9 else "error")
        try:
            found += monitor.update(counts, logits, targets, loss=loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        fresh = step == 55
        if fresh:
            state, monitor = monitor.state_dict(), CollapseMonitor(num_classes=2)
            assert not any(value.is_cuda for value in state.values() if isinstance(value, torch.Tensor))
            monitor.load_state_dict(state)
    assert [(w.kind, w.label) for w in found] == [("class_died", 1)]


def test_what_it_costs_is_measured(tmp_path, monkeypatch, capsys):
    out = tmp_path / "monitor.json"
    monkeypatch.setattr(
        "sys.argv", ["monitor", "--batch-size", "4", "--every", "2", "--rounds", "2", "--out", str(out)]
    )
    assert benchmark.main() in (0, 1), "how much it is of so small a step is not for this test"
    found = json.loads(out.read_text())
    assert found["share"] == found["monitor"][1] / found["step"][1] > 0
    assert "the monitor's calls" in capsys.readouterr().out


COUNTS, TARGETS = torch.zeros(10, 10, dtype=torch.int64), torch.zeros(4, 3, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "wording"),
    [
        (
            lambda: CollapseMonitor(1),
            "num_classes: the value cannot be used (got 1). Use a whole number from 2 to",
        ),
        (lambda: CollapseMonitor(10, every=0), "every: the value cannot be used (got 0)"),
        (
            lambda: CollapseMonitor(10).update(COUNTS[:9]),
            "counts: the counts do not fit the classes (got shape (9, 10)). Pass confusion counts (10, 10).",
        ),
        (
            lambda: CollapseMonitor(10).update(COUNTS, torch.zeros(4, 9, 3, 3), TARGETS),
            (
                "update: the output and the targets do not fit together (got output (4, 9, 3, 3), targets (4, 3, 3)). "
                "Pass logits (B, 10, H, W) or integer predictions (B, H, W), with targets (B, H, W)."
            ),
        ),
        (lambda: CollapseMonitor(10).update(COUNTS, TARGETS), "(got output (4, 3, 3), targets None)"),
        (lambda: CollapseMonitor(10).update(COUNTS, TARGETS.float(), TARGETS), "do not fit together"),
        (lambda: CollapseMonitor(10).update(COUNTS, loss=torch.ones(2)), "loss: the value cannot be used (got shape"),
        (
            lambda: CollapseMonitor(10).load_state_dict(CollapseMonitor(9).state_dict()),
            "num_classes: the value cannot be used (got 10). Use 9, as in the run that is resumed.",
        ),
        (
            lambda: CollapseMonitor(10).load_state_dict(CollapseMonitor(10, every=5).state_dict()),
            "every: the value cannot be used (got 10). Use 5, as in the run that is resumed.",
        ),
    ],
)
def test_wording_of_what_a_caller_gets_wrong(call, wording):
    with pytest.raises(SettingError) as caught:
        call()
    assert wording in str(caught.value)
