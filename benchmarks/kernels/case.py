"""Measurement of one shape and dtype: parity of ours, parity of the peers, then time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch

from vaefit.kernels import Backend, choose_backend

from .clock import Clock
from .inputs import DTYPES, Contestant, Inputs, Op, Shape, bytes_moved, make_sets, ours, spelled
from .parity import Expected, expected, judge
from .race import race
from .row import Place, Row

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class Contest:
    """Settings that all rows share."""

    backend: Backend
    peers: tuple[Contestant, ...]
    device: torch.device
    clock: Clock
    place: Place
    rounds: int


@dataclass(frozen=True)
class Case:
    """Inputs of one shape and dtype, and the reference's answers, computed once."""

    contest: Contest
    shape: Shape
    dtype: str
    sets: tuple[Inputs, ...]
    _known: dict[tuple[float, bool], Expected] = field(default_factory=dict)

    @classmethod
    def from_contest(cls, contest: Contest, shape: Shape, dtype: str) -> Case:
        """Make the inputs; on a GPU so many that a call never finds its own in the cache."""
        # each shape compiles anew, and torch keeps no more than a few versions of a function
        torch.compiler.reset()
        sets = make_sets(shape, DTYPES[dtype], contest.device, beyond=2 * _cache_bytes(contest.device))
        return cls(contest, shape, dtype, tuple(sets))

    def row(self, op: Op) -> Row:
        """Measure one operation; where ours is wrong, time nothing and log its error."""
        inputs, contest = self.sets[0], self.contest
        mine = ours(contest.backend)
        off = judge(mine, inputs, op, self._expected(mine))
        right = off.passes(inputs.logits.dtype)
        peers = [peer for peer in contest.peers if op in peer.ops]
        timings = {}
        if right:
            fit = [peer for peer in peers if self._fits(peer, op)]
            timings = race([mine, *fit], op, self.sets, contest.clock, contest.rounds)
        else:
            _log.warning(f"{self._name(op)}: parity is red, so nothing is timed: {off}")
        return Row(
            shape=self.shape,
            dtype=self.dtype,
            op=op,
            backend=choose_backend(contest.backend, inputs.logits).name,
            parity=right,
            parity_error=off.error,
            bytes=bytes_moved(op, inputs),
            logits_bytes=inputs.logits.nbytes,
            ours=timings.get(mine.name),
            peers={peer.name: timings.get(peer.name) for peer in peers},
            place=contest.place,
        )

    def _expected(self, contestant: Contestant) -> Expected:
        kind = (contestant.gamma, contestant.weighted)
        if kind not in self._known:
            self._known[kind] = expected(contestant.prepare(self.sets[0]), *kind)
        return self._known[kind]

    def _fits(self, peer: Contestant, op: Op) -> bool:
        """Return True where the peer's answer is right; log a warning where it is not."""
        try:
            off = judge(peer, self.sets[0], op, self._expected(peer))
        except Exception as error:  # another library's failure is no reason to measure nothing
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            _log.warning(f"{self._name(op)}: {peer.name} is left out, it failed: {reason}")
            return False
        right = off.passes_as_peer(self.sets[0].logits.dtype)
        if not right:
            _log.warning(f"{self._name(op)}: {peer.name} is left out, its answer is wrong: {off}")
        return right

    def _name(self, op: Op) -> str:
        return f"{spelled(self.shape)} {self.dtype} {op}"


def _cache_bytes(device: torch.device) -> int:
    """Return the size of a GPU's last cache; 0 on the CPU, where a training loop finds its logits in the cache."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 0
