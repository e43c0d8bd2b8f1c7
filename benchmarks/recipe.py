"""Table behind the default recipe: the updates that the check needs, over batches and latent sizes.

    python -m vaefit.benchmarks.recipe                     the embedded corpus
    python -m vaefit.benchmarks.recipe arc.h5 --seeds 10   any datasets, one after another

For each dataset and latent size: the number of batches that end MEMORISED, and median and worst of the three `reached`.
The exit code is 1 unless all batches do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vaefit.vae.data.synthetic import embedded_corpus
from vaefit.vae.recipe import recipe_with
from vaefit.vae.runs.overfit_run import run_overfit
from vaefit.vae.settings import CheckSettings


def main() -> int:
    """Run the checks, print the table, and return 1 unless all end MEMORISED."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="file.h5 or file.h5:/dataset; default: the embedded corpus")
    parser.add_argument("--seeds", type=int, default=10, help="batch seeds 0 to N-1")
    parser.add_argument("--latent", type=int, nargs="+", default=[32, 10])
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--weights", help="global, batch or none; default: the recipe's own")
    arguments = parser.parse_args()

    recipe = recipe_with(arguments.recipe, weights=arguments.weights)
    table = Table(
        title=f"recipe {arguments.recipe}, weights {recipe.weights}, {arguments.seeds} batches: median (worst)"
    )
    for column in ("data", "latent", "MEMORISED", "95 % pixel", "worst class 95 %", "exact", "CPU s a check"):
        table.add_column(column, justify="right")
    all_passed = True
    for data in arguments.data or [str(embedded_corpus())]:
        for latent in arguments.latent:
            results, seconds = [], []
            for seed in range(arguments.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    start = time.process_time()
                    settings = CheckSettings(
                        data=data, recipe=recipe, batch_seed=seed, latent_dim=latent, out=Path(folder)
                    )
                    results.append(run_overfit(settings).result)
                    seconds.append(time.process_time() - start)
            passed = sum(r.passed for r in results)
            all_passed &= passed == len(results)
            table.add_row(
                Path(data).name,
                str(latent),
                f"{passed}/{len(results)}",
                _spread([r.reached.pixel_95 for r in results]),
                _spread([r.reached.worst_class_95 for r in results]),
                _spread([r.reached.exact for r in results]),
                f"{statistics.median(seconds):.2f}",
            )
    Console(width=110).print(table)
    return 0 if all_passed else 1


def _spread(steps: list[int | None]) -> str:
    """Return median and worst; a run that never reached the goal is the worst."""
    values = [float("inf") if step is None else float(step) for step in steps]
    return f"{statistics.median(values):g} ({max(values):g})"


if __name__ == "__main__":
    sys.exit(main())
