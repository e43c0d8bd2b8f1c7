"""Muon's orthogonalisation and its reading of weights as matrices; both optimizers on any module."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from vaefit.vae import overfit
from vaefit.vae.optim.adam import Adam
from vaefit.vae.optim.muon import WIDEST, Layout, Muon, layouts, orthogonalise
from vaefit.vae.recipe import RECIPES, Recipe, recipe_with

LAYERS = {
    "linear": nn.Linear(40, 24),
    "tall": nn.Linear(24, 40, bias=False),
    "wide": nn.Linear(2048, 32),
    "conv": nn.Conv2d(6, 8, 3),
    "grouped": nn.Conv2d(6, 8, 3, groups=2),
    "one dimension": nn.Conv1d(5, 7, 4, stride=2),
    "three dimensions": nn.Conv3d(2, 3, 2),
    "transposed": nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1),
    "transposed grouped": nn.ConvTranspose2d(12, 8, 4, stride=2, groups=4),
    "transposed odd": nn.ConvTranspose2d(6, 5, 3, stride=2),
    "transposed one dimension": nn.ConvTranspose1d(6, 5, 6, stride=3),
}


def matrices(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 40), (2, 40, 5), (1, 128, 2048), (4, 1, 9), (1, 1, 1)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    x = matrices(*shape)
    found = orthogonalise(x)
    u, s, vt = torch.linalg.svd(x.double(), full_matrices=False)
    in_its_basis = u.mT @ found.double() @ vt.mT
    values = torch.diagonal(in_its_basis, dim1=1, dim2=2)
    kept = s > 0.01 * s.amax(dim=1, keepdim=True)
    assert float(values[kept].min()) > 0.55
    assert float(values[kept].max()) < 1.35
    off_diagonal = in_its_basis - torch.diag_embed(values)
    assert float(off_diagonal.abs().max()) < 1e-3


def test_the_scale_of_the_gradient_does_not_matter():
    x = matrices(2, 6, 30)
    for scale in (1e-12, 1e12):
        torch.testing.assert_close(orthogonalise(scale * x), orthogonalise(x), rtol=1e-3, atol=1e-5)


def test_zero_stays_zero_and_low_rank_stays_low():
    assert torch.equal(orthogonalise(torch.zeros(2, 3, 7)), torch.zeros(2, 3, 7))
    one = matrices(1, 6, 1) @ matrices(1, 1, 30, seed=1)
    values = torch.linalg.svdvals(orthogonalise(one).double())[0]
    assert 0.6 < float(values[0]) < 1.3
    assert float(values[1]) < 1e-2


@pytest.mark.parametrize("name", LAYERS)
def test_a_layout_holds_every_entry_once(name):
    layer = LAYERS[name]
    layout = Layout.from_weight(layer.weight, layer)
    numbered = torch.arange(layer.weight.numel(), dtype=torch.float32).reshape(layer.weight.shape)
    read = layout.read(numbered)
    assert read.shape == layout.matrices
    assert sorted(read.reshape(-1).tolist()) == list(range(layer.weight.numel()))
    written = torch.zeros_like(numbered)
    parts = layout.parts(written)
    parts.copy_(read.reshape(parts.shape))
    assert torch.equal(written, numbered)


@pytest.mark.parametrize(("name", "kernel", "stride"), [("transposed", 4, 2), ("transposed one dimension", 6, 3)])
def test_a_matrix_of_a_transposed_convolution_is_what_one_output_cell_reads(name, kernel, stride):
    layer = copy.deepcopy(LAYERS[name])
    nn.init.zeros_(layer.bias)
    layout = Layout.from_weight(layer.weight, layer)
    dimensions = layer.weight.dim() - 2
    inputs = matrices(1, layer.in_channels, *([5] * dimensions), seed=2)
    with torch.no_grad():
        output = layer(inputs)[0]
    # far from the border, at one phase of the stride: kernel / stride inputs along each axis
    padding = layer.padding[0]
    at = [stride * 3 - padding] * dimensions
    reach = kernel // stride
    window = inputs[0][(slice(None), *[slice(3 - reach + 1, 4)] * dimensions)].flip(list(range(1, dimensions + 1)))
    expected = layout.read(layer.weight.detach())[0] @ window.reshape(-1)
    torch.testing.assert_close(output[(slice(None), *at)], expected, rtol=1e-4, atol=1e-5)


def test_groups_are_matrices_of_their_own():
    layer = LAYERS["grouped"]
    read = Layout.from_weight(layer.weight, layer).read(layer.weight.detach())
    assert torch.equal(read, layer.weight.detach().reshape(2, 4, 27))


class Odd(nn.Module):
    """Parameters of every kind: a scalar, vectors, a shared table, layers of all sorts, one frozen, one unused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.ones(()))
        self.table = nn.Embedding(10, 8)
        self.norm = nn.LayerNorm(8)
        self.hidden = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.head = nn.Linear(16, 8)
        self.logits = nn.Linear(8, 10)
        self.logits.weight = self.table.weight
        self.frozen = nn.Linear(16, 16)
        self.frozen.requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, grids):
        x = self.norm(self.table(grids)).permute(0, 3, 1, 2) * self.scale
        x = self.hidden(x).relu().permute(0, 2, 3, 1)
        return self.logits(self.head(self.frozen(x))).permute(0, 3, 1, 2)


def test_only_the_weights_of_dense_layers_and_convolutions_are_matrices():
    model = Odd()
    assert {name for name, p in model.named_parameters() if p in layouts(model)} == {
        "hidden.weight",
        "head.weight",
        "frozen.weight",
        "unused.weight",
    }


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_any_module_is_fitted(grids, optimizer):
    model = Odd()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = recipe_with("default", optimizer=optimizer, iterations=150, stop_when="never")
    result = overfit(model, grids[:8], recipe=Recipe(**{**recipe.__dict__, "init": None}))
    assert result.history[-1].loss < 0.5 * result.history[0].loss
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert still == {"frozen.weight", "frozen.bias", "unused.weight", "unused.bias"}


@pytest.mark.parametrize("width", [16, WIDEST, 4 * WIDEST])
def test_an_update_has_the_root_mean_square_of_the_rate(width):
    layer = nn.Linear(width, 8, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = matrices(8, width)
    Muon(layouts(layer), momentum=0.9).step(lr=0.01)
    moved = float((layer.weight.detach() - before).square().mean().sqrt())
    # the quintic leaves singular values between 0.7 and 1.2
    assert 0.7 < moved / (0.01 * min(1, (WIDEST / width) ** 0.5)) < 1.2


def test_momentum_averages_the_past():
    layer = nn.Linear(6, 6, bias=False)
    muon = Muon(layouts(layer), momentum=0.9)
    gradients = [matrices(6, 6, seed=s) for s in range(3)]
    average = torch.zeros(6, 6)
    for gradient in gradients:
        before = layer.weight.detach().clone()
        layer.weight.grad = gradient.clone()
        muon.step(lr=1.0)
        average = 0.9 * average + 0.1 * gradient
        ahead = 0.1 * gradient + 0.9 * average
        expected = orthogonalise(ahead[None])[0] * 6**0.5
        torch.testing.assert_close(before - layer.weight.detach(), expected, rtol=1e-3, atol=1e-4)


def test_adam_is_torchs():
    ours = [nn.Parameter(matrices(5, 3)), nn.Parameter(matrices(7)), nn.Parameter(matrices(2))]
    theirs = copy.deepcopy(ours)
    optimizer = torch.optim.Adam(theirs, betas=(0.9, 0.95), fused=True)
    adam = Adam(ours, (0.9, 0.95))
    for step in range(12):
        for mine, other in zip(ours[:2], theirs, strict=False):  # the last never has a gradient
            mine.grad = matrices(*mine.shape, seed=step)
            other.grad = mine.grad.clone()
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.step()
        adam.step(0.1 / (step + 1))
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("recipe", ["default", "adam"])
def test_a_gradient_that_is_not_finite_moves_nothing(grids, recipe):
    class Breaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(10, 10, 3, padding=1)

        def forward(self, labels):
            x = nn.functional.one_hot(labels, 10).permute(0, 3, 1, 2).float()
            logits = self.inner(x)
            return logits + (0.0 * self.inner.weight.sum()).sqrt()  # its derivative at 0 is infinite

    model = Breaking()
    before = copy.deepcopy(model.state_dict())
    result = overfit(model, grids[:4], recipe=Recipe(**{**RECIPES[recipe].__dict__, "init": None}))
    assert result.verdict == "DIVERGED"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_same_run_twice_is_the_same(grids):
    runs = [overfit(Odd(), grids[:8], recipe=Recipe(init=None, iterations=10)) for _ in range(2)]
    assert [r.loss for r in runs[0].history] == [r.loss for r in runs[1].history]
    assert np.array_equal(runs[0].predictions, runs[1].predictions)
