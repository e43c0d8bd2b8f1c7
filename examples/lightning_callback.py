"""Monitor of a PyTorch Lightning training: a callback that stops it at the first warning.

    pip install lightning
    python examples/lightning_callback.py

`training_step` returns the counts beside the loss, and the logits and targets too, so that the callback sees whether
the output still depends on the input. After 180 steps the decoder breaks: it returns the same picture for every grid,
without the rare classes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vaefit.cache import class_weights
from vaefit.kernels import focal_loss_with_counts
from vaefit.vae import BetaVAE, CollapseCallback
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise

CLASSES, SIDE, BATCH, STEPS, MISHAP = 4, 8, 32, 240, 180


class Autoencoder(LightningModule):
    """A BetaVAE under focal loss."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.model = BetaVAE(CLASSES, SIDE, SIDE)

    def training_step(self, batch: list[Tensor], _: int) -> dict[str, Tensor]:
        """Return the loss and what the callback monitors."""
        (targets,) = batch
        logits, _, _ = self.model(targets)
        if self.global_step >= MISHAP:
            logits = logits.mean(dim=0, keepdim=True).expand_as(logits).contiguous()
        loss, counts = focal_loss_with_counts(logits, targets, self.weight, gamma=2.0, reduction="batch")
        return {"loss": loss, "counts": counts, "logits": logits.detach(), "targets": targets}

    def configure_optimizers(self) -> Any:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main() -> None:
    warnings.simplefilter("ignore")  # Lightning's advice about workers and logging
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grids = torch.from_numpy(synthesise(SyntheticSpec(4096, SIDE, SIDE, CLASSES)).astype(np.int64))
    weight = torch.tensor(class_weights(torch.bincount(grids.flatten()).numpy()), dtype=torch.float32)
    callback = CollapseCallback(warmup=150, stop=True, on_warning=lambda warning: print(f"WARNING {warning}"))
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Autoencoder(weight), DataLoader(TensorDataset(grids), batch_size=BATCH, shuffle=True))
    print(f"stopped after {trainer.global_step} of {STEPS} steps")


if __name__ == "__main__":
    main()
