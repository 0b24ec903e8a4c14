"""Quotas of the reasons, and images that differ from one another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.review import Candidate, Picture, ReasonName, Row
from pixelmill.pipeline.review.reasons import REASONS
from pixelmill.pipeline.review.selection import choose, divide_places


def candidate(
    name: str, score: float, embedding: "np.ndarray[tuple[int], np.dtype[np.float32]] | None" = None
) -> Candidate:
    return Candidate(Row(name, name, "cat", 0, 0.5, embedding=embedding), score)


def picture(bits: int) -> Picture:
    return Picture(bits, b"", "PNG", 8, 8)


def test_equal_shares_and_what_one_cannot_fill_goes_to_the_others() -> None:
    assert divide_places({"changed": 50, "uncertain": 50, "drifted": 50}, 30) == {
        "changed": 10,
        "uncertain": 10,
        "drifted": 10,
    }
    assert divide_places({"changed": 2, "uncertain": 50, "drifted": 0}, 30) == {
        "changed": 2,
        "uncertain": 28,
        "drifted": 0,
    }
    assert divide_places({"changed": 1, "uncertain": 1}, 30) == {"changed": 1, "uncertain": 1}


def test_images_that_are_nearly_equal_wait() -> None:
    pool = [candidate("a", 0.9), candidate("twin of a", 0.89), candidate("b", 0.6), candidate("c", 0.5)]
    other = {"a": 0, "twin of a": 1, "b": 0xFFFF_FFFF, "c": 0xFFFF_FFFF_0000_0000}
    pictures = {name: picture(bits) for name, bits in other.items()}
    chosen = choose({"uncertain": pool}, pictures, 3)
    assert [row.path for row, _ in chosen] == ["a", "b", "c"]
    assert [row.path for row, _ in choose({"uncertain": pool}, pictures, 9)][-1] == "twin of a"


def test_embeddings_decide_where_there_are_some() -> None:
    vectors = np.eye(3, dtype=np.float32)
    pool = [
        candidate("a", 0.9, vectors[0]),
        candidate("twin of a", 0.89, vectors[0] * 2),
        candidate("b", 0.6, vectors[1]),
        candidate("c", 0.5, vectors[2]),
    ]
    pictures = {one.row.path: picture(at) for at, one in enumerate(pool)}
    assert [row.path for row, _ in choose({"uncertain": pool}, pictures, 3)] == ["a", "b", "c"]


def test_images_without_a_picture_are_not_chosen() -> None:
    pool = [candidate("gone", 0.9), candidate("there", 0.1)]
    assert [row.path for row, _ in choose({"uncertain": pool}, {"there": picture(0)}, 5)] == ["there"]


@given(
    pools=st.dictionaries(
        st.sampled_from(list(REASONS)), st.lists(st.integers(0, 30), unique=True, max_size=12), max_size=3
    ),
    count=st.integers(1, 25),
)
def test_every_place_is_filled_once(pools: dict[ReasonName, list[int]], count: int) -> None:
    candidates = {
        name: [candidate(str(number), 1 / (1 + at)) for at, number in enumerate(pool)]
        for name, pool in pools.items()
    }
    names = {one.row.path for pool in candidates.values() for one in pool}
    pictures = {name: picture(int(name) * 0x0101_0101_0101) for name in names}
    chosen = choose(candidates, pictures, count)
    paths = [row.path for row, _ in chosen]
    assert len(set(paths)) == len(paths) == min(count, len(names))
    assert all(row.path in {one.row.path for one in candidates[reason]} for row, reason in chosen)
