"""The sample of images: even, complete below its share, and the same however a run is divided."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES
from pixelmill.pipeline.drift.sample import SAMPLE_IMAGES, ImageSample, position_of, share_after

COLUMNS = len(IMAGE_MEASURES)


def sample_of(share: float, positions: list[float]) -> ImageSample:
    values = np.repeat(np.array(positions, np.float32)[:, np.newaxis], COLUMNS, axis=1)
    return ImageSample.of(share, positions, values)


def test_positions_are_even() -> None:
    positions = [position_of(hashlib.sha256(str(number).encode()).hexdigest()) for number in range(10_000)]
    assert 0 <= min(positions) < max(positions) < 1
    counts, _ = np.histogram(positions, bins=10, range=(0, 1))
    assert counts.min() > 850


def test_all_images_of_a_small_run_are_measured_and_few_of_a_large_one() -> None:
    assert share_after(0) == share_after(SAMPLE_IMAGES) == 1
    assert share_after(1_000_000) * 1_000_000 == SAMPLE_IMAGES
    measured = sum(1024 * share_after(start) for start in range(0, 1_000_000, 1024))
    assert SAMPLE_IMAGES < measured < 7 * SAMPLE_IMAGES


shares = st.sampled_from([1.0, 0.75, 0.5, 0.25])
positions = st.lists(st.floats(0, 1, exclude_max=True), max_size=20)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(shares, positions), min_size=1, max_size=5))
def test_joined_samples_hold_what_is_below_the_smallest_share(
    parts: list[tuple[float, list[float]]],
) -> None:
    joined = ImageSample.join([sample_of(*part) for part in parts])
    smallest = min(share for share, _ in parts)
    assert joined.share == smallest
    expected = sorted(position for _, found in parts for position in found if position < smallest)
    assert sorted(joined.positions.tolist()) == expected
    assert np.array_equal(joined.values[:, 0], joined.positions.astype(np.float32))


@settings(max_examples=50, deadline=None)
@given(shares, positions)
def test_text_is_read_back_exactly(share: float, found: list[float]) -> None:
    sample = sample_of(share, found)
    again = ImageSample.from_text(sample.to_text())
    assert again.share == sample.share
    assert np.array_equal(again.positions, sample.positions)
    assert np.array_equal(again.values, sample.values)


def test_a_part_without_a_sample_leaves_nothing_to_compare() -> None:
    for text in ("", "0.5", "0.5 no base 64", "1.0 AAAA"):
        assert ImageSample.from_text(text).share == 0
    joined = ImageSample.join([sample_of(1.0, [0.1, 0.2]), ImageSample.from_text("")])
    assert len(joined.positions) == 0
