"""The file in which workers share the predictions of a run."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.predictions.columns import Predictions
from pixelmill.pipeline.scoring import answered
from pixelmill.pipeline.scoring.answered import AnsweredImages


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def answers_for(numbers: list[int], known: bool) -> Predictions:
    """Rows of contents told apart by a number, which an answered row repeats."""
    predictions = Predictions([f"{number}.png" for number in numbers], 2)
    predictions.sha256 = [digest(number) for number in numbers]
    if known:
        predictions.class_indices[:] = np.array(numbers)[:, None]
        predictions.probabilities[:] = np.array(numbers)[:, None] / 1000
        predictions.widths[:] = np.array(numbers) + 1
        predictions.heights[:] = 7
    return predictions


@settings(max_examples=40, deadline=None)
@given(
    told=st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 300), max_size=40)), max_size=12),
    asked=st.lists(st.integers(0, 400), unique=True, max_size=60),
    recent=st.integers(0, 50),
    torn=st.binary(max_size=47),
)
def test_what_any_worker_told_is_found_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    told: list[tuple[bool, list[int]]],
    asked: list[int],
    recent: int,
    torn: bytes,
) -> None:
    path = tmp_path_factory.mktemp("answered") / "answered.bin"
    workers = AnsweredImages(path, 2), AnsweredImages(path, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answered, "_RECENT", recent)
        for second, numbers in told:
            workers[second].add(answers_for(numbers, known=True), range(len(numbers)))
            # Now and then the other one looks, and so reads the file in pieces.
            workers[not second].take_same_bytes([0], answers_for([1000], known=False))
        if torn:
            with path.open("ab") as file:  # As a killed worker leaves it.
                file.write(torn)
        known = {number for _, numbers in told for number in numbers}
        for worker in workers:
            predictions = answers_for(asked, known=False)
            taken = worker.take_same_bytes(range(len(asked)), predictions)
            assert taken == {place for place, number in enumerate(asked) if number in known}
            for place in taken:
                assert predictions.class_indices[place].tolist() == [asked[place]] * 2
                assert predictions.probabilities[place, 0] == np.float32(asked[place] / 1000)
                assert (predictions.widths[place], predictions.heights[place]) == (asked[place] + 1, 7)


def test_records_after_a_torn_one_are_never_taken_for_others(tmp_path: Path) -> None:
    path = tmp_path / "answered.bin"
    worker = AnsweredImages(path, 2)
    worker.add(answers_for([1, 2], known=True), range(2))
    with path.open("ab") as file:
        file.write(b"half a record")
    worker.add(answers_for([3, 4, 5], known=True), range(3))
    predictions = answers_for([1, 2, 3, 4, 5], known=False)
    assert worker.take_same_bytes(range(5), predictions) == {0, 1}


def test_equal_beginnings_are_not_equal_contents(tmp_path: Path) -> None:
    worker = AnsweredImages(tmp_path / "answered.bin", 2)
    worker.add(answers_for([1], known=True), range(1))
    predictions = answers_for([1], known=False)
    predictions.sha256 = [digest(1)[:16] + digest(2)[16:]]
    assert worker.take_same_bytes([0], predictions) == set()
    assert not predictions.class_indices.any()


def test_only_so_many_are_kept_in_mind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answered, "_MOST", 3)
    worker = AnsweredImages(tmp_path / "answered.bin", 2)
    worker.add(answers_for([1, 2], known=True), range(2))
    worker.add(answers_for([3, 4], known=True), range(2))
    predictions = answers_for([1, 2, 3, 4], known=False)
    assert worker.take_same_bytes(range(4), predictions) == {0, 1, 2}
