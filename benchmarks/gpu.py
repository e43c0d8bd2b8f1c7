"""All checks and benchmarks that need a GPU, in one call: `python -m vaefit.benchmarks.gpu FOLDER`.

First the tests of the kernels and of the captured step, on the device; then compute-sanitizer over one launch of every
kernel; then the requirements on the kernels; then the benchmarks, and a short training run. Each part writes its output
to FOLDER, and FOLDER/summary.json holds the exit code of each, with the device's name, driver and versions. Run it from
the checkout's root; `PYTHONPATH=.` makes it importable if vaefit is not installed. A part that fails does not stop the
others.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vaefit.kernels import confusion_counts, focal_loss, focal_loss_with_counts
from vaefit.vae.environment.hardware import Machine

from .kernels.clock import GPU_CALLS, CudaClock

SECONDS = 1200
"""Time limit of each part."""
REPEATS = 100
SANITISED = ("memcheck", "racecheck")


def parts() -> dict[str, list[str]]:
    """Return the parts in order: name to command."""
    python = sys.executable
    cli = [python, "-m", "vaefit.cli", "bench"]
    tests = [
        "tests/kernels/_triton/test_focal_kernel.py",
        "tests/kernels/test_custom_op.py",
        "tests/vae/fitting/test_graph_stepper.py",
        "tests/vae/objective/test_preflight.py",
    ]
    found = {"tests": [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]}
    if shutil.which("compute-sanitizer"):
        for tool in SANITISED:
            call = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
            found[tool] = [*call, python, "-m", "vaefit.benchmarks.gpu", "--launch-all"]
    found["holds"] = [python, "-m", "vaefit.benchmarks.gpu", "--holds"]
    found["kernels"] = [*cli, "kernels", "--device", "cuda", "--json"]
    found["step"] = [*cli, "step", "--device", "cuda", "--json"]
    found["loader"] = [*cli, "loader", "--device", "cuda", "--quick", "--json"]
    run = str(Path(tempfile.gettempdir()) / "vaefit-gpu-train")
    train = ["train", "--device", "cuda", "--epochs", "2", "--limit", "20000", "--out", run, "--overwrite", "--json"]
    found["train"] = [python, "-m", "vaefit.cli", *train]
    return found


def launch_all() -> None:
    """Launch each kernel once, on few cells: a sanitizer makes every access a hundred times slower."""
    for classes in (2, 10, 14, 21, 27, 40):
        logits = torch.randn(3, classes, 16, 16, device="cuda", requires_grad=True)
        targets = torch.randint(0, classes, (3, 16, 16), device="cuda")
        targets[0, 0] = -100
        loss, _ = focal_loss_with_counts(logits, targets)
        (3 * loss).backward()  # type: ignore[no-untyped-call]
        confusion_counts(logits, targets)
        confusion_counts(logits.argmax(1), targets, num_classes=classes)
        focal_loss(logits.detach(), targets, gamma=0.5, reduction="none")
    torch.cuda.synchronize()


def holds() -> dict[str, Any]:
    """Return the number of different losses in all repeats, and the time ratios of one class and of the counts."""
    found: dict[str, Any] = {}
    for classes, side in ((10, 64), (40, 64)):
        logits = torch.randn(256, classes, side, side, device="cuda", requires_grad=True)
        mixed = torch.randint(0, classes, (256, side, side), device="cuda")
        losses = {focal_loss(logits, mixed).item() for _ in range(REPEATS)}
        one = torch.zeros_like(mixed)
        black = torch.zeros_like(logits)
        black[:, 0] = 5.0
        found[f"{classes} classes"] = {
            "different losses": len(losses),
            "one colour over mixed": _time(black.requires_grad_(), one, True) / _time(logits, mixed, True),
            "counts over none": _time(logits, mixed, True) / _time(logits, mixed, False),
        }
    return found


def _time(logits: torch.Tensor, targets: torch.Tensor, counts: bool) -> float:
    """Return the seconds of loss and gradient, with counts or without."""
    function: Callable[..., object] = focal_loss_with_counts if counts else focal_loss
    clock, inputs = CudaClock(), [(logits, targets)] * GPU_CALLS
    clock.sample(lambda pair: function(*pair), inputs)  # compiles
    return clock.sample(lambda pair: function(*pair), inputs)


def main() -> int:
    """Run every part and write the summary; return 0 if all parts passed."""
    if sys.argv[1:] == ["--launch-all"]:
        launch_all()
        return 0
    if sys.argv[1:] == ["--holds"]:
        print(json.dumps(holds()))
        return 0
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    machine = Machine.from_system()
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    summary: dict[str, Any] = {"gpu": machine.gpu, "driver": driver.stdout.strip(), "versions": machine.versions}
    for name, command in parts().items():
        start = time.perf_counter()
        with (folder / f"{name}.txt").open("w") as out:
            try:
                code: int | None = subprocess.run(
                    command, stdout=out, stderr=subprocess.STDOUT, check=False, timeout=SECONDS
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
        summary[name] = {"exit": code, "seconds": round(time.perf_counter() - start, 1), "command": " ".join(command)}
        print(f"{name:<12}{'timed out' if code is None else f'exit {code}'}", flush=True)
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if all(summary[name]["exit"] == 0 for name in parts()) else 1


if __name__ == "__main__":
    sys.exit(main())
