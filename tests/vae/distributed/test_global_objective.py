"""Tests that the objective of a batch on several ranks, and its gradient, are those of one process."""

from __future__ import annotations

import pytest
import torch

from tests.ranks_as_threads import ThreadRank, together
from vaefit.cache.communicator import portion
from vaefit.vae.distributed.global_objective import GlobalObjective
from vaefit.vae.objective.objective import NO_LABEL, Objective

CLASSES, LATENT, IGNORED = 4, 3, 9


class TensorRank(ThreadRank):
    """A rank that adds up tensors too, as a job does."""

    def add_tensor(self, numbers):
        return torch.from_numpy(self.add(numbers.numpy()))


def batch(grids, *, ignoring):
    rng = torch.Generator().manual_seed(5)
    labels = torch.randint(0, CLASSES, (grids, 4, 6), generator=rng)
    if ignoring:  # all of the first grid, none of the last
        labels[torch.rand(labels.shape, generator=rng) < torch.linspace(1, 0, grids).view(-1, 1, 1)] = IGNORED
    logits = torch.randn(grids, CLASSES, 4, 6, dtype=torch.float64, generator=rng)
    mu, logvar = (torch.randn(grids, LATENT, dtype=torch.float64, generator=rng) for _ in range(2))
    return labels, logits, mu, logvar


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("reduction", ["batch", "mean", "sum"])
@pytest.mark.parametrize(("beta", "free_bits"), [(0.0, 0.0), (0.7, 0.0), (0.7, 0.6)])
@pytest.mark.parametrize("ignoring", [False, True])
def test_losses_counts_and_gradients_are_those_of_one_process(ranks, reduction, beta, free_bits, ignoring):
    labels, *inputs = batch(7, ignoring=ignoring)
    weight = torch.tensor([0.2, 1.0, 1.5, 3.0])
    one = Objective(weight, 2.0, reduction, IGNORED if ignoring else NO_LABEL, "eager", free_bits)
    whole = [part.clone().requires_grad_() for part in inputs]
    expected = one(whole[0], labels, whole[1], whole[2], beta)
    expected.total.backward()

    def measured(rank):
        rows, everywhere = portion(7, rank.rank, rank.size), GlobalObjective.from_objective(rank, one)
        own = [part[rows].clone().requires_grad_() for part in inputs]
        losses = everywhere(own[0], labels[rows], own[1], own[2], beta)
        losses.total.backward()
        return rows, own, losses

    found = together(ranks, measured, TensorRank)
    assert len(found) == ranks
    if free_bits:
        mean = 0.5 * (inputs[1] ** 2 + inputs[2].exp() - 1 - inputs[2]).mean(0)
        assert 0 < int((mean < free_bits).sum()) < LATENT, "the floor holds for some dimensions alone"
    for rows, own, losses in found:
        for name in ("total", "focal", "kl"):
            torch.testing.assert_close(getattr(losses, name), getattr(expected, name), rtol=1e-12, atol=0)
        assert torch.equal(losses.counts, expected.counts)
        assert losses.logits.shape[0] == rows.stop - rows.start
        for mine, theirs in zip(own, whole, strict=True):
            if theirs.grad is None:
                assert mine.grad is None
            else:
                torch.testing.assert_close(mine.grad / ranks, theirs.grad[rows], rtol=1e-9, atol=1e-14)


def test_a_batch_of_ignored_cells_alone_has_no_loss_and_no_gradient():
    labels, logits, *_ = batch(2, ignoring=False)
    labels[:] = IGNORED
    own = logits[:1].requires_grad_()

    def measured(rank):
        one = Objective(torch.ones(CLASSES), 2.0, "mean", IGNORED, "eager")
        losses = GlobalObjective.from_objective(rank, one)(own, labels[:1], None, None, 0.0)
        losses.total.backward()
        return losses

    (losses,) = together(1, measured, TensorRank)
    assert losses.total.item() == 0
    assert losses.kl is None
    assert not own.grad.any()
