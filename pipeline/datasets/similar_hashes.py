"""Pairs of perceptual hashes that differ in few bits, without comparing each with each."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]

MAX_BITS = 12
_BLOCKS, _BLOCK_BITS = 8, 8
# Up to here, hashes are compared that are equal in one of their 8 bytes, beyond it in two of them.
_SMALL = 250_000
_MAX_COMPARISONS = 8 * 10**8
# Of hashes that many images share, so many images are compared with those of a similar hash.
_MAX_EQUAL = 8
# So many pairs for each image are enough: where there are more, hashes say little.
_MAX_PAIRS = 20
# Each image is compared with so many that have the same hash.
_WINDOW_EQUAL = 64


def similar_pairs(hashes: Hashes) -> Pairs:
    """Pairs of images whose hashes differ in at most `MAX_BITS` bits.

    Two hashes are compared if they are equal in one byte. So all pairs that differ in up to 7 bits are found,
    and most that differ in 10 or 12. Above 250,000 different hashes two bytes must be equal, which finds all
    pairs of up to 6 bits. Of more hashes with the same byte than can be compared, neighbours in sorted order
    are; of more similar pairs than 20 for each image, those that differ in the fewest bits are kept.

    Args:
        hashes: The hash of each image, uint64 [images].

    Returns:
        int64 [pairs, 2]: indices of images, the smaller one first, sorted. Of images with equal hashes, each
        is paired with the next 64, and the first 8 with images of similar hashes.
    """
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    values, starts, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    found = [_rows_of(_nearest_values(values), order, starts, counts), _equal_rows(order, counts)]
    return _each_once(np.sort(np.concatenate(found), axis=1), len(hashes))


def distinct(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each non-negative number once, sorted; the hash table of `np.unique` is slow for regular ones."""
    ordered = np.sort(numbers, axis=None)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _each_once(pairs: Pairs, count: int) -> Pairs:
    """Each pair of indices below `count` once, sorted."""
    codes = distinct(pairs[:, 0] * max(count, 1) + pairs[:, 1])
    return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)


def _nearest_values(values: Hashes) -> Pairs:
    """Pairs of indices of sorted, different hashes, the smaller index first.

    Where too many are similar, as of drawings and digits, only those that differ in the fewest bits are kept.
    """
    limit, bits = _MAX_PAIRS * len(values), MAX_BITS
    kept, waiting, size = np.zeros((0, 2), np.int64), [np.zeros((0, 2), np.int64)], 0
    for pairs in _similar_values(values):
        waiting.append(pairs[_distance(values, pairs) <= bits])
        size += len(waiting[-1])
        if size > 2 * limit:
            kept, bits = _reduce(values, [kept, *waiting], limit, bits)
            waiting, size = [], 0
    return _reduce(values, [kept, *waiting], limit, bits)[0]


def _reduce(values: Hashes, found: list[Pairs], limit: int, bits: int) -> tuple[Pairs, int]:
    """The distinct pairs that differ in at most so many bits that there are no more than `limit`."""
    pairs = _each_once(np.sort(np.concatenate(found), axis=1), len(values))
    distances = _distance(values, pairs)
    totals = np.cumsum(np.bincount(distances, minlength=MAX_BITS + 1))
    while bits and totals[bits] > limit:
        bits -= 1
    return pairs[distances <= bits], bits


def _distance(values: Hashes, pairs: Pairs) -> npt.NDArray[np.uint8]:
    bits: npt.NDArray[np.uint8] = np.bitwise_count(values[pairs[:, 0]] ^ values[pairs[:, 1]])
    return bits


def _similar_values(values: Hashes) -> Iterator[Pairs]:
    """Pairs of indices of sorted, different hashes; a pair may come more than once."""
    together = 1 if len(values) <= _SMALL else 2
    chosen_bytes = list(combinations(range(_BLOCKS), together))
    window = max(1, _MAX_COMPARISONS // (len(chosen_bytes) * max(len(values), 1)))
    for chosen in chosen_bytes:
        key = np.zeros(len(values), np.uint64)
        for block in chosen:
            key = (key << np.uint64(_BLOCK_BITS)) | (
                (values >> np.uint64(_BLOCK_BITS * block)) & np.uint64(255)
            )
        sorting = np.argsort(key, kind="stable")
        keys, bits = key[sorting], values[sorting]
        active = np.arange(len(values))
        for offset in range(1, window + 1):
            active = active[: np.searchsorted(active, len(values) - offset)]
            active = active[keys[active] == keys[active + offset]]
            if not len(active):
                break
            near = active[np.bitwise_count(bits[active] ^ bits[active + offset]) <= MAX_BITS]
            yield np.stack([sorting[near], sorting[near + offset]], axis=1)


def _rows_of(pairs: Pairs, order: Pairs, starts: Pairs, counts: Pairs) -> Pairs:
    """Pairs of images from pairs of hashes; of a hash that many images share, only the first few."""
    sizes = np.minimum(counts[pairs], _MAX_EQUAL)
    found = [np.zeros((0, 2), np.int64)]
    for one in range(int(sizes[:, 0].max(initial=0))):
        for two in range(int(sizes[:, 1].max(initial=0))):
            both = pairs[(one < sizes[:, 0]) & (two < sizes[:, 1])]
            found.append(np.stack([order[starts[both[:, 0]] + one], order[starts[both[:, 1]] + two]], axis=1))
    return np.concatenate(found)


def _equal_rows(order: Pairs, counts: Pairs) -> Pairs:
    """Pairs of images with equal hashes: each with the next few."""
    value_of = np.repeat(np.arange(len(counts)), counts)
    found = [np.zeros((0, 2), np.int64)]
    for offset in range(1, min(_WINDOW_EQUAL, len(order) - 1) + 1):
        same = np.flatnonzero(value_of[offset:] == value_of[:-offset])
        if not len(same):
            break
        found.append(np.stack([order[same], order[same + offset]], axis=1))
    return np.concatenate(found)
