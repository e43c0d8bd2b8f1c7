"""Run of a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from vaefit.cache.hdf5.grids import opened

from ..data.weights_file import read_weights
from ..errors import UserCodeError, VaefitError
from ..runs.overfit_run import Watcher, run_overfit
from ..settings import CheckSettings
from ..training.interrupt import StopRequest, stop_request
from .folder import SweepFolder
from .knob_effects import difference, effects
from .outcome import Effect, SettingOutcome, SweepOutcome, SweepRun
from .plan import Knob, Plan, Setting

Begins = Callable[[int, tuple[str, ...], int], Watcher]
"""Called before each run with its place, its values and the number of its seeds; returns the watcher of the run."""


def run_sweep(
    plan: Plan, out: Path | None = None, overwrite: bool = False, begins: Begins | None = None
) -> SweepOutcome:
    """Make every run of the plan; their run folders lie in the folder of the sweep.

    A run that ends with an error is a row of its own, and the others are made. An error of the first run that is not an
    exception of the user's model ends the sweep, and so does an error of every run.

    Ctrl-C or SIGTERM after the first step of the first run ends the sweep: the current run is written as one that was
    interrupted, and the sweep holds the runs that ended before. A second one raises KeyboardInterrupt.
    """
    start = time.perf_counter()
    checks = list(plan.checks())
    _check_files(plan)
    with stop_request() as request, SweepFolder.claimed(out, overwrite) as folder:
        runs, interrupted = _make_runs(checks, plan.knobs, folder, begins, request)
        outcome = _outcome(plan, runs, interrupted, time.perf_counter() - start, folder.path)
        folder.finish(outcome)
    return outcome


def _make_runs(
    checks: Sequence[tuple[Setting, int, CheckSettings]],
    knobs: tuple[Knob, ...],
    folder: SweepFolder,
    begins: Begins | None,
    request: StopRequest,
) -> tuple[list[SweepRun], bool]:
    """Return the runs that ended, and True if a stop was requested before the last one."""
    runs: list[SweepRun] = []
    first_error: VaefitError | None = None
    begun = False
    for place, (setting, number, settings) in enumerate(checks):
        request.expect_nothing()
        where = folder.run_folder(place, knobs, setting.values, number)
        try:
            watcher = None if begins is None else begins(place, setting.values, number)
            run = run_overfit(replace(settings, out=where, overwrite=True), watcher, request)
        except KeyboardInterrupt:
            if request.requested or not begun:
                raise
            return runs, True
        except VaefitError as error:
            if place == 0 and not isinstance(error, UserCodeError):
                raise
            first_error = first_error or error
            runs.append(SweepRun(setting.values, number, settings.seed, settings.batch_seed, "ERROR", error=str(error)))
        else:
            if not begun:  # a sweep in which every run fails leaves an earlier one as it was
                folder.begin(knobs)
                for earlier in runs:
                    folder.add(earlier)
                begun = True
            if run.result.interrupted:
                return runs, True
            runs.append(SweepRun.from_run(setting.values, number, run))
        if begun:
            folder.add(runs[-1])
        if request.requested and begun:
            return runs, len(runs) < len(checks)
    if first_error is not None and not begun:
        raise first_error
    return runs, False


def _outcome(plan: Plan, runs: list[SweepRun], interrupted: bool, seconds: float, folder: Path) -> SweepOutcome:
    values, numbers = [run.values for run in runs], [run.number for run in runs]
    found: tuple[Effect, ...] = ()
    told = f"interrupted after {len(runs)} of {plan.runs} runs: no option is compared"
    if not interrupted:  # the effects add up in a full grid alone
        found = effects([run.score for run in runs], values, numbers, [knob.name for knob in plan.knobs])
        told = difference(found, plan.knobs, runs)
    groups = groupby(runs, key=lambda run: run.values)  # runs of one setting follow one another
    return SweepOutcome(
        knobs=plan.knobs,
        seeds=plan.seeds,
        settings=tuple(SettingOutcome.from_runs(list(members)) for _, members in groups),
        effects=found,
        difference=told,
        runs=tuple(runs),
        seconds=seconds,
        run_dir=str(folder),
        interrupted=interrupted,
    )


def _check_files(plan: Plan) -> None:
    """Open every file that the plan names: a wrong name must not end a sweep half-way."""
    for data in dict.fromkeys(str(setting.settings.data) for setting in plan.settings):
        with opened(data):
            pass
    for file in dict.fromkeys(setting.settings.weights_file for setting in plan.settings):
        if file is not None:
            read_weights(file)
