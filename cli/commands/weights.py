"""`vaefit-cli weights`."""

from __future__ import annotations

from pathlib import Path

import typer

from ..options.parameters import (
    AsJson,
    CacheDir,
    Classes,
    DataOrShards,
    EffectiveB,
    IgnoreIndex,
    Quiet,
    RankTimeout,
    Scheme,
    option,
)


def weights(
    ctx: typer.Context,
    data: DataOrShards = None,
    rebuild: bool = option(False, "Scan again and replace the cached counts.", "--rebuild"),
    verify: bool = option(False, "Recount and compare with the cached counts; exit 1 if they differ.", "--verify"),
    scheme: Scheme = "sqrt_inverse",
    all_schemes: bool = option(False, "Show every scheme side by side.", "--all-schemes"),
    smooth: float = option(1.0, "Number added to each count."),
    effective_b: EffectiveB = None,
    export: Path | None = option(None, "Write the weights to FILE.json, .npy or .safetensors.", metavar="FILE"),
    overwrite: bool = option(False, "Replace the file of --export if it exists.", "--overwrite"),
    classes: Classes = None,
    ignore_index: IgnoreIndex = None,
    cache_dir: CacheDir = None,
    threads: int | None = option(None, "Threads of a scan (one per processor, at most 4)."),
    rank_timeout: RankTimeout = 600.0,
    as_csv: bool = option(False, "Print class,count,share,weight, then all schemes if shown; nothing else.", "--csv"),
    as_json: AsJson = False,
    verbose: bool = option(False, "Show how each file was read, and why.", "--verbose", "-v"),
    quiet: Quiet = False,
) -> None:
    """Show, build or rebuild the cached class counts and weights of a dataset.

    Several files, or the files of a quoted pattern ('train-*.h5', 'shards/**/*.h5:/grids'), are one dataset, each with
    a cached file of its own.
    """
    if rebuild and verify:
        raise typer.BadParameter("--rebuild replaces what --verify would check; pass one of them")
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json both say what stdout holds; pass one of them")
    if overwrite and export is None:
        raise typer.BadParameter("--overwrite replaces the file that --export names; pass both, or neither")
    from vaefit.cache import SCHEMES, class_weights, count_shards
    from vaefit.cache.communicator import from_rank_zero
    from vaefit.cache.errors import require_range
    from vaefit.cache.schemes import check_scheme
    from vaefit.cache.shard_counts import stored_shard_counts
    from vaefit.vae.data.synthetic import embedded_corpus

    from ..output import weights_table
    from ..output.terminal import Terminal
    from ..torchrun import joined_ranks, prints

    if export is not None:
        from vaefit.vae.data.weights_file import check_export, write_weights
    terminal = Terminal(as_json, quiet, as_csv)
    check_scheme(scheme, smooth, effective_b)
    if threads is not None:
        require_range("--threads", threads, 1, 1024)
    chosen = next(name for name in SCHEMES if name == scheme)
    with joined_ranks(ctx) as ranks:
        if export is not None and prints():
            check_export(export, overwrite)
        named = data or from_rank_zero(ranks, lambda: embedded_corpus(terminal.note))
        with terminal.progress() as progress:
            stored = None
            if verify:
                stored = from_rank_zero(ranks, lambda: stored_shard_counts(named, classes, ignore_index, cache_dir))
            found = count_shards(
                named if stored is None else [shard.location for shard in stored.shards],
                classes=classes, ignore_index=ignore_index, cache_dir=cache_dir, use_cache=not verify, rebuild=rebuild,
                threads=threads, progress=progress.counting, ranks=ranks,
            )  # fmt: skip
        counted, fresh = (found, None) if stored is None else (stored, found)
        columns = {
            name: class_weights(counted.counts, scheme=name, smooth=smooth, effective_b=effective_b)
            for name in (SCHEMES if all_schemes else (chosen,))
        }
        processes = None if ranks is None else ranks.size
        result = weights_table.result_json(counted, fresh, columns, chosen, verbose, processes)
        same = fresh is None or not weights_table.differing(counted, fresh)
        weights_table.print_counts(terminal, counted, fresh, verbose, processes)
        weights_table.print_weights(terminal, counted, columns)
        if as_csv and verbose:
            weights_table.print_routes(terminal.note, fresh or counted)
        if fresh is not None:
            weights_table.print_recount(terminal.note if as_csv else terminal.line, counted, fresh)
        if export is not None and same and prints():
            # no paths or times, so that equal weights give equal files
            origin = {key: result[key] for key in ("counts", "scheme", "grids", "digest")}
            write_weights(export, columns[chosen], origin)
            say = terminal.note if as_csv or as_json else terminal.line
            say(f"wrote the {scheme} weights to {export}")
        terminal.csv(weights_table.csv_lines(counted, columns, chosen))
        terminal.json(result)
    # outside the job: typer ends a command by an exception, which a job reports to the other ranks
    raise typer.Exit(0 if same else 1)
