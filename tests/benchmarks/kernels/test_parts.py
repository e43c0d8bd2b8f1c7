"""The parts of `vaefit-cli bench kernels`: peers, parity, inputs, bytes, turns and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from vaefit.benchmarks.kernels import peers
from vaefit.benchmarks.kernels.clock import CpuClock
from vaefit.benchmarks.kernels.inputs import (
    Answer,
    Contestant,
    bytes_moved,
    gradient_of,
    make_inputs,
    make_sets,
    ours,
)
from vaefit.benchmarks.kernels.memory import peak_bytes
from vaefit.benchmarks.kernels.parity import expected, judge
from vaefit.benchmarks.kernels.plan import CPU_SHAPES, QUICK_SHAPES, SHAPES, KernelSettings
from vaefit.benchmarks.kernels.race import race

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (5, 7, 6, 3), (2, 31, 40, 40)], ids=str)
def test_every_peer_computes_what_it_says(shape, dtype):
    found, _ = peers.available(CPU, with_inductor=False)
    inputs = make_inputs(shape, dtype, CPU)
    before = inputs.logits.detach().clone()
    for peer in found:
        known = expected(inputs, peer.gamma, peer.weighted)
        for op in peer.ops:
            assert judge(peer, inputs, op, known).passes_as_peer(dtype), (peer.name, op)
    assert torch.equal(inputs.logits, before)
    assert inputs.logits.grad is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of torch's compiler
def test_the_compiled_peer():
    found, notes = peers.available(CPU, with_inductor=True)
    by_name = {peer.name: peer for peer in found}
    if "inductor" not in by_name:
        assert "inductor is left out: there is no C++ compiler" in notes
        pytest.skip("no C++ compiler")
    inputs = make_inputs((3, 4, 5, 7), torch.float32, CPU)
    peer = by_name["inductor"]
    known = expected(inputs, peer.gamma, peer.weighted)
    assert judge(peer, inputs, "loss+gradient+counts", known).passes_as_peer(torch.float32)


def test_the_layout_that_liger_wants():
    """Liger's kernel needs a GPU; here torch's cross-entropy stands for it, with what writes over its input."""

    def stand_in(inputs, op):
        loss = functional.cross_entropy(inputs.logits, inputs.targets)
        gradient = gradient_of(loss, inputs)
        inputs.logits.data.copy_(gradient)
        return Answer(loss, gradient)

    peer = Contestant("liger", stand_in, ("loss+gradient",), gamma=0.0, weighted=False, prepare=peers.cells_by_classes)
    inputs = make_inputs((3, 4, 5, 7), torch.float32, CPU)
    before = inputs.logits.detach().clone()
    known = expected(peer.prepare(inputs), peer.gamma, peer.weighted)
    assert known.gradient.shape == (105, 4)
    assert judge(peer, inputs, "loss+gradient", known).passes(torch.float32)
    assert race([peer], "loss+gradient", [inputs], CpuClock(1), rounds=2)["liger"].median_us > 0
    assert torch.equal(inputs.logits, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_reference_in_slices_is_the_reference(monkeypatch, dtype):
    from vaefit.benchmarks.kernels import parity

    inputs = make_inputs((5, 3, 4, 4), dtype, CPU)
    whole = expected(inputs, 2.0, weighted=True)
    monkeypatch.setattr(parity, "SLICE", 100)
    parts = expected(inputs, 2.0, weighted=True)
    torch.testing.assert_close(parts.loss, whole.loss)
    torch.testing.assert_close(parts.gradient, whole.gradient)
    assert torch.equal(parts.counts, whole.counts)
    assert int(whole.counts.sum()) == inputs.targets.numel()


def test_a_nan_is_red():
    inputs = make_inputs((2, 3, 4, 4), torch.float32, CPU)
    known = expected(inputs, 2.0, weighted=True)
    for loss, gradient in ((float("nan"), 1.0), (1.0, float("nan"))):
        answer = Contestant("", lambda *_, a=loss, b=gradient: Answer(known.loss * a, known.gradient * b))
        off = judge(answer, inputs, "loss+gradient", known)
        assert not off.passes(torch.float32)
        assert not off.passes_as_peer(torch.float32)
        assert off.error != off.error


def test_an_answer_without_what_was_asked_is_refused():
    inputs = make_inputs((2, 3, 4, 4), torch.float32, CPU)
    known = expected(inputs, 2.0, weighted=True)
    with pytest.raises(ValueError, match=r"counts: the counts has shape None"):
        judge(Contestant("", lambda *_: Answer()), inputs, "counts", known)


def test_bytes_of_one_pass():
    for dtype, a_logit in ((torch.float32, 8.8), (torch.bfloat16, 4.8)):
        inputs = make_inputs((512, 10, 16, 16), dtype, CPU)
        logits = inputs.logits.numel()
        assert bytes_moved("loss+gradient", inputs) / logits == pytest.approx(a_logit, rel=1e-3)
        assert bytes_moved("counts", inputs) / logits == pytest.approx(a_logit / 2 + 0.4, rel=1e-3)
        assert bytes_moved("loss+gradient+counts", inputs) - bytes_moved("loss+gradient", inputs) == 800


def test_inputs_are_the_same_each_time_and_mostly_background():
    first, again = (make_inputs((64, 10, 16, 16), torch.float32, CPU) for _ in range(2))
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.targets, again.targets)
    assert float((first.targets == 0).float().mean()) == pytest.approx(0.937, abs=0.01)
    right = float((first.logits.argmax(dim=1) == first.targets).float().mean())
    assert 0.6 < right < 0.99


def test_inputs_beyond_a_cache_take_turns():
    sets = make_sets((2, 3, 4, 4), torch.float32, CPU, beyond=5000)
    assert (len(sets) - 1) * sets[0].bytes <= 5000 < len(sets) * sets[0].bytes + sets[0].bytes
    assert not torch.equal(sets[0].logits, sets[1].logits)
    assert len(make_sets((2, 3, 4, 4), torch.float32, CPU, beyond=0)) == 1
    seen = []
    peer = Contestant("seen", lambda inputs, op: seen.append(id(inputs)))
    race([peer], "counts", sets, _Turns(), rounds=7)
    assert set(seen) == {id(inputs) for inputs in sets}


class _Turns(CpuClock):
    """Three calls a sample."""

    def __init__(self):
        super().__init__(threads=1)

    def calls(self, seconds, sets):
        return 3


def test_memory_is_counted_inside_operators_and_is_the_same_each_time():
    size = 1 << 18
    assert peak_bytes(lambda: torch.ones(size), CPU) == pytest.approx(4 * size, rel=1e-3)
    # one buffer is released before the next is taken
    assert peak_bytes(lambda: [torch.ones(size).sum() for _ in range(3)], CPU) == pytest.approx(4 * size, rel=1e-2)
    inputs = make_inputs((64, 10, 16, 16), torch.float32, CPU)
    call = ours("eager").call
    call(inputs, "loss+gradient")  # what it keeps for later calls is no peak of these
    # at the very least the gradient, which a registered operator allocates
    first, again = (peak_bytes(lambda: call(inputs, "loss+gradient"), CPU) for _ in range(2))
    assert first == again >= inputs.logits.nbytes


@pytest.mark.slow
def test_measuring_memory_is_silent():
    script = """
import torch
from vaefit.benchmarks.kernels.memory import peak_bytes
print(peak_bytes(lambda: torch.ones(9), torch.device("cpu")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert int(done.stdout) > 0


def test_which_shapes_run_where():
    gpu = torch.device("cuda")
    assert list(dict.fromkeys(shape for shape, _ in KernelSettings().cases_on(gpu))) == list(SHAPES)
    assert list(dict.fromkeys(shape for shape, _ in KernelSettings().cases_on(CPU))) == list(CPU_SHAPES)
    quick = KernelSettings(quick=True)
    assert list(dict.fromkeys(shape for shape, _ in quick.cases_on(CPU))) == list(QUICK_SHAPES)
    assert len(quick.cases_on(CPU)) == 5
    slow, quicker = quick.left_out(CPU)
    assert all(word in slow for word in ("65536,10,16,16", "64,21,512,512", "16,150,512,512"))
    assert quicker.endswith("16,21,256,256 bfloat16, 8192,10,16,16 float32, 8192,10,16,16 bfloat16")
    assert quick.left_out(gpu) == []
    assert len(quick.cases_on(gpu)) == 12
    asked = KernelSettings(shapes=(SHAPES[3],), dtypes=("float16",), quick=True)
    assert asked.cases_on(CPU) == [(SHAPES[3], "float16")]
    assert asked.left_out(CPU) == []
