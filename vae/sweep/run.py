"""Running a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from vaefit.cache.hdf5.grids import opened

from ..data.weights_file import read_weights
from ..runs.overfit_run import Watcher, run_overfit
from ..settings import CheckSettings
from .conclusion import difference
from .folder import SweepFolder
from .outcome import SettingOutcome, SweepOutcome, SweepRun
from .plan import Plan
from .rank_anova import effects

Begins = Callable[[int, tuple[str, ...], int], Watcher]
"""Told of each run before it begins: its place, its values and the number of its seeds; gives the check's watcher."""


def run_sweep(
    plan: Plan, out: Path | None = None, overwrite: bool = False, begins: Begins | None = None
) -> SweepOutcome:
    """Make every run of the plan and leave a folder behind, with the run folders in it.

    Errors are those of `run_check`; the rows of the runs before the error stay in `sweep.csv`.
    """
    start = time.perf_counter()
    checks = list(plan.checks())
    _preflight(plan)
    folder = SweepFolder.claim(out, overwrite)
    runs: list[SweepRun] = []
    try:
        for place, (setting, number, told) in enumerate(checks):
            watcher = None if begins is None else begins(place, setting.values, number)
            runs.append(_one(plan, folder, place, setting.values, number, told, watcher))
    except BaseException:
        folder.release()
        raise
    outcome = _outcome(plan, runs, time.perf_counter() - start, str(folder.path))
    folder.finish(outcome)
    return outcome


def _preflight(plan: Plan) -> None:
    """Open every file that the plan names: a wrong name must not end a sweep half-way."""
    for data in dict.fromkeys(str(setting.settings.data) for setting in plan.settings):
        with opened(data):
            pass
    for file in dict.fromkeys(setting.settings.weights_file for setting in plan.settings):
        if file is not None:
            read_weights(file)


def _one(
    plan: Plan,
    folder: SweepFolder,
    place: int,
    values: tuple[str, ...],
    number: int,
    told: CheckSettings,
    watcher: Watcher | None,
) -> SweepRun:
    where = folder.run_folder(place, plan.knobs, values, number)
    check = run_overfit(replace(told, out=where, overwrite=True), watcher)
    if place == 0:  # a sweep whose first run fails leaves an earlier one as it was
        folder.begin(plan.knobs)
    run = SweepRun.from_run(values, number, check)
    folder.add(run)
    return run


def _outcome(plan: Plan, runs: list[SweepRun], seconds: float, run_dir: str) -> SweepOutcome:
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
        run_dir=run_dir,
    )
