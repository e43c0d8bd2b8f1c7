"""Checkpoints: what is read is what was written, or it is skipped; a full disk costs none that is there."""

from __future__ import annotations

import errno
import json
import os
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from vaefit.vae.errors import RunError
from vaefit.vae.training import checkpoint as module
from vaefit.vae.training.checkpoint import FORMAT, Checkpoint, CheckpointFolder, TornCheckpointError

STATE = Checkpoint(
    7,
    {
        "model.a": torch.arange(6.0).reshape(2, 3),
        "model.b": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(
            memory_format=torch.channels_last
        ),
        "scalar": torch.tensor(3.0),
        "none": torch.empty(0, 5, dtype=torch.int64),
        "truth": torch.tensor([True, False]),
    },
    {"numbers": {"loss": 0.1 + 0.2, "kl": None}, "warnings": ["a\nb", "é"]},
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a checkpoint."""
    file = tmp_path_factory.mktemp("whole") / "step.safetensors"
    STATE.write(file)
    return file.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place") / "step.safetensors"


def test_what_is_read_is_what_was_written(whole, place):
    place.write_bytes(whole)
    found = Checkpoint.read(place)
    assert (found.step, found.numbers) == (7, STATE.numbers)
    assert found.tensors.keys() == STATE.tensors.keys()
    for name, tensor in STATE.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name
        assert found.tensors[name].dtype == tensor.dtype


def test_tensors_that_share_memory_are_written(tmp_path):
    tied = torch.ones(3)
    Checkpoint(1, {"a": tied, "b": tied}, {}).write(tmp_path / "x.safetensors")
    assert Checkpoint.read(tmp_path / "x.safetensors").tensors["b"].tolist() == [1, 1, 1]


@given(st.data())
def test_a_byte_that_changed_is_found(whole, place, data):
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    damaged = bytearray(whole)
    damaged[at] ^= other
    place.write_bytes(bytes(damaged))
    try:
        found = Checkpoint.read(place)
    except TornCheckpointError:
        return
    # a change that means the same, as white space in the header does
    assert found.step == 7
    assert found.numbers == STATE.numbers
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in STATE.tensors.items())


@given(st.data())
def test_a_file_that_was_cut_is_found(whole, place, data):
    place.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(TornCheckpointError):
        Checkpoint.read(place)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00" * 64, struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 20) + b'{"__metadata__": []}', b"\x80\x04\x95" + b"pickle" * 9,
    ],
)  # fmt: skip
def test_other_files_are_no_checkpoints(place, content):
    place.write_bytes(content)
    with pytest.raises(TornCheckpointError):
        Checkpoint.read(place)


def test_a_checkpoint_of_another_format_is_named(place):
    place.write_bytes(save({"a": torch.ones(1)}, {"format": "99", "state": "{}", "digest": ""}))
    with pytest.raises(TornCheckpointError, match=f"its format is '99', not {FORMAT}"):
        Checkpoint.read(place)


def at(step):
    return Checkpoint(step, {"a": torch.tensor([float(step)])}, {})


def test_the_two_newest_are_kept(tmp_path):
    folder = CheckpointFolder.from_run(tmp_path)
    assert folder.newest() is None
    for step in (0, 5, 1_234_567_890, 30):
        folder.write(at(step))
    assert [file.name for file in folder.files()] == ["step-1234567890.safetensors", "step-000000030.safetensors"]
    assert folder.newest().step == 1_234_567_890


def test_a_torn_one_is_skipped_for_the_one_before_aloud(tmp_path, said):
    folder = CheckpointFolder.from_run(tmp_path)
    folder.write(at(5))
    folder.write(at(9))
    newest = folder.files()[0]
    newest.write_bytes(newest.read_bytes()[:-3])
    assert folder.newest().step == 5
    assert "step-000000009.safetensors is skipped" in said()


def test_without_a_whole_one_there_is_one_error(tmp_path):
    folder = CheckpointFolder.from_run(tmp_path)
    folder.write(at(5))
    folder.files()[0].write_bytes(b"torn")
    with pytest.raises(RunError, match="no checkpoint of the run is whole") as caught:
        folder.newest()
    assert "--overwrite" in caught.value.do


def test_a_full_disk_leaves_what_is_there(tmp_path, monkeypatch):
    folder = CheckpointFolder.from_run(tmp_path)
    folder.write(at(5))

    def full(path, data, durable=True):
        (path.parent / "half").write_bytes(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write(at(9))
    assert folder.newest().step == 5


def test_nothing_in_a_checkpoint_is_code(whole):
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    assert set(header["__metadata__"]) == {"format", "state", "digest"}
