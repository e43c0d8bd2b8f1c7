"""`vaefit-cli data`: make or import a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options.parameters import AsJson, Quiet, option

data = typer.Typer(help="Make or import datasets of grids.", no_args_is_help=True, rich_markup_mode=None)
importing = typer.Typer(help="Import grids from other formats.", no_args_is_help=True, rich_markup_mode=None)
data.add_typer(importing, name="import")

Out = Annotated[Path, typer.Argument(readable=False, help="The HDF5 file to write.")]
Overwrite = Annotated[bool, option("Replace the file if it exists.", "--overwrite")]


@data.command()
def synth(
    out: Out,
    grids: Annotated[int, option("Number of grids.")] = 80_000,
    height: Annotated[int, option("Rows of a grid.")] = 16,
    width: Annotated[int, option("Columns of a grid.")] = 16,
    classes: Annotated[int, option("Classes, with the background.")] = 10,
    seed: Annotated[int, option("Seed of the cells; the same seed gives the same cells.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a synthetic dataset: small objects on a background of about 93 %."""
    from vaefit.vae.data.hdf5_writer import refuse_existing, write_grids
    from vaefit.vae.data.synthetic import SyntheticSpec, synthesise

    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    refuse_existing(out, overwrite)
    spec = SyntheticSpec(grids, height, width, classes, seed)
    write_grids(out, synthesise(spec), classes, f"vaefit synthetic, seed {seed}", overwrite)
    terminal.line(f"wrote {grids:,} grids of {height} x {width}, {classes} classes, to {out}")
    terminal.json({"file": str(out), "grids": grids, "height": height, "width": width, "classes": classes})


@importing.command()
def arc(
    folder: Annotated[Path, typer.Argument(readable=False, help="A folder of ARC tasks (JSON), read recursively.")],
    out: Out,
    max_side: Annotated[int, option("Leave out larger grids; pad smaller ones to this.")] = 16,
    pad_class: Annotated[int, option("Class of the padding.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Import every train and test grid of a folder of ARC tasks."""
    from vaefit.vae.data.arc import CLASSES, import_arc
    from vaefit.vae.data.hdf5_writer import refuse_existing, write_grids

    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    refuse_existing(out, overwrite)
    read = import_arc(folder, max_side, pad_class)
    write_grids(
        out, read.grids, CLASSES, f"ARC tasks, grids up to {max_side} x {max_side}, padded with {pad_class}", overwrite
    )
    terminal.line(f"wrote {len(read.grids):,} grids of {max_side} x {max_side} from {read.tasks:,} tasks to {out}")
    for reason, count in sorted(read.left_out.items()):
        terminal.line(f"left out: {count:,} {reason}")
    terminal.json({
        "file": str(out), "grids": len(read.grids), "height": max_side, "width": max_side, "classes": CLASSES,
        "tasks": read.tasks, "left_out": dict(read.left_out),
    })  # fmt: skip


@importing.command()
def npz(
    file: Annotated[Path, typer.Argument(readable=False, help="A .npz or .npy file with integers (N, H, W).")],
    out: Out,
    key: Annotated[str | None, option("Name of the array, if the .npz holds several.")] = None,
    classes: Annotated[int | None, option("Number of classes to store (the largest label + 1).")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Import a numpy array, in bounded memory."""
    from vaefit.cache.scan.histogram import MAX_CLASSES
    from vaefit.vae.data.numpy_import import import_numpy

    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    read = import_numpy(file, out, key, classes, overwrite)
    n, height, width = read.shape
    labels = f"labels {read.smallest} to {read.largest}"
    terminal.line(f"wrote {n:,} grids of {height} x {width}, {labels}, as {read.dtype} to {out}")
    if read.smallest < 0 or read.largest >= MAX_CLASSES:
        terminal.note(f"a class is 0 to {MAX_CLASSES - 1}; another label can only be the --ignore-index of a run")
    terminal.json({
        "file": str(out), "grids": n, "height": height, "width": width, "classes": classes, "dtype": read.dtype,
        "smallest": read.smallest, "largest": read.largest,
    })  # fmt: skip
