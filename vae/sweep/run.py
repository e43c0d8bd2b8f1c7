"""Run of a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from vaefit.cache.hdf5.grids import opened

from ..data.weights_file import read_weights
from ..errors import UserCodeError, VaefitError
from ..runs.overfit_run import Watcher, run_overfit
from .folder import SweepFolder
from .knob_effects import difference, effects
from .outcome import SettingOutcome, SweepOutcome, SweepRun
from .plan import Plan

Begins = Callable[[int, tuple[str, ...], int], Watcher]
"""Called before each run with its place, its values and the number of its seeds; returns the watcher of the run."""


def run_sweep(
    plan: Plan, out: Path | None = None, overwrite: bool = False, begins: Begins | None = None
) -> SweepOutcome:
    """Make every run of the plan; their run folders lie in the folder of the sweep.

    A run that ends with an error is a row of its own, and the others are made. An error of the first run that is not an
    exception of the user's model ends the sweep, and so does an error of every run.
    """
    start = time.perf_counter()
    checks = list(plan.checks())
    _check_files(plan)
    runs: list[SweepRun] = []
    first_error: VaefitError | None = None
    begun = False
    with SweepFolder.claimed(out, overwrite) as folder:
        for place, (setting, number, settings) in enumerate(checks):
            watcher = None if begins is None else begins(place, setting.values, number)
            where = folder.run_folder(place, plan.knobs, setting.values, number)
            try:
                run = run_overfit(replace(settings, out=where, overwrite=True), watcher)
            except VaefitError as error:
                if place == 0 and not isinstance(error, UserCodeError):
                    raise
                first_error = first_error or error
                seeds = (settings.seed, settings.batch_seed)
                runs.append(SweepRun(setting.values, number, *seeds, "ERROR", error=str(error)))
            else:
                runs.append(SweepRun.from_run(setting.values, number, run))
                if not begun:  # a sweep in which every run fails leaves an earlier one as it was
                    folder.begin(plan.knobs)
                    for earlier in runs[:-1]:
                        folder.add(earlier)
                    begun = True
            if begun:
                folder.add(runs[-1])
        if first_error is not None and not begun:
            raise first_error
        outcome = _outcome(plan, runs, time.perf_counter() - start, folder.path)
        folder.finish(outcome)
    return outcome


def _outcome(plan: Plan, runs: list[SweepRun], seconds: float, folder: Path) -> SweepOutcome:
    values, numbers = [run.values for run in runs], [run.number for run in runs]
    found = effects([run.score for run in runs], values, numbers, [knob.name for knob in plan.knobs])
    groups = groupby(runs, key=lambda run: run.values)  # runs of one setting follow one another
    return SweepOutcome(
        knobs=plan.knobs,
        seeds=plan.seeds,
        settings=tuple(SettingOutcome.from_runs(list(members)) for _, members in groups),
        effects=found,
        difference=difference(found, plan.knobs, runs),
        runs=tuple(runs),
        seconds=seconds,
        run_dir=str(folder),
    )


def _check_files(plan: Plan) -> None:
    """Open every file that the plan names: a wrong name must not end a sweep half-way."""
    for data in dict.fromkeys(str(setting.settings.data) for setting in plan.settings):
        with opened(data):
            pass
    for file in dict.fromkeys(setting.settings.weights_file for setting in plan.settings):
        if file is not None:
            read_weights(file)
