"""Plain PyTorch loop that overfits a batch: torch's Adam, softmax and gather, a loop over the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vaefit.vae import BetaVAE


def naive_focal_loss(logits: Tensor, targets: Tensor, weight: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the mean over cells of -w_t (1 - p_t)^gamma log p_t, written as the formula."""
    p = torch.softmax(logits, dim=1)
    pt = p.gather(1, targets.unsqueeze(1)).squeeze(1)
    return (-weight[targets] * (1 - pt) ** gamma * torch.log(pt + 1e-12)).mean()


@dataclass
class PlainLoop:
    """Plain loop on a model, a batch (B, H, W) and class weights (C,)."""

    model: BetaVAE
    targets: Tensor
    weight: Tensor
    lr: float = 2e-3
    beta: float = 0.0

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr)

    def step(self) -> tuple[float, float, dict[int, float]]:
        """Make one update; return loss, pixel accuracy and accuracy of each class in the batch, before the update."""
        classes = self.model.num_classes
        inputs = functional.one_hot(self.targets, classes).permute(0, 3, 1, 2).float()
        logits, mu, logvar = self.model(inputs)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        loss = naive_focal_loss(logits, self.targets, self.weight) + self.beta * kl
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

        predictions = logits.argmax(dim=1)
        accuracies = {}
        for c in range(classes):
            mask = self.targets == c
            if mask.any():
                accuracies[c] = (predictions[mask] == c).float().mean().item()
        pixel = (predictions == self.targets).float().mean().item()
        return loss.item(), pixel, accuracies
