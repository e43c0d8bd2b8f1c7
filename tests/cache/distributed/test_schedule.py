"""How the work of a count is cut into rounds, and a round into the stretches of the ranks."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vaefit.cache.distributed import schedule
from vaefit.cache.distributed.schedule import Piece, Round, plan_rounds


@st.composite
def works(draw: st.DrawFn) -> list[Piece]:
    """Shards of all sizes, some begun, some with no byte left."""
    wholes = draw(st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2000)), max_size=12))
    return [Piece(2 * number, draw(st.integers(0, whole)), whole, whole) for number, whole in enumerate(wholes)]


def in_order(plan: list[Round]) -> list[Piece]:
    return [piece for pieces in plan for own in pieces for piece in own]


@settings(max_examples=50)
@given(work=works(), ranks=st.integers(2, 5), share=st.integers(1, 700))
@example(work=[Piece(0, 5, 5, 5)], ranks=2, share=700)
def test_every_byte_is_somebodys_and_in_order(work: list[Piece], ranks: int, share: int) -> None:
    plan = list(plan_rounds(work, ranks, share))
    assert all(len(pieces) == ranks for pieces in plan)
    for shard in work:
        own = [piece for piece in in_order(plan) if piece.shard == shard.shard]
        # consecutive and whole, so that after any round what is done is the beginning
        edges = [(piece.first, piece.stop) for piece in own]
        assert edges[0][0] == shard.first
        assert edges[-1][1] == shard.stop
        assert all(before[1] == after[0] for before, after in pairwise(edges))
        assert [piece.ends for piece in own] == [False] * (len(own) - 1) + [True]
        assert all(piece.whole == shard.whole and (piece.size > 0 or shard.size == 0) for piece in own)
    assert [piece.shard for piece in in_order(plan)] == sorted(piece.shard for piece in in_order(plan))


@settings(max_examples=50)
@given(work=works(), ranks=st.integers(2, 5), share=st.integers(1, 700), total=st.integers(1, 50))
def test_every_span_is_counted_once(work: list[Piece], ranks: int, share: int, total: int) -> None:
    pieces = in_order(list(plan_rounds(work, ranks, share)))
    for shard in work:
        spans = min(total, shard.whole)
        counted = [span for piece in pieces if piece.shard == shard.shard for span in piece.spans(spans)]
        assert counted == list(range(shard.first * spans // shard.whole, spans))


@given(whole=st.integers(1, 10**12), data=st.data())
def test_a_scan_goes_on_with_the_span_after_the_last(whole: int, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, min(whole, 10**6)))
    done = data.draw(st.integers(0, total))
    assert Piece.after(0, whole, done, total).spans(total) == range(done, total)


@settings(max_examples=50)
@given(work=works(), ranks=st.integers(2, 5), share=st.integers(1, 700))
def test_no_rank_has_much_more_than_its_share(work: list[Piece], ranks: int, share: int) -> None:
    for pieces in plan_rounds(work, ranks, share):
        sizes = [sum(max(1, piece.size) for piece in own) for own in pieces]
        fair = sum(sizes) / ranks
        assert fair <= share
        assert max(sizes) <= 1.25 * fair + 1


@settings(max_examples=50)
@given(work=works(), ranks=st.integers(2, 5), share=st.integers(1, 700))
def test_small_shards_are_read_by_one_rank(work: list[Piece], ranks: int, share: int) -> None:
    for pieces in plan_rounds(work, ranks, share):
        small = sum(max(1, piece.size) for own in pieces for piece in own) // (4 * ranks)
        shards = [piece.shard for own in pieces for piece in own]
        for shard in {shard for shard in shards if shards.count(shard) > 1}:
            assert sum(piece.size for own in pieces for piece in own if piece.shard == shard) > small


@settings(max_examples=50)
@given(work=works(), ranks=st.integers(2, 5))
def test_rounds_end_between_small_shards(work: list[Piece], ranks: int) -> None:
    share = 400
    plan = list(plan_rounds(work, ranks, share))
    for pieces in plan[:-1]:
        *_, last = in_order([pieces])
        assert last.ends or next(shard for shard in work if shard.shard == last.shard).size > share // 4
        assert sum(max(1, piece.size) for piece in in_order([pieces])) > (ranks - 0.25) * share


def test_equal_shards_and_one_large_one() -> None:
    (only,) = plan_rounds([Piece(number, 0, 10, 10) for number in range(20)], 3)
    assert [len(own) for own in only] == [7, 6, 7]
    (only,) = plan_rounds([Piece(0, 0, 999, 999)], 3)
    assert [[(piece.first, piece.stop) for piece in own] for own in only] == [[(0, 333)], [(333, 666)], [(666, 999)]]


def test_fewer_bytes_than_ranks_and_none() -> None:
    (only,) = plan_rounds([Piece(0, 0, 1, 1)], 3)
    assert sorted(map(len, only)) == [0, 0, 1]
    assert list(plan_rounds([], 3)) == []


def test_a_round_is_a_share_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SHARE", 100)
    plan = list(plan_rounds([Piece(0, 0, 1000, 1000)], 2))
    assert list(accumulate(sum(piece.size for own in pieces for piece in own) for pieces in plan)) == [
        200, 400, 600, 800, 1000,
    ]  # fmt: skip
