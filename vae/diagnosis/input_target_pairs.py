"""Checks of the inputs and targets of a batch: contradictions, and targets in another order or place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data.batch import Batch
from ..metrics.accuracy import Accuracies, BaselineShares, Labels, kept_cells, retrieval
from ..metrics.diagnosis import Finding
from ..metrics.verdict import Evidence, memorised

MOST = 0.5
"""Least share of the grids that must follow a rule."""

Move = Callable[[Labels], Labels]
_MOVES: dict[str, Move] = {
    "moved one row down": lambda g: np.roll(g, 1, axis=1),
    "moved one row up": lambda g: np.roll(g, -1, axis=1),
    "moved one column right": lambda g: np.roll(g, 1, axis=2),
    "moved one column left": lambda g: np.roll(g, -1, axis=2),
    "upside down": lambda g: g[:, ::-1],
    "mirrored": lambda g: g[:, :, ::-1],
    "turned by 180 degrees": lambda g: g[:, ::-1, ::-1],
    "transposed": lambda g: g.transpose(0, 2, 1),
}


def contradiction_finding(batch: Batch, classes: int, ignore_index: int | None, target: float) -> Finding | None:
    """Return the best possible accuracies if equal inputs have different targets; None if they have not.

    The best answer to equal inputs is, for each cell, the most frequent class of their targets. The finding is
    suspicious if this answer does not memorise the batch.
    """
    _, group = np.unique(batch.grids.reshape(len(batch.grids), -1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    best, kept = batch.targets.copy(), kept_cells(batch.targets, ignore_index)
    contradicted = 0
    for g in range(int(group.max()) + 1):
        rows = np.flatnonzero(group == g)
        wanted = batch.targets[rows]
        if (wanted == wanted[:1]).all():
            continue
        contradicted += len(rows)
        held = np.stack([((wanted == c) & kept[rows]).sum(axis=0) for c in range(classes)])
        best[rows] = held.argmax(axis=0)
    if not contradicted:
        return None
    pairs = batch.targets[kept] * classes + best[kept]
    accuracies = Accuracies.from_confusion(np.bincount(pairs, minlength=classes * classes).reshape(classes, classes))
    skill = BaselineShares.from_targets(batch.targets, classes, ignore_index).skill(accuracies.pixel)
    evidence = Evidence(accuracies, skill, retrieval(best, batch.targets, ignore_index), own_inputs=True)
    words = (
        f"{contradicted} of {len(best)} grids have equals with another target; the best answer to them reaches "
        f"pixel accuracy {accuracies.pixel:.3f}, worst class {accuracies.worst:.3f}"
    )
    return Finding("contradictions", words, suspicious=not memorised(evidence, target))


def alignment_finding(batch: Batch, ignore_index: int | None) -> Finding | None:
    """Return the rule by which the targets are the inputs in another order or place, or their agreement.

    None if the targets are the batch itself. Suspicious if at least `MOST` of the grids follow one rule.
    """
    if batch.other_targets is None:
        return None
    inputs, targets = batch.grids, batch.targets
    kept = kept_cells(targets, ignore_index)
    flat = [grid.tobytes() for grid in inputs]
    elsewhere = [t.tobytes() != flat[i] and t.tobytes() in flat for i, t in enumerate(targets)]
    if np.mean(elsewhere) >= MOST:
        words = f"{sum(elsewhere)} of {len(targets)} targets are the input of another grid"
        return Finding("inputs and targets", words, suspicious=True)
    different = (inputs != targets).any(axis=(1, 2))
    for name, move in _MOVES.items():
        moved = move(inputs)
        if moved.shape != targets.shape:
            continue  # only square grids can be transposed
        found = ((moved == targets) | ~kept).all(axis=(1, 2)) & different
        if found.mean() >= MOST:
            words = f"{int(found.sum())} of {len(targets)} targets are their input {name}"
            return Finding("inputs and targets", words, suspicious=True)
    own = float((inputs == targets)[kept].mean())
    return Finding("inputs and targets", f"they agree in {100 * own:.1f} % of the cells", suspicious=False)
