"""Samples of a trained model: z ~ N(0, temperature^2 I), decoded to grids."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefit.cache.errors import SettingError, require, require_range

from ..environment.determinism import normal_noise, reproducible
from ..environment.device import choose_device, cpu_threads, fitting_memory, known_device, memory_is_full
from ..errors import RunError, described
from ..metrics.accuracy import Labels, distinct
from ..model.beta_vae import BetaVAE
from ..model.state import evaluating
from ..recipe import MAX_SEED, Recipe
from ..results.json_values import record_values
from ..results.training_summary import TrainSummary
from ..run_folder.folder import RunFolder
from ..run_folder.reader import StoredRun
from .trained_model import TrainedModel

SAMPLES = "samples.png"
MAX_COUNT = 1024
"""Grids in one picture."""
MAX_CELLS = 1 << 24
"""Cells of all grids in one picture; at a pixel a cell it is then larger than any screen."""
DECODE_BATCH = 256
MAX_TEMPERATURE = 1000.0

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class SampleSettings:
    """The settings of `vaefit-cli sample`; the names are those of its options.

    Raises SettingError for a value that is wrong by itself.
    """

    run: Path
    count: int = 32
    seed: int = 0
    temperature: float = 1.0
    """Standard deviation of z; 0 decodes the middle of the prior."""
    out: Path | None = None
    """None is `samples.png` in the run folder."""
    device: str = "auto"

    def __post_init__(self) -> None:
        require_range("--count", self.count, 1, MAX_COUNT)
        require_range("--seed", self.seed, 0, MAX_SEED)
        ok = 0 <= self.temperature <= MAX_TEMPERATURE
        require(ok, "--temperature", self.temperature, f"a number from 0 to {MAX_TEMPERATURE:g}")
        if self.out is not None:
            require(self.out.suffix.lower() == ".png", "--out", self.out, "the name of a file that ends in .png")
        known_device(self.device)


@dataclass(frozen=True)
class SampleSummary:
    """Result of `sample`: the picture, its grids and the distance of the codes from the prior."""

    file: str
    run: str
    step: int | None
    """Updates done when the model had its weights; None for an overfit run that is not finished."""
    count: int
    seed: int
    temperature: float
    latent_dim: int
    distinct: int
    """Number of different grids."""
    shares: tuple[float, ...]
    """Share of each class in the cells of all samples."""
    dataset_shares: tuple[float, ...] | None
    """The same for the dataset; None for an overfit run that is not finished."""
    beta: float
    """The largest of the run."""
    kl: float | None
    """KL of the posterior from the prior in nats a grid, on validation; None where the run did not measure it."""
    active_dimensions: int | None
    note: str
    """Relation between the codes of the data and the prior, in words."""

    def json(self) -> dict[str, Any]:
        """Return what `sample --json` prints."""
        return record_values(self)


def sample(settings: SampleSettings) -> SampleSummary:
    """Draw grids and write them as one picture; the same settings on the same machine write the same bytes.

    Raises RunError where the folder is not that of a run or has no whole weights, where the model cannot decode, or
    the picture cannot be written.
    """
    device = choose_device(settings.device)
    run = StoredRun.read(settings.run)
    height, width = run.config.height, run.config.width
    cells = settings.count * height * width
    if cells > MAX_CELLS:
        got = f"{settings.count} grids of {height} x {width}"
        do = f"Pass --count {max(MAX_CELLS // (height * width), 1)} or less."
        raise SettingError("so many grids make no picture to look at", "--count", got, do)
    trained = TrainedModel.load(run, device)
    latent_dim = _latent_dim(trained, device)
    # drawn at once on the CPU, so that the device and the size of a batch change no code
    drawn = normal_noise((settings.count, latent_dim), settings.seed)
    parts = torch.split(drawn * settings.temperature, DECODE_BATCH)
    with cpu_threads(None, cells), reproducible(settings.seed, device), fitting_memory(f"{cells:,} cells"):
        grids = np.concatenate([_decode(trained, part.to(device)) for part in parts])
    summary = _summary(settings, trained, latent_dim, grids)
    _write(settings, summary, grids, run.config.classes)
    return summary


def _latent_dim(trained: TrainedModel, device: torch.device) -> int:
    """Return the size of z; RunError where the model cannot decode, or the size is not known."""
    model, config = trained.model, trained.run.config
    name = type(model).__name__
    if not callable(getattr(model, "decode", None)):
        do = "Give it a method decode(z) that returns logits (B, C, H, W) of z (B, latent)."
        raise RunError("the model cannot decode: it has no method `decode`", name, do=do)
    if isinstance(model, BetaVAE):
        return model.latent_dim
    labels = torch.zeros((2, config.height, config.width), dtype=torch.int64, device=device)
    with torch.no_grad(), evaluating(model):
        _, mu, _ = trained.adapter.outputs(model, trained.adapter.inputs(labels, model))
    if mu is None or mu.dim() != 2:
        got = "no mu" if mu is None else f"mu {tuple(mu.shape)}"
        do = "Let it return logits, mu and logvar, with mu (B, latent)."
        raise RunError("the size of z is not known", name, got, do)
    return mu.shape[1]


def _decode(trained: TrainedModel, z: Tensor) -> Labels:
    """Return grids (B, H, W) of z (B, latent); RunError where the model decodes to another shape or to NaN."""
    model: Any = trained.model
    config = trained.run.config
    name, wanted = type(model).__name__, (len(z), config.classes, config.height, config.width)
    do = "Let decode(z) return logits (B, C, H, W) of z (B, latent)."
    try:
        with torch.no_grad(), evaluating(model):
            logits = model.decode(z)
    except Exception as error:
        if isinstance(model, BetaVAE) or memory_is_full(error):
            raise
        raise RunError(f"the model cannot decode z {tuple(z.shape)}", name, described(error), do) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
        got = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
        raise RunError(f"the model must decode z to logits {wanted}", name, got, do)
    if torch.isnan(logits).any():
        raise RunError("the model decodes to NaN", str(trained.run.folder), do="Train it again, at a lower --lr.")
    labels: Labels = logits.argmax(dim=1).cpu().numpy()
    return labels


def _summary(settings: SampleSettings, trained: TrainedModel, latent_dim: int, grids: Labels) -> SampleSummary:
    run, result = trained.run, trained.run.result
    kl, active = (result.kl, result.active_dimensions) if isinstance(result, TrainSummary) else (None, None)
    beta = run.recipe.largest_beta
    counts = () if run.dataset is None else run.dataset.counts
    total = sum(counts)
    return SampleSummary(
        file=str((settings.out or run.folder / SAMPLES).absolute()),
        run=str(run.folder.absolute()),
        step=trained.step,
        count=settings.count,
        seed=settings.seed,
        temperature=settings.temperature,
        latent_dim=latent_dim,
        distinct=distinct(grids),
        shares=tuple((np.bincount(grids.ravel(), minlength=run.config.classes) / grids.size).tolist()),
        dataset_shares=tuple(count / total for count in counts) if total else None,
        beta=beta,
        kl=kl,
        active_dimensions=active,
        note=_note(beta, run.settings.recipe, kl, active, latent_dim),
    )


def _note(beta: float, recipe: Recipe, kl: float | None, active: int | None, latent_dim: int) -> str:
    """Say how near the codes of the data are to the prior."""
    measured = ""
    if kl is not None:
        dimensions = "" if active is None else f", {active} of {latent_dim} dimensions active"
        measured = f" (KL {kl:.2f} nats a grid on validation{dimensions})"
    if beta == 0:
        return (
            f"beta was 0, so nothing pulled the codes of the data to the prior{measured}: samples from it need not "
            "look like the data"
        )
    means = ", though the decoder was fed means alone (--z mu)" if recipe.z == "mu" else ""
    return (
        f"beta up to {beta:g} pulled the codes of the data to the prior{means}{measured}: the nearer they came to it, "
        "the more samples look like the data"
    )


def _write(settings: SampleSettings, summary: SampleSummary, grids: Labels, classes: int) -> None:
    from ..report.contact_sheet import draw_contact_sheet

    after = "" if summary.step is None else f", weights of update {summary.step:,}"
    spread = "1" if settings.temperature == 1 else f"{settings.temperature:g}^2"
    lines = (
        "samples",
        f"z ~ N(0, {spread}) in {summary.latent_dim} dimensions, seed {settings.seed}{after}",
        f"{summary.distinct} of {summary.count} are different; largest beta of the run {summary.beta:g}",
    )
    file = Path(summary.file)
    RunFolder(file.parent).draw(file.name, partial(draw_contact_sheet, grids, classes, lines))
