"""Output of `vaefit-cli weights`: lines and a table, JSON, or CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import log1p
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vaefit.cache import DatasetCounts, Scheme, ShardCounts, weight_ratio
from vaefit.cache.hdf5.blocks import MAX_CLASSES

from .terminal import Terminal, new_table

Columns: TypeAlias = Mapping[Scheme, NDArray[np.float64]]
"""The weights (C,) of each scheme."""
BAR_WIDTH = 24
_BAR_TITLE = "cells (log scale)"
"""Head of the column of bars, and its least width; a terminal without that room shows no bars."""
_PADDING = 3
"""Width between two columns of a table."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def result_json(
    counted: ShardCounts, fresh: ShardCounts | None, columns: Columns, scheme: Scheme, verbose: bool, ranks: int | None
) -> dict[str, Any]:
    """Return the object of `--json`; `fresh` is the recount of `--verify`, `ranks` the size of a job."""
    ratios: dict[str, Any] = {n: {"weights": w.tolist(), "ratio": weight_ratio(w)} for n, w in columns.items()}
    result = {
        "counts": counted.counts.tolist(),
        **ratios[scheme],
        "scheme": scheme,
        **_source(counted),
        "seconds": counted.seconds,
        "dataset": counted.dataset,
        "passed_over": counted.passed_over,
        "ignore_index": counted.ignore_index,
    }
    if len(columns) > 1:
        result["schemes"] = ratios
    if fresh is not None:
        result["verified"] = differing(counted, fresh) == []
        result["recounted"] = fresh.counts.tolist()
    if verbose and ranks is not None:
        result["ranks"] = ranks
    if len(counted.shards) == 1:
        return {**result, **(_reading(counted.shards[0]) if verbose else {})}
    result["shards"] = [
        {"file": str(shard.location), **_source(shard), **(_reading(shard) if verbose else {})}
        for shard in counted.shards
    ]
    if fresh is not None:
        for shown, old, new in zip(result["shards"], counted.shards, fresh.shards, strict=True):
            shown["verified"] = old.counts.tolist() == new.counts.tolist()
    return result


def csv_lines(counted: ShardCounts, columns: Columns, scheme: Scheme) -> Iterator[str]:
    """Yield a header and a line for each class: cells, share (0 to 1), weight, then the weights of several schemes."""
    more = tuple(columns) if len(columns) > 1 else ()
    yield ",".join(("class", "count", "share", "weight", *more))
    for c, count in enumerate(counted.counts.tolist()):
        numbers = (count / max(counted.cells, 1), columns[scheme][c], *(columns[name][c] for name in more))
        yield ",".join((str(c), str(count), *(repr(float(number)) for number in numbers)))


def print_counts(
    terminal: Terminal, counted: ShardCounts, fresh: ShardCounts | None, verbose: bool, processes: int | None = None
) -> None:
    """Print the size of the dataset and the origin of its counts; with `verbose` the shards and routes too.

    `fresh` is the recount of `--verify`: its routes are printed then. `processes` is the size of a job.
    """
    _, height, width = counted.shape
    several = f" in {len(counted.shards):,} shards" if len(counted.shards) > 1 else ""
    size = f"{counted.grids:,} grids of {height} x {width}{several}"
    named = counted.dataset is None or counted.name.endswith(f":{counted.dataset}")
    name = counted.name if named else f"{counted.name}:{counted.dataset}"
    terminal.line(f"data    {name}: {size}, {counted.cells:,} cells counted")
    if counted.passed_over:
        terminal.line(f"passed over {', '.join(counted.passed_over)}")
    terminal.line(f"counts  {_origin(counted)}, {counted.seconds:.3f} s")
    if verbose and several:
        _print_shards(terminal, counted)
    if verbose:
        print_routes(terminal.line, fresh or counted)
    if verbose and processes is not None:
        terminal.line(f"ranks   {processes} counted together")


def print_routes(say: Callable[[str], None], counted: ShardCounts) -> None:
    """Print the routes by which files were scanned, and their reasons."""
    scanned = [_reading(shard) for shard in counted.shards if shard.source == "scan"]
    if not scanned:
        say("route   none: the cached counts are still true")
    ways = Counter((reading["route"], reading["reason"], reading["threads"]) for reading in scanned)
    for (route, reason, threads), shards in ways.items():
        where = f"{shards:,} shard{'s' if shards > 1 else ''}: " if len(counted.shards) > 1 else ""
        say(f"route   {where}{route}, {threads} thread{'s' if threads > 1 else ''} ({reason})")
    resumed = sum(reading["resumed"] for reading in scanned)
    if resumed:
        say(f"resumed {resumed:,} cells had been counted by a scan that was interrupted")


def print_weights(terminal: Terminal, counted: ShardCounts, columns: Columns) -> None:
    """Print the table of the classes, with bars if they fit, and the range of each scheme's weights."""
    titles = ("class", "cells", "share", *columns)
    table = new_table(None, right=titles, no_wrap=True)
    counts = counted.counts.tolist()
    rows = [
        (str(c), f"{n:,}", _share(n, counted.cells), *(f"{w[c]:.4f}" for w in columns.values()))
        for c, n in enumerate(counts)
        if n or len(counts) <= MAX_CLASSES
    ]
    taken = sum(max(map(len, column)) + _PADDING for column in zip(*rows, titles, strict=True))
    width = min(BAR_WIDTH, terminal.out.width - taken - _PADDING)
    if width >= len(_BAR_TITLE):
        table.add_column(_BAR_TITLE, no_wrap=True, style="cyan")
        plain = terminal.out.options.ascii_only
        rows = [(*row, text_bar(counts[int(row[0])], max(counts), width, plain)) for row in rows]
    for row in rows:
        table.add_row(*row)
    terminal.table(table)
    if len(rows) < len(counts):
        terminal.line(f"{len(counts) - len(rows):,} classes without a cell are not shown")
    for name, weights in columns.items():
        terminal.line(f"{name}: {weights.min():.4f} to {weights.max():.4f}, ratio {weight_ratio(weights):.2f}")


def print_recount(say: Callable[[str], None], counted: ShardCounts, fresh: ShardCounts) -> None:
    """Print the cached and the recounted counts of each shard where they differ."""
    different = differing(counted, fresh)
    if not different:
        say("verified: a recount gives the same")
    for old, new in different:
        where = f" of {old.location}" if len(counted.shards) > 1 else ""
        say(f"the recount{where} differs: {new.counts.tolist()}, cached are {old.counts.tolist()}")


def differing(counted: ShardCounts, fresh: ShardCounts) -> list[tuple[DatasetCounts, DatasetCounts]]:
    """Return the shards whose counts differ: cached, recounted."""
    pairs = zip(counted.shards, fresh.shards, strict=True)
    return [(old, new) for old, new in pairs if old.counts.tolist() != new.counts.tolist()]


def _share(count: int, cells: int) -> str:
    """Return a share in percent; a rare class is never shown as 0."""
    return "< 0.01 %" if 0 < count < 5e-5 * cells else f"{100 * count / max(cells, 1):.2f} %"


def _print_shards(terminal: Terminal, counted: ShardCounts) -> None:
    table = new_table(None)
    table.add_column("shard", overflow="fold")
    for title in ("first grid", "grids", "classes", "cells", "counts"):
        table.add_column(title, justify="right", no_wrap=True)
    first = 0
    for shard in counted.shards:
        numbers = (first, shard.grids, shard.classes, shard.cells)
        table.add_row(str(shard.location), *(f"{number:,}" for number in numbers), shard.source)
        first += shard.grids
    terminal.line()
    terminal.table(table)


def _origin(counted: ShardCounts) -> str:
    """Return where the counts come from, in words."""
    shards, cached = len(counted.shards), counted.cached
    if shards > 1:
        words = {0: "all scanned", shards: "all from their cached files"}
        return words.get(cached, f"{cached:,} from their cached files, {shards - cached:,} scanned")
    where = f" ({counted.cache_file})" if counted.cache_file else ""
    return f"{'from the cached file' if cached else 'scanned'}{where}"


def _source(counted: ShardCounts | DatasetCounts) -> dict[str, Any]:
    return {
        "grids": counted.grids,
        "cells": counted.cells,
        "source": counted.source,
        "cache_file": None if counted.cache_file is None else str(counted.cache_file),
        "digest": counted.digest,
    }


def _reading(shard: DatasetCounts) -> dict[str, Any]:
    """Return how a shard was read; the values are empty where its counts were cached."""
    return {"route": shard.route, "reason": shard.reason, "threads": shard.threads, "resumed": shard.resumed}


def text_bar(count: int, largest: int, width: int, only_ascii: bool = False) -> str:
    """Return a bar of characters, log(1 + count) long; the largest count has `width` of them, a count of 0 none.

    On a linear scale all classes but the background would have bars of the same length.
    """
    if count <= 0:
        return ""
    length = width * log1p(count) / log1p(largest)
    if only_ascii:
        return "#" * max(1, round(length))
    whole, eighths = divmod(max(1, round(8 * length)), 8)
    return ("█" * whole + _EIGHTHS[eighths]).rstrip()
