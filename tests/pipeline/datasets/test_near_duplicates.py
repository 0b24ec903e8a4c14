"""Near duplicates are found by perceptual hash and pixels at a bounded cost; different images are not."""

import io
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.measures import measure
from pixelmill.pipeline.datasets.near_duplicates import (
    find_components,
    find_pairs,
    join_pairs,
    near_equal_across,
)
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.datasets.similar_hashes import Hashes, similar_pairs
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.recipes import load_recipe

SIDE, TILE = 64, 140
BITS = st.integers(0, 2**64 - 1)


@st.composite
def similar_hashes(draw: st.DrawFn) -> Hashes:
    """Hashes, each followed by some that differ from it in a few bits."""
    found = []
    for value in draw(st.lists(BITS, min_size=1, max_size=12)):
        found.append(value)
        changes = draw(st.lists(st.sets(st.integers(0, 63), max_size=12), max_size=4))
        found += [value ^ sum(1 << bit for bit in bits) for bits in changes]
    return np.array(found, np.uint64)


@settings(deadline=None)
@given(similar_hashes())
def test_every_pair_of_hashes_that_differ_in_up_to_seven_bits_is_found(hashes: Hashes) -> None:
    found = {(int(one), int(two)) for one, two in similar_pairs(hashes)}
    earlier = [int((hashes[:place] == value).sum()) for place, value in enumerate(hashes)]
    for one, two in combinations(range(len(hashes)), 2):
        bits = int(hashes[one] ^ hashes[two]).bit_count()
        # Of a hash that many images share, only the first are compared with those of similar hashes.
        if bits <= 7 and (bits == 0 or max(earlier[one], earlier[two]) < 8):
            assert (one, two) in found
        if bits > 12:
            assert (one, two) not in found


def test_equal_hashes_by_the_thousand_cost_no_more_than_a_few_pairs_each() -> None:
    hashes = np.repeat(np.arange(8, dtype=np.uint64), 5_000)
    pairs = similar_pairs(hashes)
    assert len(pairs) < 100 * len(hashes)
    assert len(set(pairs.ravel().tolist())) == len(hashes)


def test_of_too_many_similar_hashes_the_most_similar_are_compared() -> None:
    # All 8,192 values of 13 bits in different bytes: 13 neighbours of one bit, 78 of two.
    values = np.arange(8_192, dtype=np.uint64)
    spread = [(values >> np.uint64(bit) & np.uint64(1)) << np.uint64(bit * 4) for bit in range(13)]
    hashes = np.bitwise_or.reduce(spread)
    pairs = similar_pairs(hashes)
    bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    assert Counter(bits.tolist()) == {1: 13 * 8_192 // 2}


def tiles() -> list[Image.Image]:
    """24 different parts of two photographs."""
    return [
        Image.fromarray(photograph[top : top + TILE, left : left + TILE])
        for photograph in load_sample_images().images
        for top in range(0, 3 * TILE, TILE)
        for left in range(0, 4 * TILE, TILE)
    ]


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def brighter(image: Image.Image, levels: int) -> Image.Image:
    return image.point(lambda value: value + levels)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved as JPEG of another quality": lambda image: as_jpeg(image, 60),
    "saved as JPEG of low quality": lambda image: as_jpeg(image, 30),
    "enlarged by a tenth": lambda image: image.resize((TILE * 11 // 10,) * 2, Image.Resampling.BICUBIC),
    "reduced by a tenth": lambda image: image.resize((TILE * 9 // 10,) * 2, Image.Resampling.BICUBIC),
    "brighter by 3 levels": lambda image: brighter(image, 3),
    "darker by 3 levels": lambda image: brighter(image, -3),
    "cropped by a pixel": lambda image: image.crop((1, 1, TILE, TILE)),
    "cropped by a pixel on all sides": lambda image: image.crop((1, 1, TILE - 1, TILE - 1)),
}


def tensors_of(images: list[Image.Image]) -> Pixels:
    return np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in images])


def hashes_of(tensors: Pixels) -> Hashes:
    return np.array([measure(tensor).perceptual_hash for tensor in tensors], np.uint64)


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return tiles()


@pytest.mark.parametrize("change", CHANGES)
def test_each_image_is_found_again(change: str, originals: list[Image.Image]) -> None:
    tensors = tensors_of([*originals, *(CHANGES[change](image) for image in originals)])
    components = find_components(hashes_of(tensors), tensors)
    count = len(originals)
    assert components.tolist() == [*range(count), *range(count)]


def test_frames_of_a_clip_are_one_component() -> None:
    chance = np.random.default_rng(0)
    photographs = load_sample_images().images
    frames = []
    for photograph in photographs:
        for left in range(
            12
        ):  # The camera turns by a pixel of 300 from frame to frame, and its sensor is noisy.
            frame = photograph[60:360, left : left + 300] + chance.normal(0, 3, (300, 300, 3))
            frames.append(Image.fromarray(frame.clip(0, 255).astype(np.uint8)))
    tensors = tensors_of(frames)
    assert find_components(hashes_of(tensors), tensors).tolist() == [0] * 12 + [12] * 12


def test_a_component_has_a_largest_size_and_keeps_the_most_similar_together() -> None:
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 4)])
    differences = np.array([0.02, 0.05, 0.01, 0.03], np.float32)
    assert join_pairs(pairs, differences, 6, 5).tolist() == [0, 0, 0, 0, 0, 5]
    assert join_pairs(pairs, differences, 6, 3).tolist() == [0, 0, 2, 2, 2, 5]
    assert join_pairs(pairs, differences, 6, 1).tolist() == [0, 1, 2, 3, 4, 5]


def test_two_images_whose_splits_are_decided_are_not_compared(originals: list[Image.Image]) -> None:
    three = [originals[0], as_jpeg(originals[0], 80), as_jpeg(originals[0], 50), originals[1]]
    tensors = tensors_of(three)
    settled = np.array([True, True, False, True])
    pairs, differences = find_pairs(hashes_of(tensors), tensors, settled)
    assert pairs.tolist() == [[0, 2], [1, 2]]
    assert differences.max() < 0.12


@pytest.mark.parametrize("grey", [(0, 255), (0, 128)])
def test_images_of_one_grey_level_are_alike_only_at_the_same_level(grey: tuple[int, int]) -> None:
    chance = np.random.default_rng(0)
    noise = chance.integers(0, 2, (4, 28, 28, 1))
    tensors = np.clip(noise + np.array([grey[0], grey[0], grey[1], grey[1]]).reshape(4, 1, 1, 1), 0, 255)
    pairs, _ = find_pairs(np.zeros(4, np.uint64), tensors.astype(np.uint8))
    assert pairs.tolist() == [[0, 1], [2, 3]]


def test_no_image_has_no_near_duplicate() -> None:
    empty = np.zeros((0, 8, 8, 1), np.uint8)
    assert find_components(np.zeros(0, np.uint64), empty).tolist() == []
    assert find_components(np.zeros(1, np.uint64), np.zeros((1, 8, 8, 1), np.uint8)).tolist() == [0]


def test_near_duplicates_in_two_splits_are_counted_and_named() -> None:
    train, validation, test, left_out = 0, 1, 2, -2

    def warning(images: list[tuple[int, int]]) -> str | None:
        components, sides = np.array(images).T
        return near_equal_across(
            components, sides.astype(np.int8), lambda rows: ["abcdefgh"[row] for row in rows]
        )

    assert warning([(0, test), (0, train), (1, test), (2, validation), (2, test)]) == (
        "2 test images are nearly equal to a training image, so the test accuracy will be too high: "
        "a (test) and b, e (test) and d"
    )
    assert warning([(0, test), (0, test), (1, train), (2, left_out), (2, test)]) is None
    many = warning([(0, train), *[(0, test)] * 5])
    assert many is not None
    assert many.endswith("b (test) and a, c (test) and a, d (test) and a, and 2 more")


def test_a_run_names_test_images_of_the_source_that_are_nearly_training_images(
    originals: list[Image.Image], tmp_path: Path
) -> None:
    for place, image in enumerate(originals):
        folder = tmp_path / "pets" / ("test" if place % 3 == 0 else "train") / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{place:02}.png")
    as_jpeg(originals[1], 60).save(tmp_path / "pets/test/b/again.png")
    recipe = load_recipe("folder", [f"dataset.path={tmp_path / 'pets'}", "image.height=64", "image.width=64"])
    raw = download_dataset(recipe.dataset, tmp_path / "store")
    (line,) = prepare_dataset(raw, recipe, tmp_path / "store").warnings
    assert line == (
        "1 test image is nearly equal to a training image, so the test accuracy will be too high: "
        "test/b/again.png (test) and train/b/01.png"
    )
