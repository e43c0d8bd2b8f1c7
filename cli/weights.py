"""`vaefit-cli weights`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, CacheDir, Classes, Data, EffectiveB, IgnoreIndex, Quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vaefit.cache import DatasetCounts, Scheme

    from .console import Terminal


def weights(
    data: Data = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Scan again, whatever is cached.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recount and compare with the cached counts; exit 1 if they differ.")
    ] = False,
    scheme: Annotated[
        str, typer.Option(metavar="sqrt_inverse|inverse|balanced|effective|none", help="How counts become weights.")
    ] = "sqrt_inverse",
    all_schemes: Annotated[bool, typer.Option("--all-schemes", help="Show every scheme side by side.")] = False,
    smooth: Annotated[float, typer.Option(help="Added to each count.")] = 1.0,
    effective_b: EffectiveB = None,
    export: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="Write the weights to FILE.json, .npy or .safetensors."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the exported file if it exists.")] = False,
    classes: Classes = None,
    ignore_index: IgnoreIndex = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show, build or rebuild the cached class counts and weights of a dataset."""
    if rebuild and verify:
        raise typer.BadParameter("--rebuild replaces what --verify would check; pass one of them")
    from vaefit.cache import SCHEMES, class_weights, count_dataset, weight_ratio
    from vaefit.cache.counts import stored_counts
    from vaefit.cache.weights import check_scheme
    from vaefit.vae.grids.corpus import embedded_corpus

    from .console import Terminal

    terminal = Terminal(as_json, quiet)
    check_scheme(scheme, smooth, effective_b)
    if export is not None:
        from vaefit.vae.weights_file import check_export, write_weights

        check_export(export, overwrite)
    location = embedded_corpus(terminal.note) if data is None else data
    with terminal.progress() as progress:
        fresh = None
        if verify:
            counted = stored_counts(location, classes, ignore_index, cache_dir)
            fresh = count_dataset(location, classes, ignore_index, use_cache=False, progress=progress.counting)
        else:
            counted = count_dataset(
                location, classes, ignore_index, cache_dir, rebuild=rebuild, progress=progress.counting
            )
    chosen_scheme = next(name for name in SCHEMES if name == scheme)
    shown = SCHEMES if all_schemes else (chosen_scheme,)
    columns = {name: class_weights(counted.counts, name, smooth, effective_b) for name in (*shown, chosen_scheme)}
    chosen = columns[chosen_scheme]
    result: dict[str, Any] = {
        "counts": counted.counts.tolist(),
        "weights": chosen.tolist(),
        "ratio": weight_ratio(chosen),
        "scheme": scheme,
        "grids": counted.grids,
        "cells": counted.cells,
        "source": counted.source,
        "cache_file": None if counted.cache_file is None else str(counted.cache_file),
        "digest": counted.digest,
        "seconds": counted.seconds,
    }
    if all_schemes:
        result["schemes"] = {n: {"weights": w.tolist(), "ratio": weight_ratio(w)} for n, w in columns.items()}
    same = fresh is None or fresh.counts.tolist() == counted.counts.tolist()
    if fresh is not None:
        result["verified"] = same
        result["recounted"] = fresh.counts.tolist()
    _print(terminal, counted, columns, shown)
    if fresh is not None:
        terminal.line("verified: a recount gives the same" if same else f"the recount differs: {fresh.counts.tolist()}")
    if export is not None and same:
        write_weights(export, chosen, _origin(result, counted))
        terminal.line(f"wrote the {scheme} weights to {export}")
    terminal.json(result)
    raise typer.Exit(0 if same else 1)


def _origin(result: dict[str, Any], counted: DatasetCounts) -> dict[str, Any]:
    """What an exported file says about its weights; no paths or times, so that equal weights give equal files."""
    return {"counts": result["counts"], "scheme": result["scheme"], "grids": counted.grids, "digest": counted.digest}


def _print(
    terminal: Terminal, counted: DatasetCounts, columns: dict[Scheme, NDArray[np.float64]], shown: tuple[Scheme, ...]
) -> None:
    from rich.table import Table

    from vaefit.cache import weight_ratio

    n, height, width = counted.shape
    terminal.line(f"data    {counted.location}: {n:,} grids of {height} x {width}, {counted.cells:,} cells counted")
    where = f" ({counted.cache_file})" if counted.cache_file else ""
    terminal.line(
        f"counts  {'from the cached file' if counted.source == 'cache' else 'scanned'}{where}, {counted.seconds:.3f} s"
    )
    table = Table()
    for title in ("class", "cells", "share", *shown):
        table.add_column(title, justify="right")
    for c, count in enumerate(counted.counts.tolist()):
        share = f"{100 * count / max(counted.cells, 1):.2f} %"
        table.add_row(str(c), f"{count:,}", share, *(f"{columns[name][c]:.4f}" for name in shown))
    terminal.table(table)
    for name in shown:
        low, high = columns[name].min(), columns[name].max()
        terminal.line(f"{name}: {low:.4f} to {high:.4f}, ratio {weight_ratio(columns[name]):.2f}")
