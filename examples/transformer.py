"""A small vision transformer autoencoder of label maps, with one latent vector a grid.

It shares no layer with vaefit's own network: labels and positions are embedded, patches are tokens, and the decoder
sees `latent_dim` numbers of each grid. To check it on your grids:

    vaefit-cli overfit grids.h5 --model examples/transformer.py:GridTransformer --model-arg depth=2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GridTransformer(nn.Module):
    """Takes labels (B, H, W) and returns (logits (B, C, H, W), mu (B, latent), logvar (B, latent)).

    Sides that `patch` does not divide are padded inside with a label of their own, and the logits cropped.
    """

    def __init__(
        self,
        num_classes: int,
        height: int,
        width: int,
        latent_dim: int = 32,
        dim: int = 64,
        depth: int = 1,
        heads: int = 4,
        patch: int = 4,
    ) -> None:
        super().__init__()
        self.num_classes, self.height, self.width, self.latent_dim = num_classes, height, width, latent_dim
        self.patch, self.rows, self.columns = patch, -(-height // patch), -(-width // patch)
        tokens, cells = self.rows * self.columns, patch * patch
        self.labels = nn.Embedding(num_classes + 1, 16)  # the last label is the padding
        self.read_patch = nn.Linear(cells * 16, dim)
        self.places = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.encoder = _blocks(dim, depth, heads)
        self.mu = nn.Linear(tokens * dim, latent_dim)
        self.logvar = nn.Linear(tokens * dim, latent_dim)
        self.expand = nn.Linear(latent_dim, tokens * dim)
        self.decoder = _blocks(dim, depth, heads)
        self.write_patch = nn.Linear(dim, cells * num_classes)

    def encode(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, latent) of labels (B, H, W)."""
        p = self.patch
        below, right = self.rows * p - self.height, self.columns * p - self.width
        grids = nn.functional.pad(grids, (0, right, 0, below), value=self.num_classes)
        x = self.labels(grids).unflatten(1, (self.rows, p)).unflatten(3, (self.columns, p))
        x = x.transpose(2, 3).flatten(1, 2).flatten(2)  # (B, tokens, p * p * 16)
        x = self.encoder(self.read_patch(x) + self.places).flatten(1)
        return self.mu(x), self.logvar(x).clamp(-20.0, 2.0)

    def decode(self, z: Tensor) -> Tensor:
        """Logits (B, C, H, W) of latent vectors (B, latent)."""
        p = self.patch
        x = self.expand(z).unflatten(1, self.places.shape) + self.places
        x = self.write_patch(self.decoder(x)).unflatten(2, (self.num_classes, p, p))
        x = x.unflatten(1, (self.rows, self.columns)).permute(0, 3, 1, 4, 2, 5)
        logits: Tensor = x.flatten(4, 5).flatten(2, 3)
        return logits[:, :, : self.height, : self.width]

    def forward(self, grids: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """z is mu, or mu + sigma * noise where noise (B, latent) is given."""
        mu, logvar = self.encode(grids)
        return self.decode(mu if noise is None else mu + torch.exp(0.5 * logvar) * noise), mu, logvar


def _blocks(dim: int, depth: int, heads: int) -> nn.Sequential:
    layer = nn.TransformerEncoderLayer
    blocks = [layer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(depth)]
    return nn.Sequential(*blocks, nn.LayerNorm(dim))
