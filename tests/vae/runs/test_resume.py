"""A run that was cut off anywhere goes on as if it had not been, or says why it cannot."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from dataclasses import replace
from functools import partialmethod

import h5py
import numpy as np
import pytest

from vaefit.cache.errors import VaefitError
from vaefit.vae.errors import RunError
from vaefit.vae.model.user_model import ModelSource
from vaefit.vae.monitor.collapse_monitor import CollapseMonitor
from vaefit.vae.run_folder.lock import locked
from vaefit.vae.runs.training_run import TrainWatcher, resume_training, run_training
from vaefit.vae.training import checkpoint as checkpoint_module
from vaefit.vae.training.settings import RECIPES, TrainSettings

RESULTS = ("metrics.csv", "steps.csv", "model.safetensors", "reconstructions.png")
SAMPLED = replace(RECIPES["default"], z="sample", beta=0.1)


class CutError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    cells = np.random.default_rng(4).integers(1, 6, (120, 6, 6), dtype=np.uint8)
    cells[np.random.default_rng(5).random(cells.shape) < 0.8] = 0
    file = tmp_path_factory.mktemp("data") / "grids.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=cells, chunks=(16, 6, 6), compression="gzip")
    return file


def settings(data, out, **changes):
    found = {"batch_size": 20, "latent_dim": 3, "threads": 1, "validate_every": 4, "recipe": SAMPLED}
    return TrainSettings(data, out=out, epochs=2, **{**found, "augment": "rotate,colours", **changes})


def same(stored):
    return stored


def cut_after(updates):
    """Hear a run until it has made so many updates, and end it there."""

    def update(training):
        if training.progress.step == updates:
            raise CutError

    return TrainWatcher(update=update)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """The results, byte for byte, of runs that were not cut off."""
    found = {}

    def of(**changes):
        key = str(sorted(changes.items()))
        if key not in found:
            folder = tmp_path_factory.mktemp("whole") / "run"
            run_training(settings(data, folder, **changes))
            found[key] = {name: (folder / name).read_bytes() for name in RESULTS}
        return found[key]

    return of


def assert_equal(folder, whole):
    for name in RESULTS:
        assert (folder / name).read_bytes() == whole[name], name


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("updates", [0, 1, 4, 6, 9, 10])
def test_a_run_cut_off_after_any_update_ends_the_same(data, tmp_path, uninterrupted, updates, seconds):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder, checkpoint_every=seconds), cut_after(updates))
    resume_training(folder, same)
    assert_equal(folder, uninterrupted())


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"loader": "stream", "window": 30}, {"precision": "bfloat16"}, {"patience": 1}])
def test_so_does_one_that_is_cut_off_again_and_again(data, tmp_path, uninterrupted, change):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder, checkpoint_every=0.0, **change), cut_after(2))
    for updates in (3, 5, 9):
        try:
            resume_training(folder, same, cut_after(updates))
        except CutError:
            continue
        break
    resume_training(folder, same)
    assert_equal(folder, uninterrupted(**change))


def test_a_run_that_has_ended_gives_its_result_again(data, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    first = run_training(settings(data, folder))
    (folder / "result.json").unlink()
    again = resume_training(folder, same)
    assert_equal(folder, uninterrupted())
    assert (again.history, again.confusion, again.best_step) == (first.history, first.confusion, first.best_step)
    assert (folder / "result.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("curves")
def test_the_curves_are_the_same_too(data, tmp_path):
    run_training(settings(data, tmp_path / "whole"))
    with pytest.raises(CutError):
        run_training(settings(data, tmp_path / "cut"), cut_after(6))
    resume_training(tmp_path / "cut", same)
    whole, cut = ((tmp_path / name / "curves.png").read_bytes() for name in ("whole", "cut"))
    assert len(whole) > 5000
    assert cut == whole


def test_a_torn_checkpoint_is_skipped_aloud_and_the_end_is_the_same(data, tmp_path, uninterrupted, said):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder, checkpoint_every=0.0), cut_after(7))
    newest = max((folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    resume_training(folder, same)
    assert f"{newest.name} is skipped" in said()
    assert_equal(folder, uninterrupted())


def test_a_run_without_a_checkpoint_begins_anew_aloud(data, tmp_path, uninterrupted, said):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(1))
    shutil.rmtree(folder / "checkpoints")
    resume_training(folder, same)
    assert "has no checkpoint yet" in said()
    assert_equal(folder, uninterrupted())


def test_a_disk_that_is_full_for_a_while_costs_nothing(data, tmp_path, uninterrupted, said, monkeypatch):
    written = checkpoint_module.write_atomically
    tries = []

    def write(path, content, durable=True):
        tries.append(path.name)
        if 3 <= len(tries) < 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, content, durable)

    monkeypatch.setattr(checkpoint_module, "write_atomically", write)
    folder = tmp_path / "run"
    run_training(settings(data, folder, checkpoint_every=0.0))
    assert "the checkpoint of update 2 cannot be written (No space left on device); that of update 1 is kept" in said()
    assert_equal(folder, uninterrupted())


def test_a_disk_that_is_full_stops_the_run_and_it_goes_on_later(data, tmp_path, uninterrupted, monkeypatch):
    from vaefit.vae.run_folder import folder as writing

    folder = tmp_path / "run"
    replacing = writing.write_atomically

    def full(path, content, durable=True):
        if path.name == "model.safetensors" and (folder / "steps.csv").read_text().count("\n") > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replacing(path, content, durable)

    monkeypatch.setattr(writing, "write_atomically", full)
    with pytest.raises(RunError) as caught:
        run_training(settings(data, folder, recipe=SAMPLED))
    assert f"vaefit-cli train --resume {folder}" in caught.value.do
    monkeypatch.undo()
    resume_training(folder, same)
    assert_equal(folder, uninterrupted())


def test_data_that_changed_are_named(data, tmp_path):
    mine = shutil.copy(data, tmp_path / "mine.h5")
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(mine, folder), cut_after(1))
    with h5py.File(mine, "r+") as handle:
        handle["grids"][3, 0, 0] = (handle["grids"][3, 0, 0] + 1) % 6
    with pytest.raises(RunError, match="the class counts changed since the run began"):
        resume_training(folder, same)
    with h5py.File(mine, "r+") as handle:  # the same counts, in other places
        handle["grids"][:] = h5py.File(data)["grids"][()][::-1]
    with pytest.raises(RunError, match="the digest changed since the run began"):
        resume_training(folder, same)


def test_data_that_were_moved_are_the_same_data(data, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(5))
    moved = shutil.copy(data, tmp_path / "moved.h5")
    resume_training(folder, lambda stored: replace(stored, data=moved))
    assert_equal(folder, uninterrupted())


def test_the_order_of_the_grids_does_not_depend_on_the_memory_that_is_free(data, tmp_path, uninterrupted, monkeypatch):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(5))
    monkeypatch.setattr("vaefit.vae.loader.loader.free_memory", lambda: 0)  # from now on `auto` would stream
    resume_training(folder, same)
    assert_equal(folder, uninterrupted())


def edited(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 99}, "the run is of another version of vaefit"),
        ({"kind": "overfit"}, "this is not the folder of a training run"),
        ({"settings": {}}, "the settings of the run cannot be read"),
        ({"recipe": {"gamma": -1}}, "the settings of the run cannot be read"),
        ({"dataset": None}, "the settings of the run cannot be read"),
        ({"split": {}}, "the split changed since the run began"),
        ({"weights": None}, "the settings of the run cannot be read"),
        ({"versions": 3}, "the settings of the run cannot be read"),
        ({"loader": "x"}, "the settings of the run cannot be read"),
        ({"weights": [1.0] * 6}, "the class weights changed since the run began"),
        ({"split": {"train": 1, "val": 1, "test": 0}}, "the split changed since the run began"),
    ],
)
def test_a_folder_that_is_not_of_this_run_is_refused(data, tmp_path, changes, said):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(1))
    edited(folder, **changes)
    with pytest.raises(VaefitError, match=said):
        resume_training(folder, same)


OWN = """
from torch import nn

class Own(nn.Module):
    def __init__(self, num_classes, hidden=6):
        super().__init__()
        self.first, self.norm = nn.Conv2d(num_classes, hidden, 3, padding=1), nn.BatchNorm2d(hidden)
        self.drop, self.last = nn.Dropout(0.3), nn.Conv2d(hidden, num_classes, 1)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x)).relu()))
"""


@pytest.fixture
def own(tmp_path):
    """Return the file of a model that draws in training and keeps running means."""
    (tmp_path / "own.py").write_text(OWN)
    return ModelSource(str(tmp_path / "own.py"), "Own", {})


def test_a_model_that_draws_and_keeps_means_goes_on(data, tmp_path, uninterrupted, own):
    whole = uninterrupted(model=own, latent_dim=None, recipe=RECIPES["default"])
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder, model=own, latent_dim=None, recipe=RECIPES["default"]), cut_after(5))
    resume_training(folder, same)
    assert_equal(folder, whole)


def test_a_model_that_was_changed_meanwhile_is_refused(data, tmp_path, own):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder, model=own, latent_dim=None, recipe=RECIPES["default"]), cut_after(5))
    (tmp_path / "own.py").write_text(OWN.replace("hidden=6", "hidden=7"))
    with pytest.raises(RunError, match="the checkpoint is not of the model") as caught:
        resume_training(folder, same)
    assert "first.weight of shape (6, 6, 3, 3), in the model (7, 6, 3, 3)" in caught.value.got


def test_how_long_nothing_got_better_is_not_forgotten(data, tmp_path):
    """Cut after the second of three validations that were no better."""
    still = {"recipe": replace(SAMPLED, lr=1e-12), "validate_every": 1, "patience": 3}
    first = run_training(settings(data, tmp_path / "whole", **still))
    assert (first.iterations, first.stopped) == (4, "macro accuracy was not better in 3 validations")
    with pytest.raises(CutError):
        run_training(settings(data, tmp_path / "run", **still), cut_after(3))
    again = resume_training(tmp_path / "run", same)
    assert (again.iterations, again.stopped) == (first.iterations, first.stopped)


def test_what_the_monitor_said_and_the_time_are_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(CollapseMonitor, "__init__", partialmethod(CollapseMonitor.__init__, every=2, warmup=2))
    monkeypatch.setattr("vaefit.vae.metrics.verdict.COLLAPSE_VARIATION", math.inf)
    still = {"recipe": replace(SAMPLED, lr=1e-12)}  # the output stays as poor as one picture
    first = run_training(settings(data, tmp_path / "whole", **still))
    assert len(first.warnings) == 1
    with pytest.raises(CutError):
        run_training(settings(data, tmp_path / "run", checkpoint_every=0.0, **still), cut_after(7))
    again = resume_training(tmp_path / "run", lambda stored: replace(stored, checkpoint_every=1e9))
    assert again.warnings == first.warnings
    assert again.seconds > 0


@pytest.mark.parametrize("content", [None, b"of another run"])
def test_the_best_weights_come_from_the_checkpoint(data, tmp_path, uninterrupted, content):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder, checkpoint_every=0.0), cut_after(10))
    (folder / "model.safetensors").unlink()
    if content is not None:
        (folder / "model.safetensors").write_bytes(content)
    resume_training(folder, same)
    assert_equal(folder, uninterrupted())


def test_checkpoints_that_were_removed_cost_no_result(data, tmp_path):
    folder = tmp_path / "run"
    run_training(settings(data, folder))
    shutil.rmtree(folder / "checkpoints")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(RunError, match="the checkpoints of the run are gone"):
        resume_training(folder, same)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_another_machine_is_told(data, tmp_path, said):
    folder = tmp_path / "run"
    run_training(settings(data, folder))
    edited(folder, device="cuda", versions={"torch": "1.0", "numpy": np.__version__})
    resume_training(folder, same)
    assert "the run began with device cuda, and this is cpu" in said()
    assert "the run began with torch 1.0" in said()
    assert "numpy" not in said()


def test_what_killed_writes_left_is_removed(data, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(1))
    left = [
        folder / ".model.0123abcd.tmp.safetensors",
        folder / "checkpoints" / ".step-000000007.89abcdef.tmp.safetensors",
    ]
    for file in left:
        file.write_bytes(b"half")
    resume_training(folder, same)
    assert [file for file in left if file.exists()] == []


def test_a_disk_without_locks_is_told(tmp_path, said, monkeypatch):
    import fcntl

    def none(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path):
        assert "cannot be locked (No locks available)" in said()
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_gone_are_refused(data, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(6))
    for name, change in (("metrics.csv", lambda file: file.write_text("step\n")), ("steps.csv", os.mkfifo)):
        file, moved = folder / name, folder / "moved"
        file.rename(moved)
        for replaced in (change, lambda file, to=moved: file.symlink_to(shutil.copy(to, tmp_path / "elsewhere"))):
            replaced(file)
            with pytest.raises(RunError, match="the file is gone, or shorter than at the checkpoint"):
                resume_training(folder, same)
            file.unlink()
        moved.rename(file)
    resume_training(folder, same)


def test_two_processes_do_not_train_in_one_folder(data, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(1))
    with locked(folder), pytest.raises(RunError, match="another process writes in this run folder"):
        resume_training(folder, same)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.numbers.pop("stale"), "does not hold the state of the run"),
        (lambda found: found.numbers.update(best=[1, 2]), "does not hold the state of the run"),
        (lambda found: found.numbers["row"].update(more=1), "does not hold the state of the run"),
        (lambda found: found.numbers.update(lengths={"metrics.csv": "5"}), "lacks the lengths of the files"),
        (lambda found: found.tensors.pop("monitor.rows"), "does not hold the state of the run"),
    ],
)
def test_a_checkpoint_without_the_state_of_the_run_is_refused(data, tmp_path, change, words):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(5))
    for file in checkpoint_module.CheckpointFolder.from_run(folder).files():
        found = checkpoint_module.Checkpoint.read(file)
        change(found)
        checkpoint_module.Checkpoint(found.step, found.tensors, found.numbers).write(file)
    with pytest.raises(RunError, match=words):
        resume_training(folder, same)


def test_rows_of_another_kind_are_refused(data, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CutError):
        run_training(settings(data, folder), cut_after(6))
    rows = (folder / "metrics.csv").read_bytes()
    (folder / "metrics.csv").write_bytes(rows.replace(b"step", b"stop", 1))
    with pytest.raises(RunError, match="does not hold the rows of the run"):
        resume_training(folder, same)
