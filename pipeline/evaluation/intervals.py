"""95% confidence intervals of proportions, such as accuracy and recall."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Z_95 = 1.959964
"""95% of the standard normal distribution lie within this distance of its mean."""


class Interval(NamedTuple):
    """The 95% confidence interval of a proportion, 0 to 1."""

    low: float
    high: float


def interval_of_proportion(count: int, total: int) -> Interval:
    """The interval of the proportion `count / total`: Wilson, 1927, doi:10.1080/01621459.1927.10502953."""
    if total == 0:
        return Interval(0.0, 1.0)
    share, square = count / total, Z_95**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z_95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    # Rounding must not exclude the proportion itself.
    return Interval(max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def interval_of_mean(counts: Sequence[tuple[int, int]]) -> Interval:
    """The interval of the mean of several proportions, each given as a count and a total.

    It is derived from the intervals of the proportions: Zou and Donner, 2008, doi:10.1002/sim.3095.
    """
    shares = [count / total if total else 0.0 for count, total in counts]
    intervals = [interval_of_proportion(count, total) for count, total in counts]
    mean = sum(shares) / len(shares)

    def distance(ends: list[float]) -> float:
        return math.hypot(*(share - end for share, end in zip(shares, ends, strict=True))) / len(shares)

    return Interval(
        mean - distance([interval.low for interval in intervals]),
        mean + distance([interval.high for interval in intervals]),
    )
