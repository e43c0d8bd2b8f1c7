"""CUDA graph of a step: the conditions for it, and its capture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import RunError
from ..recipe import Recipe
from .stepper import StepChoice

WINDOW = 10
"""Steps that are replayed between two reads of their measurements."""
WARM_UP = 3
"""Calls before the capture, in which libraries choose kernels and allocate workspaces."""
BACKENDS = ("triton", "eager")


def choose_steps(requested: bool | None, device: torch.device, recipe: Recipe, backend: str, ours: bool) -> StepChoice:
    """Choose the stepper: a graph on a GPU, where it gives the numbers of the eager loop.

    Args:
        requested: True for a graph, False for none, None for either.
        backend: the focal loss backend that runs.
        ours: the model is a BetaVAE.

    Raises:
        RunError: a graph was requested but cannot run.
    """
    if requested is False:
        return StepChoice("one by one", "requested")
    why = obstacle(device, recipe, backend, ours)
    if why is None:
        return StepChoice("graph", f"up to {WINDOW} steps at a time on {device.type}")
    if requested:
        raise RunError("the steps cannot be a CUDA graph", "--graph", why, "Leave the option out, or pass --no-graph.")
    return StepChoice("one by one", why)


def obstacle(device: torch.device, recipe: Recipe, backend: str, ours: bool) -> str | None:
    """Return the reason why the steps cannot be a graph; None where they can."""
    if device.type != "cuda":
        return f"the model is on {device.type}"
    if torch.version.hip is not None:
        return "graphs are not tested on ROCm"
    if not ours:
        return "the model is not a BetaVAE"
    if recipe.resample:
        return "every step draws its grids"
    if recipe.z == "sample":
        return "every step samples z"
    return None if backend in BACKENDS else f"the {backend} backend is not captured"


def capture(body: Callable[[], None], state: Callable[[], list[Tensor]], device: torch.device) -> Callable[[], None]:
    """Capture `body` as a graph and leave every tensor of `state` as it was; on the CPU the body itself is the replay.

    After the recipe of torch's notes on CUDA graphs: a few calls on a separate stream, then the capture. `body` may
    change only tensors that it keeps, and must not wait for the device.

    Args:
        state: returns the tensors that `body` changes. A tensor that exists only after the first call was 0 before.
    """
    if device.type == "cpu":
        return body
    before = [(tensor, tensor.detach().clone()) for tensor in state()]
    known = {id(tensor) for tensor, _ in before}
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    body()
            torch.cuda.current_stream().wait_stream(side)
            with torch.no_grad():
                for tensor, value in before:
                    tensor.copy_(value)
                for tensor in state():
                    if id(tensor) not in known:
                        tensor.zero_()
            with torch.cuda.graph(graph):
                body()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first, _, _ = str(error).partition("\n")
        do = "Pass --no-graph, and report it with what `vaefit-cli doctor` prints."
        raise RunError("the step could not be captured as a CUDA graph", str(device), first, do) from error
    return graph.replay
