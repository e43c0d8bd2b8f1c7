"""A small U-Net of label maps that takes one-hot floats and has no latent vector.

A U-Net whose skip connection runs at full resolution learns the identity of every grid at once and shows nothing. Here
the skips start at half resolution, and the finest is squeezed to `skip` channels, so that the cells of a grid do go
through a bottleneck; still it is one of many numbers, and an easier test than a latent vector. To check it:

    vaefit-cli overfit grids.h5 --model examples/unet.py:UNet --model-arg channels=32
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Takes one-hot grids (B, C, H, W) of any size in floats and returns logits (B, C, H, W)."""

    def __init__(self, num_classes: int, channels: int = 32, skip: int = 8, bottleneck: int = 16) -> None:
        super().__init__()
        a, b = channels, 2 * channels
        self.down1 = nn.Sequential(_block(num_classes, a, stride=2), _block(a, a))
        self.down2 = nn.Sequential(_block(a, b, stride=2), nn.Conv2d(b, bottleneck, 1))
        self.squeeze = nn.Conv2d(a, skip, 1)
        self.up1 = nn.Sequential(_block(bottleneck, b), nn.ConvTranspose2d(b, a, 4, stride=2, padding=1))
        self.up2 = nn.Sequential(_block(a + skip, a), nn.ConvTranspose2d(a, a, 4, stride=2, padding=1), nn.ReLU())
        self.out = nn.Conv2d(a, num_classes, 3, padding=1)

    def forward(self, one_hot: Tensor) -> Tensor:
        """Sides that 4 does not divide are padded inside and the logits cropped."""
        height, width = one_hot.shape[2:]
        half = self.down1(nn.functional.pad(one_hot, (0, -width % 4, 0, -height % 4)))
        up = self.up1(self.down2(half))
        logits: Tensor = self.out(self.up2(torch.cat([up, self.squeeze(half)], dim=1)))
        return logits[:, :, :height, :width]


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(4, outputs), nn.ReLU())
