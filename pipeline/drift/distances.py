"""How far two samples are apart, from 0 to 1, and how far apart chance alone may drive them.

The noise is an upper bound for samples of one distribution: the distance exceeds it with a probability of at
most `alpha`.
"""

import math

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def distance_of_shares(one: Counts, other: Counts) -> float:
    """The total variation distance of two histograms: half the sum of the differences of their shares.

    It is the share of the images that would have to be of another class.
    """
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def noise_of_shares(one: Counts, other: Counts, alpha: float) -> float:
    """The noise of `distance_of_shares`.

    It is a bound on the expected distance, from the variance of each share, and one on the distance from
    that expectation: McDiarmid, 1989, doi:10.1017/CBO9781107359949.008.
    """
    size = _joint_size(int(one.sum()), int(other.sum()))
    shares = (one + other) / (one.sum() + other.sum())
    expected = float(np.sqrt(shares * (1 - shares) / size).sum() / 2)
    return min(1.0, expected + math.sqrt(math.log(1 / alpha) / (2 * size)))


def noise_of_distribution(images: int, others: int, alpha: float) -> float:
    """The noise of the largest difference of two cumulative distributions (Kolmogorov and Smirnov).

    Source: Wei and Dudley, 2012, arXiv:1107.5356.
    """
    return min(1.0, math.sqrt(math.log(2 / alpha) / (2 * _joint_size(images, others))))


def distance_of_histograms(one: Counts, other: Counts) -> float:
    """The largest difference of the cumulative shares of two histograms with the same bins."""
    return float(np.abs(np.cumsum(one) / one.sum() - np.cumsum(other) / other.sum()).max())


def _joint_size(images: int, others: int) -> float:
    """The size m of samples of n and k images with 1 / m = 1 / n + 1 / k."""
    return images * others / (images + others)
