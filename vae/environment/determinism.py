"""Context managers that make a part of a run reproducible, whatever its caller has set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

_TURN = threading.RLock()
"""Held by the thread that uses torch's global generators and cuDNN's flags, which all threads share."""


def normal_noise(shape: tuple[int, ...], generator: int | torch.Generator) -> Tensor:
    """Return standard normal float32 numbers on the CPU, from a generator or from a new one with this seed."""
    own = generator if isinstance(generator, torch.Generator) else torch.Generator().manual_seed(generator)
    return torch.randn(shape, generator=own, dtype=torch.float32, device="cpu")  # whatever the caller's defaults are


def unseeded(device: torch.device) -> AbstractContextManager[None]:
    """Context of code that may draw from torch's global generators without changing what the fit draws."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and restore the caller's state afterwards; other threads wait for their turn."""
    with _TURN, unseeded(device):
        torch.manual_seed(seed)
        yield


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Context of a fit: it gives the same numbers in every context of the caller, which is restored afterwards.

    Gradients are on and autocast is off. torch's global generators, from which a user's model may draw, start at
    `seed`. cuDNN chooses no algorithm by its time, and none whose order of additions varies between calls.
    """
    cudnn = torch.backends.cudnn
    with (
        seeded(seed, device),
        torch.inference_mode(False),
        torch.enable_grad(),
        _no_autocast(device),
    ):
        before = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = False, True
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def _no_autocast(device: torch.device) -> Iterator[None]:
    """Context outside every autocast of the caller.

    `torch.autocast(enabled=False)` would nest in the caller's: an autocast inside a model would then keep its casts of
    the parameters until the outermost ends, and each step would compute with those of the first one.
    """
    enabled = {kind: torch.is_autocast_enabled(kind) for kind in ("cpu", device.type)}
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    for kind in enabled:
        torch.set_autocast_enabled(kind, False)
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.clear_autocast_cache()  # the caller's casts are of parameters that have changed
        for kind, before in enabled.items():
            torch.set_autocast_enabled(kind, before)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()
