"""Muon for dense layers and convolutions: `torch.optim.Muon` takes 2D parameters only.

Nesterov momentum whose matrices are made orthogonal by a Newton-Schulz quintic before the update, without weight decay
(Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/). Unlike theirs, the quintic is iterated on the Gram matrix of the shorter
side, first and last layers are matrices too, and the entries of an update have root mean square `lr`, as Adam's do
(Liu et al. 2025, "Muon is scalable for LLM training", take 0.2 of it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)
"""a x + b x^3 + c x^5 drives singular values in (0, 1] near 1; Jordan et al. chose these to lift small ones fast."""
ITERATIONS = 5
WIDEST = 1024
"""Inputs of a layer beyond which its updates become smaller: the change of a unit by all its inputs must not grow with
the grid, or the first steps set most units of the encoder's dense layer to zero for ever."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Layout:
    """Layout of a weight as matrices (M, outputs, inputs): split its dimensions, order them, and flatten."""

    split: tuple[int, ...]
    order: tuple[int, ...]
    matrices: tuple[int, int, int]

    @classmethod
    def from_weight(cls, weight: Tensor, layer: nn.Module) -> Layout:
        """Return the layout of the weight of `layer`.

        A convolution is one matrix a group. A transposed convolution of stride s is one matrix a group and position
        modulo s: cells at different positions read different entries of the kernel.
        """
        shape = tuple(weight.shape)
        groups = layer.groups if isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)) else 1
        if not isinstance(layer, _TRANSPOSED):
            rows = shape[0] // groups
            return cls(shape, tuple(range(len(shape))), (groups, rows, weight.numel() // shape[0]))
        inputs, outputs, *kernel = shape
        phases = [s if k % s == 0 else 1 for k, s in zip(kernel, layer.stride, strict=True)]
        halves = [part for k, s in zip(kernel, phases, strict=True) for part in (k // s, s)]
        split = (groups, inputs // groups, outputs, *halves)
        dims = range(3, len(split))
        order = (0, *dims[1::2], 2, 1, *dims[::2])
        count = groups * math.prod(phases)
        return cls(split, order, (count, outputs, weight.numel() // (count * outputs)))

    def parts(self, weight: Tensor) -> Tensor:
        """Return a view of a tensor of the weight's shape, ordered as its matrices but not flattened."""
        return weight.reshape(self.split).permute(self.order)

    def read(self, weight: Tensor) -> Tensor:
        """Return the matrices (M, outputs, inputs) of a tensor of the weight's shape."""
        return self.parts(weight).reshape(self.matrices)


def layouts(model: nn.Module) -> dict[nn.Parameter, Layout]:
    """Return the layout of each weight of the dense layers and convolutions of `model`.

    A weight that is also the table of an embedding is left out: a step uses only some of its rows.
    """
    tables = {p for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    return {
        p: Layout.from_weight(p, layer)
        for layer in model.modules()
        if isinstance(layer, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))
        for p in layer.parameters(recurse=False)
        if p.dim() > 1 and p.numel() and p.is_floating_point() and p not in tables
    }


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return matrices (M, m, n) with the same singular vectors and singular values near 1.

    With X = U S V^T and G = X X^T (for m > n, X^T X and the other side), each iteration X <- (a + b G + c G^2) X
    multiplies X by a polynomial Q of G. So G <- Q G Q and the product of the Qs are kept, and X is multiplied once.
    Singular values of at least 1e-2 of the largest end in 0.6 to 1.3; those that are 0 stay 0.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    a, b, c = QUINTIC
    tiny = torch.finfo(matrices.dtype).tiny  # a gradient of zero stays zero
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(tiny)
    gram = x.mT @ x if tall else x @ x.mT
    # the root of |G| is a closer bound of the singular values than |X|
    largest = torch.linalg.matrix_norm(gram, keepdim=True).clamp_min(tiny)
    gram /= largest
    product = None
    for i in range(ITERATIONS):
        q = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        q.diagonal(dim1=1, dim2=2).add_(a)
        product = q if product is None else q @ product
        if i < ITERATIONS - 1:
            gram = q @ gram @ q
    assert product is not None
    product = product / largest.sqrt()
    return torch.matmul(x, product) if tall else torch.matmul(product, x)


class Muon:
    """Muon optimizer for the parameters that `layouts` returns; the others need another optimizer.

    Args:
        parameters: the parameters to update and their layouts; one without a gradient does not change.
        momentum: share of the past in the average of the gradients.
    """

    def __init__(self, parameters: dict[nn.Parameter, Layout], momentum: float) -> None:
        self._momentum, self._layouts = momentum, parameters
        self._averages: dict[nn.Parameter, Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """Update every parameter that has a gradient.

        Args:
            lr: root mean square of the entries of an update; less in a layer of more than `WIDEST` inputs. A tensor is
                read on its device.
        """
        for parameter, layout in self._layouts.items():
            if parameter.grad is not None:
                self._update(parameter, parameter.grad, layout, lr)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, layout: Layout, lr: float | Tensor) -> None:
        matrices = layout.read(gradient)
        if parameter not in self._averages:
            self._averages[parameter] = torch.zeros_like(matrices)
        average = self._averages[parameter].lerp_(matrices, 1.0 - self._momentum)
        update = orthogonalise(matrices.lerp(average, self._momentum))  # ahead of the average, as Nesterov's is
        _, m, n = layout.matrices
        # the entries of an orthonormal matrix have root mean square 1 / sqrt(max(m, n))
        update = update * (lr * math.sqrt(max(m, min(n, WIDEST))))
        parts = layout.parts(parameter)
        parts.sub_(update.reshape(parts.shape))

    def optimizer_state(self) -> dict[nn.Parameter, dict[str, Tensor]]:
        """Return the tensors that a step changes in place, by parameter and name, not copied.

        The tensor of a parameter starts as 0 with its first gradient.
        """
        return {parameter: {"average": average} for parameter, average in self._averages.items()}

    def load_state(self, state: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Restore what `optimizer_state` returned, for the parameters of this optimizer."""
        for parameter in self._layouts:
            if parameter in state:
                average = state[parameter]["average"]
                self._averages[parameter] = average.to(parameter.device, copy=True)
