"""Fit of the same batch by PyTorch Lightning's `overfit_batches=1` with torchmetrics, in its fastest settings.

    python -m vaefit.benchmarks.step.lightning_peer grids.h5 --steps 40

The network, the loss, the batch, the class weights, Adam's settings and the clipping are those of `vaefit-cli overfit
--recipe adam`; progress bar, logger, checkpoints and model summary are off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from vaefit.cache import class_weights, count_dataset
from vaefit.cache.location import Location
from vaefit.vae import RECIPES, BetaVAE, Recipe
from vaefit.vae.data.batch import choose_batch

from .plain_loop import naive_focal_loss


class LightningFit(lightning.LightningModule):
    """The network as a LightningModule, with accuracy per class and over all cells."""

    def __init__(self, model: BetaVAE, weight: Tensor, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.register_buffer("weight", weight)
        self.by_class = MulticlassAccuracy(num_classes=model.num_classes, average=None)
        self.pixel = MulticlassAccuracy(num_classes=model.num_classes, average="micro")

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the loss of one batch; update the metrics on its logits."""
        (targets,) = batch
        logits, _, _ = self.model(targets)
        assert isinstance(self.weight, Tensor)
        loss = naive_focal_loss(logits, targets, self.weight, self.recipe.gamma)
        predictions = logits.argmax(dim=1)
        self.by_class.update(predictions, targets)
        self.pixel.update(predictions, targets)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the metrics of the epoch, which is one step."""
        found = self.by_class.compute()
        self.log_dict({f"class_{c}": value for c, value in enumerate(found)})
        self.log("pixel", self.pixel.compute())
        self.by_class.reset()
        self.pixel.reset()

    def configure_optimizers(self) -> Any:
        """Return Adam with the recipe's schedule."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.recipe.rate, betas=self.recipe.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: self.recipe.lr_at(t) / self.recipe.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _StepTimes(Callback):
    """Callback that records the CPU time of the process at the end of each step."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_train_epoch_end(self, *_: Any) -> None:
        self.ticks.append(time.process_time())


def fit(model: BetaVAE, targets: Tensor, weight: Tensor, recipe: Recipe, steps: int) -> list[float]:
    """Make `steps` updates and return the CPU seconds of each but the first."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    times = _StepTimes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about workers and logging intervals
        trainer = lightning.Trainer(
            overfit_batches=1,
            max_epochs=steps,
            accelerator="cpu",
            gradient_clip_val=recipe.clip,
            callbacks=[times],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(LightningFit(model, weight, recipe), DataLoader(TensorDataset(targets), batch_size=len(targets)))
    return [after - before for before, after in itertools.pairwise(times.ticks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="file.h5 or file.h5:/dataset")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    dataset = count_dataset(arguments.data)
    batch = choose_batch(Location.parse(arguments.data), dataset.counts)
    _, height, width = dataset.shape
    torch.manual_seed(0)
    model = BetaVAE(dataset.classes, height, width)
    weight = torch.tensor(class_weights(dataset.counts), dtype=torch.float32)
    seconds = fit(model, torch.from_numpy(batch.grids), weight, RECIPES["adam"], arguments.steps)
    print(json.dumps({"steps": arguments.steps, "cpu_seconds": time.process_time(), "cpu_seconds_a_step": seconds}))


if __name__ == "__main__":
    main()
