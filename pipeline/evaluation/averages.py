"""Confidence intervals of averages, such as the loss, by bootstrap."""

import math

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.evaluation.intervals import Z_95, Interval

_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50
_MOST_RESAMPLED = 10_000


def interval_of_average(values: npt.NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """The 95% confidence interval of the mean of some values.

    It is the percentile interval of 1,000 bootstrap resamples: Efron and Tibshirani, 1993,
    doi:10.1201/9780429246593. Of more than 10,000 values, the mean is normally distributed, and the interval
    is computed from their standard deviation.

    Args:
        values: float64 [images], at least one.
        rng: Draws the resamples.
    """
    count, mean = len(values), float(values.mean())
    if count > _MOST_RESAMPLED:
        half = Z_95 * float(values.std(ddof=1)) / math.sqrt(count)
        return Interval(mean - half, mean + half)
    draws = [
        values[rng.integers(0, count, (_RESAMPLES_AT_ONCE, count))].mean(axis=1)
        for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
    # Rounding must not exclude the mean itself.
    return Interval(min(float(low), mean), max(float(high), mean))
