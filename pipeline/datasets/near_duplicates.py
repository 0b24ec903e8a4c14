"""Near duplicates: images that differ by compression, a small crop, a little light, or a moment of time.

Candidates are pairs of similar perceptual hashes, and pixels decide. Likeness is not transitive, so
components have a largest size.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets.decisions import SPLITS, Sides
from pixelmill.pipeline.datasets.similar_hashes import Hashes, Pairs, distinct, similar_pairs
from pixelmill.pipeline.datasets.thumbnails import COARSE, FINE, Floats, Tensors, make_thumbnails

MAX_COMPONENT = 1000
# The largest difference of near duplicates, relative to their contrast; see `Thumbnails.differences`.
MAX_DIFFERENCE = 0.12
# Drawings and digits on a plain ground have little that tells them apart, so they must be closer.
_MAX_DIFFERENCE_ON_PLAIN = 0.04
_MAX_NAMES = 3
# So many thumbnails are in memory at once, of up to 3 kB each.
_IMAGES_AT_ONCE = 65_536


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


def near_equal_across(
    components: npt.NDArray[np.int64], sides: Sides, names: Callable[[Pairs], Sequence[str]]
) -> str | None:
    """A warning about test images that are near duplicates of training or validation images.

    Args:
        components: The component of each image, int64 [images].
        sides: The split of each image, int8 [images].
        names: What the warning calls the images with these indices.

    Returns:
        One line with the number of such test images and examples; None if there are none.
    """
    is_test = sides == SPLITS.index("test")
    used = np.flatnonzero((sides >= 0) & ~is_test)
    first_used = np.full(components.max(initial=-1) + 1, -1)
    first_used[components[used[::-1]]] = used[::-1]
    found = np.flatnonzero(is_test & (first_used[components] >= 0))
    if not len(found):
        return None
    some = found[:_MAX_NAMES]
    pairs = zip(names(some), names(first_used[components[some]]), strict=True)
    shown = ", ".join(f"{test} (test) and {other}" for test, other in pairs)
    more = f", and {len(found) - _MAX_NAMES:,} more" if len(found) > _MAX_NAMES else ""
    noun = "test images are" if len(found) > 1 else "test image is"
    return (
        f"{len(found):,} {noun} nearly equal to a training image, so the test accuracy will be too high: "
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
    coarse = make_thumbnails(distinct(pairs), tensors, COARSE)
    pairs = pairs[coarse.differences(pairs) <= MAX_DIFFERENCE]
    # All at once if that is no more memory than parts of any other pairs, whose images overlap.
    at_once = _IMAGES_AT_ONCE // 2 if len(distinct(pairs)) > _IMAGES_AT_ONCE else max(1, len(pairs))
    # Once at least, so that there is something to join.
    starts = range(0, max(1, len(pairs)), at_once)
    kept, differences = zip(
        *(_confirm(pairs[start : start + at_once], tensors) for start in starts), strict=True
    )
    return np.concatenate(kept), np.concatenate(differences)


def _confirm(pairs: Pairs, tensors: Tensors) -> tuple[Pairs, Floats]:
    """The pairs that differ little in detail, and by how much."""
    differences = make_thumbnails(distinct(pairs), tensors, FINE, blurs=True).differences(pairs)
    near = np.flatnonzero(differences <= MAX_DIFFERENCE)
    pairs, differences = pairs[near], differences[near]
    ones = make_thumbnails(distinct(pairs[:, 0]), tensors, FINE)
    is_plain = ones.are_plain()[np.searchsorted(ones.rows, pairs[:, 0])]
    kept = ~is_plain
    sharp = make_thumbnails(distinct(pairs[is_plain]), tensors, FINE)
    kept[is_plain] = sharp.differences(pairs[is_plain]) <= _MAX_DIFFERENCE_ON_PLAIN
    return pairs[kept], differences[kept]
