"""Tests of the example networks: the check makes networks with other layers, inputs and latents memorise a batch."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from tests.diagnosis_cases.examples import FOLDER, transformer, unet
from tests.diagnosis_cases.grids import grids
from vaefit.vae import overfit
from vaefit.vae.recipe import RECIPES, Recipe

NETWORKS = {"transformer": transformer, "unet": lambda classes, height, width: unet(classes)}


@pytest.mark.parametrize("recipe", ["default", "adam"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_memorises_a_batch(network, recipe):
    torch.manual_seed(0)
    batch = grids(12, 10, 13, 6)  # sides that the patch does not divide
    model = NETWORKS[network](6, 10, 13)
    result = overfit(model, batch, recipe=replace(RECIPES[recipe], init=None, lr=3e-3, iterations=200))
    assert result.verdict == "MEMORISED", result.judgement.reason


@pytest.mark.parametrize("shape", [(4, 4), (8, 9), (33, 6), (1, 5)])
@pytest.mark.parametrize("network", NETWORKS)
def test_any_sides(network, shape):
    labels = torch.randint(0, 3, (2, *shape))
    found = NETWORKS[network](3, *shape)(labels)
    logits = found if isinstance(found, torch.Tensor) else found[0]
    assert logits.shape == (2, 3, *shape)


def test_the_transformer_samples_z_only_where_noise_is_given():
    model = transformer(3, 8, 8)
    labels = torch.randint(0, 3, (2, 8, 8))
    mean, mu, logvar = model(labels)
    assert mu.shape == logvar.shape == (2, 32)
    torch.testing.assert_close(model(labels, torch.zeros(2, 32))[0], mean)
    assert not torch.equal(model(labels, torch.ones(2, 32))[0], mean)


def test_nothing_of_a_grid_passes_the_transformer_beside_its_latent():
    model = transformer(3, 8, 8).eval()
    with torch.no_grad():
        model.expand.weight.zero_()
        logits = model(torch.randint(0, 3, (2, 8, 8)))[0]
    torch.testing.assert_close(logits[0], logits[1])


@pytest.mark.parametrize("file", [FOLDER / "transformer.py", FOLDER / "unet.py"], ids=lambda file: file.stem)
def test_each_example_says_how_to_check_it(file):
    text = file.read_text()
    (stem, name, knob) = re.search(r"--model examples/(\w+)\.py:(\w+) --model-arg (\w+)=\d+", text).groups()
    assert stem == file.stem
    assert f"class {name}(nn.Module)" in text
    assert re.search(rf"\b{knob}: int = ", text)
    assert text.count("\n") < 80


def test_without_an_init_the_recipe_leaves_a_foreign_network_its_own_parameters():
    torch.manual_seed(0)
    model = transformer(6, 12, 12)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    overfit(model, grids(4, 12, 12, 6), recipe=Recipe(init=None, iterations=0))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
