"""Near duplicates: images that differ by compression, a small crop, a little light, or a moment of time.

Candidates are pairs of similar perceptual hashes, and pixels decide. Likeness is not transitive, so
components have a largest size.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import SplitName
from pixelmill.pipeline.datasets.similar_hashes import Hashes, Pairs, distinct, similar_pairs
from pixelmill.pipeline.images import Pixels

MAX_COMPONENT = 1000
# The largest difference of near duplicates, relative to their contrast; see `_differences`.
MAX_DIFFERENCE = 0.12
# Drawings and digits on a plain ground have little that tells them apart, so they must be closer.
_MAX_DIFFERENCE_ON_PLAIN = 0.04
_PLAIN_SHARE, _PLAIN_LEVELS, _PLAIN_CONTRAST = 0.35, 16, 32
_COARSE, _FINE = 8, 32
# Images of hardly any contrast, such as a clear sky, differ by noise alone: a variance in grey levels.
_NOISE = 16.0
# A difference in the mean of a channel that is no more than a little light, in grey levels.
_MAX_SHIFT = 16.0
_MAX_NAMES = 3
_IMAGES_AT_ONCE, _PAIRS_AT_ONCE = 256, 2048
Floats = npt.NDArray[np.float32]


class Tensors(Protocol):
    """Tensors on disk or in memory, uint8 [images, height, width, channels]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of images, their height, width and channels."""

    def __getitem__(self, rows: Pairs, /) -> Pixels:
        """The tensors with these indices, uint8 [indices, height, width, channels]."""


def find_components(
    hashes: Hashes,
    tensors: Tensors,
    max_size: int = MAX_COMPONENT,
    settled: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """Number the components of near duplicates, of which no image has a near duplicate elsewhere.

    Args:
        hashes: The perceptual hash of each image, uint64 [images].
        tensors: The image tensors.
        max_size: The largest number of images in a component. The least similar pairs are cut first.
        settled: Images whose split is decided, bool [images]. Pairs of two such images do not count.

    Returns:
        The component of each image, int64 [images], numbered by the first image in each.
    """
    pairs, differences = find_pairs(hashes, tensors, settled)
    return join_pairs(pairs, differences, len(hashes), max_size)


def join_pairs(
    pairs: Pairs, differences: Floats, count: int, max_size: int = MAX_COMPONENT
) -> npt.NDArray[np.int64]:
    """Number the components of `count` images from the pairs of `find_pairs`; see `find_components`."""
    parents, sizes = list(range(count)), [1] * count

    def root(image: int) -> int:
        while parents[image] != image:
            parents[image] = parents[parents[image]]
            image = parents[image]
        return image

    for one, two in pairs[np.argsort(differences, kind="stable")].tolist():
        first, second = root(one), root(two)
        if first != second and sizes[first] + sizes[second] <= max_size:
            parents[max(first, second)] = min(first, second)
            sizes[min(first, second)] += sizes[max(first, second)]
    return np.array([root(image) for image in range(count)], np.int64)


def near_equal_across(pairs: Pairs, splits: Sequence[SplitName | None], names: Sequence[str]) -> str | None:
    """A warning about test images that are near duplicates of training or validation images.

    Args:
        pairs: The pairs of `find_pairs`.
        splits: The split of each image.
        names: What the warning calls each image.

    Returns:
        One line with the number of such test images and examples; None if there are none.
    """
    is_test = np.array([split == "test" for split in splits], np.bool_)
    is_used = np.array([split in ("train", "validation") for split in splits], np.bool_)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    found = both[is_test[both[:, 0]] & is_used[both[:, 1]]]
    _, first = np.unique(found[:, 0], return_index=True)
    if not len(first):
        return None
    shown = ", ".join(f"{names[test]} (test) and {names[used]}" for test, used in found[first[:_MAX_NAMES]])
    more = f", and {len(first) - _MAX_NAMES:,} more" if len(first) > _MAX_NAMES else ""
    noun = "test images are" if len(first) > 1 else "test image is"
    return (
        f"{len(first):,} {noun} nearly equal to a training image, so the test accuracy will be too high: "
        f"{shown}{more}"
    )


def find_pairs(
    hashes: Hashes, tensors: Tensors, settled: npt.NDArray[np.bool_] | None = None
) -> tuple[Pairs, Floats]:
    """Pairs of near duplicates.

    Args:
        hashes: The perceptual hash of each image, uint64 [images].
        tensors: The image tensors.
        settled: Images of which two are not compared with each other, bool [images].

    Returns:
        int64 [pairs, 2], indices of images, the smaller one first, sorted; and how much they differ,
        float32 [pairs], from 0 to `MAX_DIFFERENCE`.
    """
    pairs = similar_pairs(hashes)
    if settled is not None:
        pairs = pairs[~(settled[pairs[:, 0]] & settled[pairs[:, 1]])]
    rows = distinct(pairs)
    coarse = _thumbnails(rows, tensors, _COARSE)
    found = [(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        one, two = np.searchsorted(rows, some).T
        found.append(_confirm(some[_differences(coarse[one], coarse[two]) <= MAX_DIFFERENCE], tensors))
    return np.concatenate([part for part, _ in found]), np.concatenate([part for _, part in found])


def _thumbnails(rows: Pairs, tensors: Tensors, side: int) -> Pixels:
    """Images downscaled to at most `side` pixels, uint8 [rows, side, side, channels]."""
    import cv2

    height, width, channels = tensors.shape[1:]
    size = (min(side, width), min(side, height))
    made = np.empty((len(rows), size[1], size[0], channels), np.uint8)
    for start in range(0, len(rows), _IMAGES_AT_ONCE):
        for index, pixels in enumerate(tensors[rows[start : start + _IMAGES_AT_ONCE]], start):
            made[index] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(made.shape[1:])
    return made


def _confirm(pairs: Pairs, tensors: Tensors) -> tuple[Pairs, Floats]:
    """The pairs that differ little in detail, and by how much."""
    rows = distinct(pairs)
    thumbnails = _thumbnails(rows, tensors, _FINE)
    places = np.searchsorted(rows, pairs)
    blurred = _blurred(thumbnails)
    differences = _differences(blurred[places[:, 0]], blurred[places[:, 1]])
    near = np.flatnonzero(differences <= MAX_DIFFERENCE)
    if not len(near):
        return pairs[near], differences[near]
    one, two = places[near].T
    sharp = _differences(thumbnails[one], thumbnails[two])
    near = near[(sharp <= _MAX_DIFFERENCE_ON_PLAIN) | ~_are_plain(thumbnails[one])]
    return pairs[near], differences[near]


def _blurred(thumbnails: Pixels) -> Pixels:
    """Thumbnails without fine detail, which moves with a crop of one pixel."""
    import cv2

    if min(thumbnails.shape[1:3]) <= _COARSE:
        return thumbnails
    made = [cv2.blur(pixels, (3, 3)).reshape(pixels.shape) for pixels in thumbnails]
    return np.stack(made) if made else thumbnails


def _are_plain(thumbnails: Pixels) -> npt.NDArray[np.bool_]:
    """Whether images have strong contrast and a ground of the darkest or brightest level, bool [images]."""
    levels = thumbnails.reshape(len(thumbnails), thumbnails[:1].size).astype(np.int16)
    darkest, brightest = levels.min(1, keepdims=True), levels.max(1, keepdims=True)
    dark = (levels <= darkest + _PLAIN_LEVELS).mean(axis=1)
    bright = (levels >= brightest - _PLAIN_LEVELS).mean(axis=1)
    has_ground = np.maximum(dark, bright) > _PLAIN_SHARE
    plain: npt.NDArray[np.bool_] = has_ground & (levels.std(axis=1) > _PLAIN_CONTRAST)
    return plain


def _differences(one: Pixels, two: Pixels) -> Floats:
    """How much images differ: their mean squared difference divided by their mean variance, float32 [images].

    Each channel is taken relative to its mean, so that a little more light makes no difference. Infinite
    where the means are far apart.
    """
    first, second = one.astype(np.float32), two.astype(np.float32)
    means = first.mean((1, 2), keepdims=True), second.mean((1, 2), keepdims=True)
    first -= means[0]
    second -= means[1]
    variance = (np.square(first).mean((1, 2, 3)) + np.square(second).mean((1, 2, 3))) / 2
    differences = np.square(first - second).mean((1, 2, 3)) / (variance + _NOISE)
    shift = np.abs(means[0] - means[1]).max((1, 2, 3))
    return np.where(shift <= _MAX_SHIFT, differences, np.float32(np.inf)).astype(np.float32)
