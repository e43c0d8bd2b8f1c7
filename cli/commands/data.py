"""`vaefit-cli data`: make or import a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options.parameters import DATA_FORMS, IgnoreIndex, OutputOptions, option, with_groups

data = typer.Typer(help="Make or import datasets of grids.", no_args_is_help=True, rich_markup_mode=None)
importing = typer.Typer(help="Import grids from other formats.", no_args_is_help=True, rich_markup_mode=None)
data.add_typer(importing, name="import")

Out = Annotated[Path, typer.Argument(readable=False, help="The HDF5 file to write.")]
Overwrite = Annotated[bool, option(..., "Replace the file if it exists.", "--overwrite")]


@data.command()
@with_groups
def synth(
    out: Out,
    grids: int = option(80_000, "Number of grids."),
    height: int = option(16, "Rows of a grid."),
    width: int = option(16, "Columns of a grid."),
    classes: int = option(10, "Classes, with the background."),
    seed: int = option(0, "Seed of the cells; the same seed gives the same cells."),
    overwrite: Overwrite = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Make a synthetic dataset: small objects on a background of about 93 %."""
    from vaefit.vae.data.hdf5_writer import refuse_existing, write_grids
    from vaefit.vae.data.synthetic import SyntheticSpec, synthesise

    terminal = output.terminal()
    refuse_existing(out, overwrite)
    spec = SyntheticSpec(grids, height, width, classes, seed)
    write_grids(out, synthesise(spec), classes, f"vaefit synthetic, seed {seed}", overwrite)
    terminal.line(f"wrote {grids:,} grids of {height} x {width}, {classes} classes, to {out}")
    terminal.json({"file": str(out), "grids": grids, "height": height, "width": width, "classes": classes})


@data.command()
@with_groups
def relabel(
    data: Annotated[str, typer.Argument(help=f"{DATA_FORMS}.")],
    out: Out,
    mapping: list[str] | None = option(None, "Label to replace; may be repeated.", "--map", metavar="OLD=NEW,..."),
    renumber: bool = option(False, "Number the labels from 0 without gaps, in order.", "--renumber"),
    ignore_index: IgnoreIndex = None,
    overwrite: Overwrite = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Copy a dataset with other labels."""
    from vaefit.vae.data.relabel import relabel as write_relabelled

    pairs = [pair for text in mapping or () for pair in text.split(",")]
    try:
        replaced = {int(old): int(new) for old, new in (pair.split("=") for pair in pairs)}
    except ValueError:
        raise typer.BadParameter(
            f"{','.join(pairs)!r} is not OLD=NEW,... in whole numbers", param_hint="--map"
        ) from None
    if not replaced and not renumber:
        raise typer.BadParameter("--map or --renumber says which labels change; pass one of them, or both")
    terminal = output.terminal()
    made = write_relabelled(data, out, replaced, renumber, ignore_index, overwrite)
    n, height, width = made.shape
    terminal.line(f"wrote {n:,} grids of {height} x {width}, {len(made.labels)} labels, to {out}")
    for old, new in made.labels.items():
        ignored = ", ignored" if new == made.ignore_index else ""
        terminal.line(f"{old} -> {new}{ignored}")
    for label in sorted(replaced.keys() - made.labels.keys()):
        terminal.note(f"no cell holds label {label}")
    terminal.json(
        {
            "file": str(out),
            "grids": n,
            "height": height,
            "width": width,
            "labels": {str(old): new for old, new in made.labels.items()},
            "ignore_index": made.ignore_index,
        }
    )


@importing.command()
@with_groups
def arc(
    folder: Annotated[Path, typer.Argument(readable=False, help="A folder of ARC tasks (JSON), read recursively.")],
    out: Out,
    max_side: int = option(16, "Leave out larger grids; pad smaller ones to this."),
    pad_class: int = option(0, "Class of the padding."),
    overwrite: Overwrite = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Import every train and test grid of a folder of ARC tasks."""
    from vaefit.vae.data.arc import CLASSES, import_arc
    from vaefit.vae.data.hdf5_writer import refuse_existing, write_grids

    terminal = output.terminal()
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
@with_groups
def npz(
    file: Annotated[Path, typer.Argument(readable=False, help="A .npz or .npy file with labels (N, H, W).")],
    out: Out,
    key: str | None = option(None, "Name of the array, if the .npz holds several."),
    classes: int | None = option(None, "Number of classes to store (the largest label + 1)."),
    overwrite: Overwrite = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Import a numpy array, in bounded memory."""
    from vaefit.cache.hdf5.blocks import MAX_CLASSES
    from vaefit.vae.data.numpy_import import import_numpy

    terminal = output.terminal()
    read = import_numpy(file, out, key, classes, overwrite)
    n, height, width = read.shape
    labels = f"labels {read.smallest} to {read.largest}"
    terminal.line(f"wrote {n:,} grids of {height} x {width}, {labels}, as {read.dtype} to {out}")
    if read.stored.shape != read.shape:
        terminal.note(f"shape {read.stored.shape} is stored as {read.shape}, without the axis of length 1")
    if read.passed_over:
        terminal.note(f"array {read.stored.name} was taken, passed over: {', '.join(read.passed_over)}")
    if read.smallest < 0 or read.largest >= MAX_CLASSES:
        other = "another label can only be the --ignore-index of a run"
        terminal.note(f"a class of a loss is 0 to {MAX_CLASSES - 1}; {other}, or be replaced by `data relabel`")
    terminal.json({
        "file": str(out), "grids": n, "height": height, "width": width, "classes": classes, "dtype": read.dtype,
        "smallest": read.smallest, "largest": read.largest, "array": read.stored.name or None,
        "passed_over": read.passed_over,
    })  # fmt: skip
