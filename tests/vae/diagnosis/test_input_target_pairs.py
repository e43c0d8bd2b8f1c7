"""Checks of inputs and targets, and a run whose targets are not its grids."""

from __future__ import annotations

import numpy as np
import pytest

from vaefit.vae import BetaVAE, overfit
from vaefit.vae.data.batch import Batch
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.diagnosis import input_target_pairs

GRIDS = synthesise(SyntheticSpec(grids=16, height=8, width=8, classes=4)).astype(np.int64)


def test_pairs_that_contradict_one_another_bound_what_any_model_can_reach() -> None:
    batch = Batch(GRIDS, (), other_targets=GRIDS)
    assert input_target_pairs.contradiction_finding(batch, 4, None, 0.95) is None
    twice = Batch(np.concatenate([GRIDS[:1], GRIDS]), (), other_targets=np.concatenate([GRIDS[1:2], GRIDS]))
    few = input_target_pairs.contradiction_finding(twice, 4, None, 0.0)
    assert few is not None
    assert few.found.startswith("2 of 17 grids have equals with another target")
    lost = input_target_pairs.contradiction_finding(Batch(np.zeros_like(GRIDS), (), other_targets=GRIDS), 4, None, 0.95)
    assert lost is not None
    assert lost.suspicious
    best = sum(np.bincount(GRIDS[:, y, x]).max() for y in range(8) for x in range(8)) / GRIDS.size
    assert f"reaches pixel accuracy {best:.3f}" in lost.found


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (np.roll(GRIDS, 1, axis=0), "16 of 16 targets are the input of another grid"),
        (np.roll(GRIDS, 1, axis=1), "targets are their input moved one row down"),
        (GRIDS[:, :, ::-1].copy(), "targets are their input mirrored"),
        (GRIDS.transpose(0, 2, 1).copy(), "targets are their input transposed"),
        ((GRIDS + 1) % 4, "they agree in 0.0 % of the cells"),
    ],
)
def test_targets_in_another_order_or_place_are_recognised(targets: np.ndarray, words: str) -> None:
    found = input_target_pairs.alignment_finding(Batch(GRIDS, (), other_targets=targets), None)
    assert found is not None
    assert words in found.found
    assert found.suspicious == ("agree" not in words)
    assert input_target_pairs.alignment_finding(Batch(GRIDS, ()), None) is None


def test_other_targets_than_the_grids_are_memorised_and_drawn() -> None:
    targets = (GRIDS + (GRIDS > 0)) % 4
    result = overfit(BetaVAE(4, 8, 8), GRIDS, targets=targets)
    assert result.passed
    np.testing.assert_array_equal(result.predictions, targets)
    assert result.batch.digest != Batch(GRIDS, ()).digest
    with pytest.raises(ValueError, match="targets have the shape of the batch"):
        overfit(BetaVAE(4, 8, 8), GRIDS, targets=GRIDS[:3])
