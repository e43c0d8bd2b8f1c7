"""Options of `overfit` and `train` alike: the loss, the weights, the model and what moves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Scheme = Annotated[
    str | None,
    typer.Option(metavar="sqrt_inverse|inverse|balanced|effective|none", help="How counts become weights."),
]
Smooth = Annotated[float | None, typer.Option(help="Added to each count (1).")]
WeightsPower = Annotated[
    float | None, typer.Option(metavar="POWER", help="Raise the weights to this power: below 1 softens them (1).")
]
WeightsFile = Annotated[
    Path | None, typer.Option(readable=False, help="Your own class weights: .json, .npy or .safetensors.")
]
NoScan = Annotated[bool, typer.Option("--no-scan", help="Use cached counts only; exit 3 where there are none.")]
Gamma = Annotated[float | None, typer.Option(help="Focusing of the focal loss (2).")]
Reduction = Annotated[str | None, typer.Option(metavar="batch|mean|sum", help="Loss per grid, per cell, or in all.")]
Beta = Annotated[float | None, typer.Option(help="Weight of the KL term (0).")]
FreeBits = Annotated[
    float | None, typer.Option(metavar="NATS", help="KL of a latent dimension that costs nothing (0).")
]
LatentMode = Annotated[str | None, typer.Option(metavar="mu|sample", help="What the decoder is fed while fitting.")]
Init = Annotated[str | None, typer.Option(metavar="kaiming|rescaled|default", help="Initialisation of the network.")]
Optimiser = Annotated[
    str | None,
    typer.Option(
        "--optimizer", "--optimiser", metavar="adam|muon", help="Updates the weights; Muon leaves biases to Adam."
    ),
]
ChosenRate = Annotated[
    str | None, typer.Option(metavar="RATE|auto", help="Learning rate, on Adam's scale; auto tries six.")
]
Betas = Annotated[str | None, typer.Option(metavar="B1,B2", help="Adam's betas; B1 is Muon's momentum.")]
Warmup = Annotated[int | None, typer.Option(help="Steps of linear warm-up.")]
RateDecay = Annotated[str | None, typer.Option(metavar="isqrt|none|cosine", help="How the rate falls.")]
DecaySteps = Annotated[int | None, typer.Option(help="Steps after which isqrt has cost the rate 30 %.")]
Clip = Annotated[float | None, typer.Option(help="Largest gradient norm; 0 does not clip.")]
LatentDim = Annotated[int | None, typer.Option(help="Dimensions of the latent vector (32).")]
Model = Annotated[
    str | None,
    typer.Option(metavar="WHERE:NAME", help="Your own network: package.module:Name or path/to/file.py:Name."),
]
ModelArguments = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of its constructor; may be repeated.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in a folder that is not empty.")]
