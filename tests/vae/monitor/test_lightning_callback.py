"""Tests of the monitor as a callback of Lightning."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

lightning = pytest.importorskip("lightning.pytorch")

from vaefit.kernels import confusion_counts  # noqa: E402
from vaefit.vae import CollapseCallback  # noqa: E402
from vaefit.vae.errors import RunError  # noqa: E402

# advice about workers, intervals of logging, and what lightning itself imports
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CLASSES = 3


class Network(lightning.LightningModule):
    """Network with the correct grid as output, and from step `broken` on class 0; `returns` names its results."""

    def __init__(self, returns, broken=10**6):
        super().__init__()
        self.scale, self.returns, self.broken = torch.nn.Parameter(torch.ones(())), returns, broken

    def training_step(self, batch, _):
        (targets,) = batch
        predictions = targets if self.global_step < self.broken else torch.zeros_like(targets)
        logits = self.scale * torch.nn.functional.one_hot(predictions, CLASSES).movedim(3, 1).float()
        parts = {
            "loss": logits.square().mean(),
            "counts": confusion_counts(logits.detach(), targets),
            "logits": logits,
            "predictions": predictions,
            "targets": targets,
            "name": "x",
        }
        return parts["loss"] if self.returns is None else {self.returns.get(k, k): parts[k] for k in self.returns}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def returning(*names, **renamed):
    return {"loss": "loss", **{name: name for name in names}, **renamed}


@pytest.fixture
def train(tmp_path):
    """Train for so many steps with a callback, from a checkpoint or not; gives the trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    grids = torch.randint(0, CLASSES, (2000, 4, 4), generator=torch.Generator().manual_seed(0))
    grids[:, 0] = 0

    def call(callback, network, steps, resume=None):
        trainer = lightning.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[callback], default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(network, DataLoader(TensorDataset(grids), batch_size=8), ckpt_path=resume)
        return trainer

    return call


@pytest.mark.parametrize("returns", ["counts", "logits targets", "predictions targets", "counts logits targets"])
def test_warnings_of_what_training_step_returns(train, returns):
    found = []
    callback = CollapseCallback(
        None if returns != "predictions targets" else CLASSES, on_warning=found.append, warmup=0, every=5
    )
    train(callback, Network(returning(*returns.split()), broken=80), 120)
    assert {(w.kind, w.label) for w in found} == {("class_died", 1), ("class_died", 2), ("collapsed", 0)}
    assert all(80 < w.step <= 100 for w in found)
    (collapse,) = (w for w in found if w.kind == "collapsed")
    assert (collapse.skill is None) == (returns == "counts")


def test_names_of_its_own(train):
    found = []
    network = Network(returning(counts="confusion"), broken=80)
    train(CollapseCallback(counts="confusion", on_warning=found.append), network, 120)
    assert found


def test_the_training_is_stopped_where_asked_for(train, caplog):
    with caplog.at_level(logging.WARNING, logger="vaefit"):
        trainer = train(CollapseCallback(stop=True), Network(returning("counts"), broken=80), 500)
    assert 80 < trainer.global_step <= 100
    assert "class 1 died" in caplog.text
    assert train(CollapseCallback(), Network(returning("counts"), broken=80), 120).global_step == 120


@pytest.mark.parametrize(
    ("returns", "got"),
    [
        (None, "loss: Tensor"),
        (returning("logits", "name"), "loss: Tensor, logits: Tensor, name: str"),
        (returning(counts="confusion"), "loss: Tensor, confusion: Tensor"),
    ],
)
def test_nothing_to_monitor(train, returns, got):
    with pytest.raises(RunError) as caught:
        train(CollapseCallback(), Network(returns), 3)
    error = caught.value
    assert error.what == "training_step returned nothing that CollapseCallback can monitor"
    assert (error.where, error.got) == ("Network.training_step", got)
    assert "Return a dict with `counts`, or with `logits` or `predictions` and `targets`" in error.do


def test_predictions_alone_do_not_give_the_classes(train):
    with pytest.raises(RunError, match=r"not known from predictions.*Pass num_classes to CollapseCallback"):
        train(CollapseCallback(), Network(returning("predictions", "targets")), 3)


def test_a_wrong_setting_is_an_error_at_once():
    with pytest.raises(ValueError, match="every: the value cannot be used"):
        CollapseCallback(every=0)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_a_checkpoint_takes_the_monitor_along(train, tmp_path, classes):
    file = tmp_path / "last.ckpt"
    train(CollapseCallback(classes), Network(returning("counts"), broken=80), 77).save_checkpoint(file)
    found = []
    callback = CollapseCallback(classes, on_warning=found.append)
    train(callback, Network(returning("counts"), broken=80), 100, resume=file)
    assert {(w.kind, w.label) for w in found} == {("class_died", 1), ("class_died", 2)}
    assert callback.monitor is not None
    assert callback.monitor.step == 100


def python(program, *arguments):
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


MISSING = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]))\n"


def test_without_lightning():
    done = python(
        MISSING + "from vaefit.vae import *\nfrom vaefit.vae import CollapseCallback", "lightning", "pytorch_lightning"
    )
    assert done.returncode == 1
    last = "ImportError: CollapseCallback needs PyTorch Lightning, which is not installed. Run: pip install lightning"
    assert done.stderr.splitlines()[-1] == last


def test_under_its_other_name():
    pytest.importorskip("pytorch_lightning")
    program = MISSING + "import pytorch_lightning as p; from vaefit.vae import CollapseCallback as c\n"
    program += "sys.exit(not issubclass(c, p.Callback))"
    for missing in ([], ["lightning"]):
        done = python(program, *missing)
        assert done.returncode == 0, done.stderr


def test_the_package_does_not_import_lightning():
    done = python("import sys, vaefit.vae as v; v.CollapseMonitor(3); sys.exit('lightning' in sys.modules)")
    assert done.returncode == 0, done.stderr
