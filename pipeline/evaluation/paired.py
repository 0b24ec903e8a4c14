"""Whether a model is worse than another, judged on the predictions of both for the same images.

Every test is one-sided. Its null hypothesis is that the new model is at most `max_drop` worse than the
reference, so a small p-value is evidence that it is worse by more than that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.inference import Probabilities

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 50
_LOWEST_PROBABILITY = 1e-7


@dataclass(frozen=True, eq=False)
class PairedPredictions:
    """The predictions of two models for the same images.

    Attributes:
        new: float32 [images, classes], of the model that is judged.
        reference: float32 [images, classes], of the model that it is compared with.
        labels: int64 [images], the true classes.
    """

    new: Probabilities
    reference: Probabilities
    labels: Labels

    def of(self, chosen: Flags) -> "PairedPredictions":
        """The predictions for some of the images; `chosen` is bool [images]."""
        return PairedPredictions(self.new[chosen], self.reference[chosen], self.labels[chosen])

    def correct(self) -> tuple[Flags, Flags]:
        """Whether the top-1 class of the new model and of the reference is right: bool [images] each."""
        return self.new.argmax(axis=1) == self.labels, self.reference.argmax(axis=1) == self.labels

    def losses(self) -> tuple[Values, Values]:
        """The cross-entropy in nats, of the new model and of the reference: float64 [images] each."""
        return cross_entropies(self.new, self.labels), cross_entropies(self.reference, self.labels)


def cross_entropies(probabilities: Probabilities, labels: Labels) -> Values:
    """The cross-entropy of each image in nats: float64 [images]."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: Values = -np.log(np.maximum(true, _LOWEST_PROBABILITY))
    return losses


@dataclass(frozen=True)
class Level:
    """The level at which drops are judged.

    Attributes:
        alpha: The probability of finding a drop that is not there, for all tests together. Intervals have a
            confidence level of 1 - 2 alpha.
        tests: The number of tests that are adjusted together.
    """

    alpha: float
    tests: int = 1

    @property
    def strictest(self) -> float:
        """The level at which a single test is certain to be significant after the adjustment by `holm`."""
        return self.alpha / self.tests


@dataclass(frozen=True)
class Drop:
    """How much worse a model is than the reference, in the unit of a metric.

    Attributes:
        new: The metric of the new model.
        reference: The metric of the reference.
        drop: How much worse the new model is; negative if it is better.
        low: The lower end of the confidence interval of the drop.
        high: Its upper end.
        p_value: The probability of evidence at least this strong if the drop were only `max_drop`.
        detectable: The smallest drop that this test would have found on these images; None if none would
            have been found.
    """

    new: float
    reference: float
    drop: float
    low: float
    high: float
    p_value: float
    detectable: float | None


def drop_in_share(new: Flags, reference: Flags, max_drop: float, level: Level) -> Drop:
    """The drop in the share of correct images: in accuracy, or in recall on the images of one class.

    The p-value is that of the exact McNemar test, doi:10.1007/BF02295996, for a `max_drop` of 0; otherwise it
    is that of the score test for a difference of paired proportions: Tango, 1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B. The interval inverts the latter.

    Args:
        new: Whether the new model is right, bool [images].
        reference: Whether the reference is right, bool [images].
        max_drop: The largest drop that is accepted, 0 to 1.
        level: The level of the test.

    Raises:
        ValueError: There are no images.
    """
    images = len(new)
    if images == 0:
        raise ValueError("at least one image is needed to compare models")
    lost = int((reference & ~new).sum())
    gained = int((new & ~reference).sum())
    alpha = level.alpha
    return Drop(
        new=float(new.mean()),
        reference=float(reference.mean()),
        drop=(lost - gained) / images,
        low=_bound(lambda limit: _p_of_drop_score(lost, gained, images, limit) >= alpha, -1.0, 1.0),
        high=_bound(lambda limit: _p_of_drop_score(gained, lost, images, -limit) < alpha, -1.0, 1.0),
        p_value=_p_of_drop(lost, gained, images, max_drop),
        detectable=_detectable(gained, images, max_drop, level.strictest),
    )


def drop_in_mean(
    new: Values, reference: Values, max_drop: float, level: Level, rng: np.random.Generator
) -> Drop:
    """The increase of a mean that should be low, such as the loss, by a paired bootstrap over the images.

    Args:
        new: Of the new model, float64 [images].
        reference: Of the reference, float64 [images].
        max_drop: The largest increase that is accepted.
        level: The level of the test.
        rng: Draws the resamples.
    """
    difference = new - reference
    draws = np.concatenate([difference[chosen].mean(axis=1) for chosen in _resamples(len(new), rng)])
    return _bootstrapped(float(new.mean()), float(reference.mean()), draws, max_drop, level, sign=1)


def drop_in_macro_recall(
    pairs: PairedPredictions, max_drop: float, level: Level, rng: np.random.Generator
) -> Drop:
    """The drop in the mean recall of the classes that have images, by a paired bootstrap within each class.

    Args:
        pairs: The predictions of both models.
        max_drop: The largest drop that is accepted, 0 to 1.
        level: The level of the test.
        rng: Draws the resamples.
    """
    right, reference = pairs.correct()
    by_class = [np.flatnonzero(pairs.labels == label) for label in np.unique(pairs.labels)]
    draws = np.zeros(RESAMPLES)
    for members in by_class:
        # Only the counts of lost, gained and unchanged images matter, so a multinomial draw is enough.
        lost = int((reference[members] & ~right[members]).sum())
        gained = int((right[members] & ~reference[members]).sum())
        # Where no image has changed, others still may: half an image is taken as lost and half as gained
        # (the correction of Haldane and Anscombe), or the interval would have no width.
        changed = np.array([lost, gained] if lost + gained else [0.5, 0.5])
        shares = np.array([*changed, len(members) - changed.sum()]) / len(members)
        counts = rng.multinomial(len(members), shares, size=RESAMPLES)
        draws += (counts[:, 0] - counts[:, 1]) / len(members) / len(by_class)
    recall_new = float(np.mean([right[members].mean() for members in by_class]))
    recall_reference = float(np.mean([reference[members].mean() for members in by_class]))
    return _bootstrapped(recall_new, recall_reference, draws, max_drop, level, sign=-1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests: Holm, 1979, https://www.jstor.org/stable/4615733.

    Returns:
        For each test, the smallest significance level of the whole family at which it is rejected.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _p_of_drop(lost: int, gained: int, images: int, max_drop: float) -> float:
    if max_drop > 0:
        return _p_of_drop_score(lost, gained, images, max_drop)
    if lost + gained == 0:
        return 1.0
    from scipy.special import bdtrc

    # The probability of at least this many losses among the discordant images.
    return float(bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0


def _p_of_drop_score(lost: int, gained: int, images: int, limit: float) -> float:
    """Tango's score test of the hypothesis that the drop is at most `limit`, -1 to 1."""
    excess = lost - gained - images * limit
    # The probability of a gained image that is the most likely one, given this drop.
    linear = -lost - gained + (2 * images - lost + gained) * limit
    constant = -gained * limit * (1 - limit)
    root = math.sqrt(max(linear**2 - 8 * images * constant, 0.0))
    gain = (root - linear) / (4 * images)
    variance = images * (2 * gain + limit * (1 - limit))
    if variance <= 1e-12:
        return 1.0 if excess <= 0 else 0.0
    return 0.5 * math.erfc(excess / math.sqrt(2 * variance))


def _bound(is_above: Callable[[float], bool], low: float, high: float) -> float:
    """The value from which on a condition holds, by bisection."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return (low + high) / 2


def _detectable(gained: int, images: int, max_drop: float, alpha: float) -> float | None:
    """The smallest drop that would have been significant if as many images had been gained."""
    fewest, most = 0, images - gained
    if _p_of_drop(most, gained, images, max_drop) >= alpha:
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        if _p_of_drop(middle, gained, images, max_drop) < alpha:
            most = middle
        else:
            fewest = middle + 1
    return (most - gained) / images


def _resamples(images: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Indices with replacement, int64 [some, images]: few at once, so that memory stays bounded."""
    return [
        rng.integers(0, images, (_RESAMPLES_AT_ONCE, images)) for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]


def _bootstrapped(
    new: float, reference: float, draws: Values, max_drop: float, level: Level, sign: int
) -> Drop:
    drop = (new - reference) * sign
    # Under the null hypothesis the resampled drops would lie around `max_drop` instead of around the drop.
    p_value = (1 + int((draws - drop >= drop - max_drop - 1e-12).sum())) / (1 + len(draws))
    low, high = np.quantile(draws, [level.alpha, 1 - level.alpha])
    detectable = max_drop + float(np.quantile(draws - drop, 1 - level.strictest))
    return Drop(new, reference, drop, float(low), float(high), p_value, max(detectable, 0.0))
