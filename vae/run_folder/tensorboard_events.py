"""TensorBoard event file of an overfit run: scalars of each step, the verdict and the picture."""

from __future__ import annotations

import importlib
import io
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import RunError
from ..fitting.result import OverfitResult, Record

FOLDER = "tensorboard"
"""Name of the folder of event files in the run folder."""
_PROTO, _RECORDS = "tensorboard.compat.proto", "tensorboard.summary.writer.record_writer"


def require_tensorboard() -> None:
    """Raise RunError where the package tensorboard cannot be imported."""
    try:
        for module in (f"{_PROTO}.event_pb2", f"{_PROTO}.summary_pb2", _RECORDS):
            importlib.import_module(module)
    except (ImportError, TypeError) as error:  # TypeError: the installed protobuf is too new for its messages
        do = "Run: pip install 'tensorboard>=2.18'"
        raise RunError("the package tensorboard cannot be imported", "--tensorboard", str(error), do) from error


def remove_event_files(run: Path) -> None:
    """Remove the event files of an earlier run: TensorBoard would show both as one. OSError where that fails."""
    for file in (run / FOLDER).glob("*tfevents*"):
        file.unlink()
    with suppress(OSError):  # it does not exist, or the user keeps other files in it
        (run / FOLDER).rmdir()


def append_step(run: Path, record: Record) -> None:
    """Append the scalars of a step that are not None; OSError where that fails."""
    a = record.accuracies
    scalars = {name: getattr(record, name) for name in ("loss", "focal", "kl", "lr", "grad_norm")}
    scalars |= {"accuracy/pixel": a.pixel, "accuracy/macro": a.macro, "accuracy/worst_class": a.worst}
    scalars |= {f"class_accuracy/{c}": recall for c, recall in enumerate(a.classes)}
    _append(run, record.step, [{"tag": tag, "simple_value": v} for tag, v in scalars.items() if v is not None])


def append_result(run: Path, result: OverfitResult, picture: bytes) -> None:
    """Append the verdict and the PNG file of the reconstructions; OSError where that fails."""
    judged = result.judgement
    parts = (f"**{judged.verdict}** after {result.iterations} updates", judged.reason, judged.next)
    text = "\n\n".join(filter(None, parts)).encode()
    tensor = {"dtype": "DT_STRING", "string_val": [text], "tensor_shape": {"dim": [{"size": 1}]}}
    with Image.open(io.BytesIO(picture)) as image:
        shown = {"width": image.width, "height": image.height, "colorspace": 3, "encoded_image_string": picture}
    verdict = {"tag": "verdict", "metadata": {"plugin_data": {"plugin_name": "text"}}, "tensor": tensor}
    _append(run, result.iterations, [verdict, {"tag": "reconstructions", "image": shown}])


def _append(run: Path, step: int, values: list[dict[str, Any]]) -> None:
    """Append an event to the event file of a run; the first call makes the file.

    The thread of torch's SummaryWriter prints a traceback where the disk is full: tensorboard's RecordWriter has none.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    (run / FOLDER).mkdir(exist_ok=True)
    now = time.time()
    new = run / FOLDER / f"events.out.tfevents.{int(now):010d}.vaefit"  # TensorBoard finds files by such a name
    with max((run / FOLDER).glob("*.vaefit"), default=new).open("ab") as stream:
        records = RecordWriter(stream)
        if stream.tell() == 0:
            records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        records.write(Event(wall_time=now, step=step, summary={"value": values}).SerializeToString())
