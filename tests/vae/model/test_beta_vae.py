"""The network and its initialisations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaefit.vae.model.beta_vae import BetaVAE
from vaefit.vae.model.initialisation import initialise


def _grids(size: int, height: int, width: int, classes: int = 10) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, classes, (size, height, width))


def test_it_has_the_parameters_that_it_should() -> None:
    assert sum(p.numel() for p in BetaVAE(10, 16, 16).parameters()) == 801_034


@pytest.mark.parametrize(("height", "width", "classes"), [(16, 16, 10), (5, 7, 3), (1, 9, 2), (30, 30, 21)])
def test_any_sides_and_classes(height: int, width: int, classes: int) -> None:
    model = BetaVAE(classes, height, width, latent_dim=6)
    logits, mu, logvar = model(_grids(3, height, width, classes))
    assert logits.shape == (3, classes, height, width)
    assert mu.shape == logvar.shape == (3, 6)


def test_z_is_mu_unless_noise_is_given() -> None:
    model, grids = BetaVAE(10, 8, 8), _grids(4, 8, 8)
    logits, mu, logvar = model(grids)
    torch.testing.assert_close(model.reconstruct(grids), logits)
    torch.testing.assert_close(model.decode(mu), logits)
    noise = torch.randn(4, 32)
    torch.testing.assert_close(model(grids, noise)[0], model.decode(mu + (logvar / 2).exp() * noise))


def test_labels_and_their_one_hot_form_are_the_same_input() -> None:
    model, grids = BetaVAE(10, 8, 8), _grids(4, 8, 8)
    one_hot = nn.functional.one_hot(grids, 10).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(model.one_hot(grids.to(torch.uint8)), one_hot)
    torch.testing.assert_close(model(one_hot)[0], model(grids)[0])
    ignored = grids.clone()
    ignored[0, 0, 0] = -100
    assert model.one_hot(ignored)[0, :, 0, 0].tolist() == [0.0] * 10


def test_mu_and_logvar_are_clamped() -> None:
    model = BetaVAE(10, 8, 8)
    with torch.no_grad():
        model.mu.bias.fill_(99.0)
        model.logvar.bias.fill_(99.0)
    _, mu, logvar = model(_grids(2, 8, 8))
    assert mu.max().item() == 5.0
    assert logvar.max().item() == 2.0


def test_wrong_grids_are_told_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"labels \(B, 8, 8\)"):
        BetaVAE(10, 8, 8)(_grids(2, 8, 9))


def test_kaiming_has_the_deviation_of_its_fan_in() -> None:
    model = BetaVAE(10, 16, 16)
    initialise(model, "kaiming", lambda: None, 0)
    fan_in = {"encoder.0": 10 * 9, "encoder.7": 2048, "mu": 128, "decoder.5": 128 * 4, "decoder.9": 32 * 9}
    for name, fan in fan_in.items():
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1), name
        assert not layer.bias.any()


def test_rescaled_gives_every_layer_unit_deviation_on_the_batch() -> None:
    model, grids = BetaVAE(10, 16, 16), _grids(8, 16, 16)
    grids[grids > 3] = 0
    initialise(model, "rescaled", lambda: model(grids), 0)
    seen: dict[str, torch.Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    with torch.no_grad():
        model(grids)
    assert len(seen) == 11
    for name, output in seen.items():
        if output.dim() == 2:  # dense: across the batch, and the batch mean of each unit is 0
            assert output.mean(dim=0).abs().max().item() < 1e-4, name
            assert output.square().mean().sqrt().item() == pytest.approx(1.0, abs=1e-3), name
        else:
            assert output.std().item() == pytest.approx(1.0, abs=1e-3), name


def test_default_redraws_torchs_own() -> None:
    model = BetaVAE(10, 8, 8)
    before = model.mu.weight.clone()
    initialise(model, "default", lambda: None, 3)
    assert not torch.equal(before, model.mu.weight)
    assert model.mu.weight.abs().max().item() <= 128**-0.5


def test_a_constant_batch_leaves_finite_parameters() -> None:
    model = BetaVAE(4, 8, 8)
    grids = torch.zeros(3, 8, 8, dtype=torch.int64)
    initialise(model, "rescaled", lambda: model(grids), 0)
    assert all(p.isfinite().all() for p in model.parameters())
