"""The network under test: a convolutional variational autoencoder of label maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 128
MU_LIMIT = 5.0
LOGVAR_RANGE = (-20.0, 2.0)


class BetaVAE(nn.Module):
    """Variational autoencoder: three convolutions, a latent vector, two transposed convolutions and one convolution.

    It takes grids of any height and width: sides that 4 does not divide are padded inside and the logits cropped. With
    16 x 16 cells, 10 classes and latent 32 it has 801,034 parameters.
    """

    def __init__(
        self,
        num_classes: int,
        height: int,
        width: int,
        latent_dim: int = 32,
        widths: tuple[int, int, int] = (32, 64, 128),
    ) -> None:
        super().__init__()
        self.num_classes, self.height, self.width, self.latent_dim = num_classes, height, width, latent_dim
        a, b, c = widths
        # two strides of 2 in the encoder, two in the decoder
        self._code = (c, -(-height // 4), -(-width // 4))
        flat = c * self._code[1] * self._code[2]
        self.encoder = nn.Sequential(
            nn.Conv2d(num_classes, a, 3, padding=1), nn.ReLU(),
            nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(b, c, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, HIDDEN), nn.ReLU(),
        )  # fmt: skip
        self.mu = nn.Linear(HIDDEN, latent_dim)
        self.logvar = nn.Linear(HIDDEN, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, flat), nn.ReLU(),
            nn.Unflatten(1, self._code),
            nn.ConvTranspose2d(c, b, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(b, a, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(a, num_classes, 3, padding=1),
        )  # fmt: skip

    def one_hot(self, grids: Tensor) -> Tensor:
        """Return labels (B, H, W), any integer dtype, as (B, C, H, W) floats; a label outside 0..C-1 becomes zeros."""
        weight = self.mu.weight
        classes = torch.arange(self.num_classes, device=grids.device).view(1, -1, 1, 1)
        return (grids.to(torch.int64).unsqueeze(1) == classes).to(weight.dtype)

    def encode(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, latent) of the posterior; `grids` as for `forward`.

        Raises ValueError for grids of another shape.
        """
        x = grids if grids.is_floating_point() else self.one_hot(grids)
        if x.shape[1:] != (self.num_classes, self.height, self.width):
            raise ValueError(
                f"grids have shape {tuple(grids.shape)}, but this model takes labels (B, {self.height}, {self.width}) "
                f"or their one-hot form (B, {self.num_classes}, {self.height}, {self.width})."
            )
        right, bottom = -self.width % 4, -self.height % 4
        if right or bottom:
            x = nn.functional.pad(x, (0, right, 0, bottom))
        hidden = self.encoder(x)
        return self.mu(hidden).clamp(-MU_LIMIT, MU_LIMIT), self.logvar(hidden).clamp(*LOGVAR_RANGE)

    def decode(self, z: Tensor) -> Tensor:
        """Return the logits (B, C, H, W) of latent vectors (B, latent)."""
        logits: Tensor = self.decoder(z)
        return logits[:, :, : self.height, : self.width]

    def forward(self, grids: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (logits, mu, logvar) with z = mu, or z = mu + sigma * noise where noise (B, latent) is given.

        `grids` is (B, H, W) labels in an integer dtype, or their one-hot form (B, C, H, W) in floats.
        """
        mu, logvar = self.encode(grids)
        z = mu if noise is None else mu + torch.exp(0.5 * logvar) * noise
        return self.decode(z), mu, logvar

    def reconstruct(self, grids: Tensor) -> Tensor:
        """Return the logits (B, C, H, W) with z = mu; `grids` as for `forward`."""
        logits, _, _ = self.forward(grids)
        return logits
