"""TensorBoard's view of a run: an event file with a scalar a step, the verdict, and the picture."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from ..errors import RunError
from ..fitting.result import OverfitResult, Record

if TYPE_CHECKING:
    from typing_extensions import Self

FOLDER = "tensorboard"
"""Below the run folder."""
_MODULES = (
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.compat.proto.summary_pb2",
    "tensorboard.summary.writer.record_writer",
)


def require_tensorboard() -> None:
    """RunError where the package that knows the format is not installed, or not whole."""
    try:
        # to look for its name would find a folder `tensorboard` too, such as that of a run
        for module in _MODULES:
            importlib.import_module(module)
    except (ImportError, TypeError) as error:  # TypeError: its messages and the protobuf that is installed do not fit
        do = "Run: pip install 'tensorboard>=2.18'"
        raise RunError("the package tensorboard cannot be imported", "--tensorboard", str(error), do) from error


def remove_event_files(run: Path) -> None:
    """Remove what an earlier run left for TensorBoard, which would show both as one; OSError where it cannot."""
    folder = run / FOLDER
    for file in folder.glob("*tfevents*"):
        file.unlink()
    with suppress(OSError):  # not there, or the user keeps something else in it
        folder.rmdir()


class EventFile:
    """One event file, whole on disk after each call.

    torch's SummaryWriter writes in a thread, whose error on a full disk reaches the caller later, or not at all, and it
    starts TensorFlow where that is installed. So the records are made here, of tensorboard's own messages and framing,
    and an OSError comes from the call that it belongs to.
    """

    def __init__(self, stream: BinaryIO) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._records = RecordWriter(stream)

    @classmethod
    @contextmanager
    def create(cls, run: Path) -> Iterator[Self]:
        """Make the event file of a run, in a folder of its own below that of the run."""
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        # TensorBoard knows event files by this name, and reads them in the order of the time in it
        with _closing((folder / f"events.out.tfevents.{int(time.time()):010d}.vaefit").open("wb")) as stream:
            file = cls(stream)
            file._write(file_version="brain.Event:2")
            yield file

    @classmethod
    @contextmanager
    def reopen(cls, run: Path) -> Iterator[Self]:
        """Go on writing the event file of a run."""
        folder = run / FOLDER
        path = max(folder.glob("*.vaefit"), default=folder / "events.out.tfevents")
        with _closing(path.open("rb+")) as stream:  # whoever removed it meanwhile gets an error, not half a file
            stream.seek(0, io.SEEK_END)
            yield cls(stream)

    def step(self, record: Record) -> None:
        """Write the scalars of one step; what a step has not is left out."""
        a = record.accuracies
        scalars = {
            "loss": record.loss,
            "focal": record.focal,
            "kl": record.kl,
            "lr": record.lr,
            "grad_norm": record.grad_norm,
            "accuracy/pixel": a.pixel,
            "accuracy/macro": a.macro,
            "accuracy/worst_class": a.worst,
            **{f"class_accuracy/{c}": recall for c, recall in enumerate(a.classes)},
        }
        self._scalars(record.step, scalars)

    def end(self, result: OverfitResult, picture: bytes) -> None:
        """Write the verdict, and `reconstructions.png`."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        judged = result.judgement
        parts = (f"**{judged.verdict}** after {result.iterations} updates", judged.reason, judged.next)
        text = "\n\n".join(filter(None, parts))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        with Image.open(io.BytesIO(picture)) as image:
            width, height = image.size
        shown = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=picture)
        values = [
            Summary.Value(tag="verdict", metadata=metadata, tensor=tensor),
            Summary.Value(tag="reconstructions", image=shown),
        ]
        self._write(step=result.iterations, summary=Summary(value=values))

    def _scalars(self, step: int, scalars: Mapping[str, float | None]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=v) for tag, v in scalars.items() if v is not None]
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **parts: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **parts).SerializeToString())
        self._records.flush()


@contextmanager
def _closing(stream: BinaryIO) -> Iterator[BinaryIO]:
    try:
        yield stream
    except BaseException:
        with suppress(OSError):  # a full disk fails again here, and would hide what happened
            stream.close()
        raise
    stream.close()
