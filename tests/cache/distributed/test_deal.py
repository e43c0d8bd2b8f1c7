"""Tests of the deal: every byte belongs to one rank, shares are even, and only large shards are cut."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from vaefit.cache.distributed.deal import Piece, deal

SIZES = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2000), st.integers(1, 10**12)), max_size=12).map(
    lambda sizes: {2 * number: size for number, size in enumerate(sizes)}
)


def of_shard(hands: list[list[Piece]], shard: int) -> list[Piece]:
    return sorted((piece for hand in hands for piece in hand if piece.shard == shard), key=lambda piece: piece.first)


@settings(max_examples=50)
@given(sizes=SIZES, ranks=st.integers(2, 5))
def test_every_byte_belongs_to_one_rank(sizes: dict[int, int], ranks: int) -> None:
    hands = deal(sizes, ranks)
    assert len(hands) == ranks
    for shard, size in sizes.items():
        pieces = of_shard(hands, shard)
        assert [pieces[0].first, pieces[-1].stop] == [0, size]
        assert all(before.stop == after.first for before, after in pairwise(pieces))
        assert all(piece.size == size and piece.first < piece.stop for piece in pieces)
    assert {piece.shard for hand in hands for piece in hand} == set(sizes)


@settings(max_examples=50)
@given(sizes=SIZES, ranks=st.integers(2, 5), total=st.integers(1, 50))
def test_every_span_is_counted_once(sizes: dict[int, int], ranks: int, total: int) -> None:
    hands = deal(sizes, ranks)
    for shard in sizes:
        counted = [span for piece in of_shard(hands, shard) for span in piece.spans(total)]
        assert counted == list(range(total))


@settings(max_examples=100)
@given(sizes=SIZES, ranks=st.integers(2, 5))
@example(sizes={0: 100, 2: 100, 4: 1, 6: 1}, ranks=2)
def test_shares_are_even(sizes: dict[int, int], ranks: int) -> None:
    share = -(-sum(sizes.values()) // ranks)
    for hand in deal(sizes, ranks):
        pieces = [piece.stop - piece.first for piece in hand]
        # a rank over its share had less than an even share before it took its last piece
        assert sum(pieces) <= share * 9 / 8 or sum(pieces) - min(pieces) <= share


@settings(max_examples=100)
@given(sizes=SIZES, ranks=st.integers(2, 5))
def test_only_a_shard_larger_than_a_share_is_cut(sizes: dict[int, int], ranks: int) -> None:
    hands = deal(sizes, ranks)
    assert all(max(Counter(piece.shard for piece in hand).values(), default=1) == 1 for hand in hands)
    for shard, size in sizes.items():
        assert len(of_shard(hands, shard)) == 1 or size * ranks > sum(sizes.values())


def test_equal_shards_and_one_large_one() -> None:
    assert sorted(len(hand) for hand in deal(dict.fromkeys(range(20), 10), 3)) == [6, 7, 7]
    hands = deal({0: 999}, 3)
    assert [[(piece.first, piece.stop) for piece in hand] for hand in hands] == [[(0, 333)], [(333, 666)], [(666, 999)]]
    # the rest of a shard that is hardly larger than a share is not worth a second reader
    assert [[(piece.shard, piece.first, piece.stop) for piece in hand] for hand in deal({0: 105, 1: 95}, 2)] == [
        [(0, 0, 105)],
        [(1, 0, 95)],
    ]


def test_fewer_bytes_than_ranks_and_none() -> None:
    assert sorted(map(len, deal({0: 1}, 3))) == [0, 0, 1]
    assert deal({}, 3) == [[], [], []]
    assert deal({0: 0, 1: 5}, 2)[0] == [Piece(1, 0, 3, 5)]
