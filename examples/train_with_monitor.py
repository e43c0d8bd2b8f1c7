"""Monitor of a plain training loop: one class loses its weight midway, and the monitor warns that the class died.

    python examples/train_with_monitor.py

A small BetaVAE learns synthetic grids; after 280 steps the class weight of class 2 is set to 0, as with a wrong index
or a stale weights file. The mean loss falls, and nearly every cell stays right.
"""

from __future__ import annotations

import numpy as np
import torch

from vaefit.cache import class_weights
from vaefit.kernels import focal_loss_with_counts
from vaefit.vae import BetaVAE, CollapseMonitor
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise

CLASSES, SIDE, BATCH, STEPS, MISHAP, LOST = 4, 8, 32, 330, 280, 2


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grids = torch.from_numpy(synthesise(SyntheticSpec(4096, SIDE, SIDE, CLASSES)).astype(np.int64))
    weight = torch.tensor(class_weights(torch.bincount(grids.flatten()).numpy()), dtype=torch.float32)
    model = BetaVAE(CLASSES, SIDE, SIDE)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    monitor = CollapseMonitor(num_classes=CLASSES, on_warning=lambda warning: print(f"WARNING {warning}"))

    for step in range(1, STEPS + 1):
        if step == MISHAP:
            weight[LOST] = 0
            print(f"step {step}: the weight of class {LOST} is 0 from now on")
        batch = grids[torch.randint(len(grids), (BATCH,))]
        logits, _, _ = model(batch)
        loss, counts = focal_loss_with_counts(logits, batch, weight, gamma=2.0, reduction="batch")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.update(counts, logits, batch, loss=loss)
        if step % 30 == 0:
            recall = ", ".join(f"{share:.2f}" for share in (counts.diagonal() / counts.sum(1).clamp(min=1)).tolist())
            print(f"step {step}: loss {loss.item():.3f}, recall by class {recall}")


if __name__ == "__main__":
    main()
