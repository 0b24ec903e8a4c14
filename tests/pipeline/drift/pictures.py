"""Pictures of digits with a simple classifier for them, and what may happen to them in production."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.drift.baseline import describe_baseline
from pixelmill.pipeline.drift.counts import PredictionCounts
from pixelmill.pipeline.drift.image_measures import ImageValues, measure_images
from pixelmill.pipeline.drift.sample import SAMPLE_IMAGES, ImageSample

SIDE = 28
CLASSES = 10
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scored:
    """Pictures, reduced to what drift is measured on, and the true classes."""

    probabilities: npt.NDArray[np.float32]
    values: ImageValues
    labels: npt.NDArray[np.int64]

    def baseline(self) -> dict[str, object]:
        return describe_baseline(self.probabilities, self.labels, self.values)

    def drawn(self, images: int, draws: np.random.Generator) -> "Scored":
        """A resample with replacement."""
        chosen = draws.integers(0, len(self.labels), images)
        return Scored(self.probabilities[chosen], self.values[chosen], self.labels[chosen])

    def counts(self) -> PredictionCounts:
        top_1 = self.probabilities.argmax(axis=1)
        return PredictionCounts.of(top_1, self.probabilities.max(axis=1), CLASSES)

    def sample(self) -> ImageSample:
        """As many images as a run measures of many."""
        values = self.values[:SAMPLE_IMAGES]
        return ImageSample.of(1.0, np.linspace(0, 1, len(values), endpoint=False), values)

    def accuracy(self) -> float:
        return float((self.probabilities.argmax(axis=1) == self.labels).mean())


@cache
def digits() -> tuple[Pixels, npt.NDArray[np.int64]]:
    """The digits of scikit-learn, enlarged to 24 x 24 pixels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    small = np.minimum(images.reshape(-1, 8, 8) * 16, 255).astype(np.uint8)
    return small.repeat(3, axis=1).repeat(3, axis=2), labels.astype(np.int64)


def draw_pictures(images: int, seed: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Pictures of digits of varying place and brightness, with noise: uint8 [images, 28, 28, 1]."""
    draws = np.random.default_rng(seed)
    enlarged, labels = digits()
    chosen = draws.integers(0, len(labels), images)
    pictures = np.zeros((images, SIDE, SIDE), np.float32)
    down, right = draws.integers(1, 4, (2, images))
    for at, which in enumerate(chosen):
        pictures[at, down[at] : down[at] + 24, right[at] : right[at] + 24] = enlarged[which]
    pictures *= draws.uniform(0.7, 1, (images, 1, 1)).astype(np.float32)
    pictures += draws.normal(12, 6, pictures.shape).astype(np.float32)
    return pictures.clip(0, 255).astype(np.uint8)[..., np.newaxis], labels[chosen]


def predict(pictures: Pixels) -> npt.NDArray[np.float32]:
    """The probabilities of a nearest-centroid classifier, float32 [images, classes]."""
    known, labels = draw_pictures(3000, 99)
    centroids = np.stack([known[labels == digit].mean(axis=0).ravel() for digit in range(CLASSES)])
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    distances = (centroids**2).sum(axis=1) - 2 * flat @ centroids.T.astype(np.float32)
    logits = -distances / 1e5
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32)


def score(pictures: Pixels, labels: npt.NDArray[np.int64], width: int = SIDE, height: int = SIDE) -> Scored:
    """Predict and measure pictures, whose files have this size."""
    count = len(pictures)
    values = measure_images(list(pictures), np.full(count, width), np.full(count, height))
    return Scored(predict(pictures), values, labels)


def inverted(pictures: Pixels) -> Pixels:
    return 255 - pictures


def shifted(pictures: Pixels) -> Pixels:
    """Four pixels to the right, with black at the left."""
    moved = np.zeros_like(pictures)
    moved[:, :, 4:] = pictures[:, :, :-4]
    return moved


def another_dataset(pictures: Pixels) -> Pixels:
    """As many patches of photographs."""
    from sklearn.datasets import load_sample_images

    draws = np.random.default_rng(5)
    photographs = [photograph.mean(axis=2) for photograph in load_sample_images().images]
    patches = np.zeros_like(pictures)
    for at in range(len(pictures)):
        photograph = photographs[at % len(photographs)]
        top, left = (draws.integers(0, side - SIDE) for side in photograph.shape)
        patches[at, ..., 0] = photograph[top : top + SIDE, left : left + SIDE]
    return patches


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "inverted": inverted,
    "shifted by 4 pixels": shifted,
    "another dataset": another_dataset,
}
