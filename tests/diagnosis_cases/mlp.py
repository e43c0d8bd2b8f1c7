"""Autoencoder of dense layers, and variants with one common fault each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.diagnosis_cases.grids import CLASSES, SIDE

HUGE_SIGMA = 30.0
WEAK = 1e-5
CODES = 64
STEP = 8.0
"""Larger than mu under any initialisation."""


class Mlp(nn.Module):
    """Autoencoder: labels (B, H, W) to (logits (B, C, H, W), mu, logvar), with `hidden` units and `latent` numbers."""

    def __init__(
        self, latent: int = 32, hidden: int = 128, side: int = SIDE, width: int | None = None, classes: int = CLASSES
    ) -> None:
        super().__init__()
        self.num_classes, self.shape = classes, (classes, side, width or side)
        cells = classes * side * (width or side)
        self.encoder = nn.Sequential(nn.Linear(cells, hidden), nn.ReLU())
        self.mu = nn.Linear(hidden, latent)
        self.logvar = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, cells))

    def one_hot(self, grids: Tensor) -> Tensor:
        """Return the labels as floats (B, C, H, W)."""
        return nn.functional.one_hot(grids, self.num_classes).permute(0, 3, 1, 2).float()

    def encode(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, latent)."""
        hidden = self.encoder(self.one_hot(grids).flatten(1))
        return self.mu(hidden), self.logvar(hidden)

    def latent(self, mu: Tensor) -> Tensor:
        """Return the input of the decoder, (B, latent)."""
        return mu

    def decode(self, z: Tensor) -> Tensor:
        """Return logits (B, C, H, W)."""
        logits: Tensor = self.decoder(z)
        return logits.reshape(-1, *self.shape)

    def forward(self, grids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, mu and logvar; z is `latent(mu)`."""
        mu, logvar = self.encode(grids)
        return self.decode(self.latent(mu)), mu, logvar


class SampledMlp(Mlp):
    """Samples z in training, as a variational autoencoder does."""

    def forward(self, grids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(grids)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) if self.training else mu
        return self.decode(z), mu, logvar


class MeanOverBatch(Mlp):
    """Averages over dimension 0, the batch, instead of the tokens."""

    def latent(self, mu: Tensor) -> Tensor:
        return mu.mean(dim=0, keepdim=True).expand_as(mu)


class DrownedMean(Mlp):
    """Model whose z in training is a mean within +-1 plus noise of a fixed, huge sigma."""

    def latent(self, mu: Tensor) -> Tensor:
        mu = torch.tanh(mu)
        return mu + HUGE_SIGMA * torch.randn_like(mu) if self.training else mu


class WeakConditioning(Mlp):
    """Adds z, scaled to almost nothing, to a learned start vector."""

    def __init__(self, scale: float = WEAK) -> None:
        super().__init__()
        self.scale = scale
        self.start = nn.Parameter(torch.randn(32))

    def latent(self, mu: Tensor) -> Tensor:
        return self.start + self.scale * torch.tanh(mu)


class DetachedGate(Mlp):
    """Multiplies mu by a gain of zero and detaches the product: every grid keeps the same z."""

    def __init__(self, detach: bool = True) -> None:
        super().__init__()
        self.detach = detach
        self.gain = nn.Parameter(torch.zeros(32))

    def latent(self, mu: Tensor) -> Tensor:
        z = self.gain * mu
        return z.detach() if self.detach else z


class RoundedLatent(Mlp):
    """Rounds z to multiples of `STEP`, whose gradient is zero everywhere; `straight` passes the gradient by."""

    def __init__(self, straight: bool = False) -> None:
        super().__init__()
        self.straight = straight

    def latent(self, mu: Tensor) -> Tensor:
        rounded = STEP * torch.round(mu / STEP)
        return mu + (rounded - mu).detach() if self.straight else rounded


class HardCode(Mlp):
    """Looks the largest unit up in a codebook: argmax has no gradient; `soft` mixes the codes by softmax."""

    def __init__(self, soft: bool = False) -> None:
        super().__init__(latent=CODES)
        self.soft = soft
        self.codes = nn.Parameter(4.0 * torch.randn(CODES, CODES))

    def latent(self, mu: Tensor) -> Tensor:
        return torch.softmax(mu, dim=1) @ self.codes if self.soft else self.codes[mu.argmax(dim=1)]


class IntegerScaled(Mlp):
    """Returns logits alone, of labels scaled to [0, 1] by an integer division, which makes them all 0."""

    def __init__(self, integer: bool = True) -> None:
        super().__init__()
        self.integer = integer

    def one_hot(self, grids: Tensor) -> Tensor:
        x = grids // CLASSES if self.integer else grids / CLASSES
        planes = torch.zeros(grids.shape[0], *self.shape, device=grids.device)
        planes[:, 0] = x
        return planes

    def forward(self, grids: Tensor) -> Tensor:  # type: ignore[override]
        mu, _ = self.encode(grids)
        return self.decode(mu)


class CoordinateNet(nn.Module):
    """A picture as a function of place: row and column and, where `conditioned`, the grid's code to logits."""

    def __init__(self, conditioned: bool = False, hidden: int = 128) -> None:
        super().__init__()
        self.code = nn.Linear(CLASSES * SIDE * SIDE, hidden) if conditioned else None
        self.place = nn.Embedding(SIDE * SIDE, hidden)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))

    def forward(self, grids: Tensor) -> Tensor:
        """Labels (B, H, W) to logits (B, C, H, W)."""
        x = self.place.weight.expand(grids.shape[0], -1, -1)
        if self.code is not None:
            x = x + self.code(nn.functional.one_hot(grids, CLASSES).float().flatten(1)).unsqueeze(1)
        logits: Tensor = self.out(x)
        return logits.transpose(1, 2).reshape(-1, CLASSES, SIDE, SIDE)


class Bottleneck(nn.Module):
    """Convolutions down to one cell of `channels` channels, and back; logits alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(CLASSES, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, channels, SIDE // 4),
            nn.ConvTranspose2d(channels, 64, SIDE // 4), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(32, CLASSES, 4, stride=2, padding=1),
        )  # fmt: skip

    def forward(self, grids: Tensor) -> Tensor:
        """Labels (B, H, W) to logits (B, C, H, W)."""
        logits: Tensor = self.layers(nn.functional.one_hot(grids, CLASSES).permute(0, 3, 1, 2).float())
        return logits
