"""The statistics that batch normalization uses at inference, computed from training images.

While it trains, a layer normalizes with the mean and variance of each batch, and keeps a moving average of
them for inference. After a few hundred steps that average still holds a part of its initial values, and of
weights that have changed since; with averaged weights it belongs to other weights altogether. So once the
weights are chosen, the statistics are computed anew: Wu and Johnson, 2021, arXiv:2105.07576, section 3.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training import NormalizationCheck
from pixelmill.pipeline.training.backends import chosen_backend

_MOST_IMAGES = 10_000
_MOST_CHECKED = 2_000
_SMALLEST_BATCH = 32
# No epoch of a training has so high a number, so these draws are of no epoch's.
_SAMPLE = 2**32 - 1
Values = npt.NDArray[np.float64]


def limit_momentum(network: Any, steps: int) -> None:
    """Have the moving averages forget their initial values within an epoch.

    Until the last epoch is over, the validation, and early stopping with it, sees these averages. With
    Keras' momentum of 0.99 and 4 steps an epoch they would be nearly the initial values for many epochs.

    Args:
        network: A Keras model, not yet compiled.
        steps: Of an epoch. From 300 on, 0.99 stays as it is.
    """
    for layer in trainable_normalizations(network):
        layer.momentum = min(layer.momentum, max(0.5, 1 - 3 / steps))


def estimate_statistics(
    network: Any, images: Images, training: TrainingSpec, devices: int = 1
) -> NormalizationCheck | None:
    """Give each batch normalization the mean and variance of training images, and check what that is worth.

    The images are as inference sees them, not augmented, and dropout is off. Layers that are not trainable
    keep the statistics that they came with.

    Args:
        network: A Keras model that takes uint8 images and gives probabilities, in float32, not compiled.
        images: The training split, of which at most 10,000 are drawn.
        training: The seed of the draw, and the batch size that the network was trained with.
        devices: How many share a batch.

    Returns:
        The accuracy on some of these images with the statistics of each batch and with the new ones; None
        for a network without a batch normalization that trains.
    """
    layers = trainable_normalizations(network)
    if not layers:
        return None
    batches = _draw_batches(len(images.labels), training, devices)
    correct = []
    with progress("normalize", batches.size, "images") as advance:
        with _measuring_batches(network, layers):
            moments = [_Moments() for _ in layers]
            for chosen in batches:
                correct.append(_named_right(network, images, chosen))
                for layer, total in zip(layers, moments, strict=True):
                    total.add(len(chosen), _to_numpy(layer.moving_mean), _to_numpy(layer.moving_variance))
                advance(len(chosen), "")
        for layer, total in zip(layers, moments, strict=True):
            layer.moving_mean.assign(total.mean)
            layer.moving_variance.assign(total.variance)
    checked = batches[: math.ceil(_MOST_CHECKED / batches.shape[1])]
    return NormalizationCheck(
        images=checked.size,
        accuracy=sum(_named_right(network, images, chosen) for chosen in checked) / checked.size,
        batch_accuracy=sum(correct[: len(checked)]) / checked.size,
    )


def trainable_normalizations(network: Any) -> list[Any]:
    """The batch normalizations of a Keras model that train, with those of the models inside it."""
    import keras

    found = []
    for layer in network.layers:
        if hasattr(layer, "layers"):
            found += trainable_normalizations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            found.append(layer)
    return found


class _Moments:
    """Mean and variance of many batches together: Chan, Golub and LeVeque, 1979."""

    def __init__(self) -> None:
        self._count = 0
        self.mean: Values = np.zeros(1)
        self._squares: Values = np.zeros(1)

    @property
    def variance(self) -> Values:
        """The mean of the batches' variances, and the variance of their means."""
        return self._squares / self._count

    def add(self, count: int, mean: Values, variance: Values) -> None:
        away, total = mean - self.mean, self._count + count
        self.mean = self.mean + away * count / total
        self._squares = self._squares + variance * count + away**2 * self._count * count / total
        self._count = total


def _draw_batches(count: int, training: TrainingSpec, devices: int) -> npt.NDArray[np.int64]:
    """Batches of one size, that of training or larger: int64 [batches, images], indices."""
    draws = np.random.default_rng(np.random.SeedSequence(training.seed, spawn_key=(_SAMPLE,)))
    chosen = draws.choice(count, min(count, _MOST_IMAGES), replace=False)
    batches = max(1, len(chosen) // max(training.batch_size, _SMALLEST_BATCH))
    size = len(chosen) // batches
    size = max(1, size // devices) * devices
    return chosen[: batches * size].reshape(batches, size)


def _named_right(network: Any, images: Images, chosen: npt.NDArray[np.int64]) -> int:
    # In the order of the file, which reads it in one direction.
    chosen = np.sort(chosen)
    pixels: Pixels = images.pixels[chosen]
    predictions = network.predict_on_batch(pixels).argmax(axis=1)
    return int(np.sum(predictions == images.labels[chosen]))


@contextmanager
def _measuring_batches(network: Any, layers: list[Any]) -> Iterator[None]:
    """Have layers normalize with each batch's statistics, also at inference, and keep those of the last."""
    before = [(layer.__class__, layer.momentum) for layer in layers]
    for layer in layers:
        layer.__class__ = _measuring(layer.__class__)
        layer.momentum = 0.0
        # Zero times an average that has grown out of its range would be NaN.
        layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
        layer.moving_variance.assign(np.ones(layer.moving_variance.shape))
    _compile_prediction(network)
    try:
        yield
    finally:
        for layer, (kind, momentum) in zip(layers, before, strict=True):
            layer.__class__, layer.momentum = kind, momentum
        _compile_prediction(network)


def _compile_prediction(network: Any) -> None:
    """Have `predict_on_batch` call the layers as they are now."""
    if chosen_backend() == "tensorflow":
        network.jit_compile = False  # XLA cannot have deterministic operations.
    network.make_predict_function(force=True)


@cache
def _measuring(kind: type) -> type:
    class BatchMeasuring(kind):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            return super().call(inputs, training=True, mask=mask)

    return BatchMeasuring


def _to_numpy(variable: Any) -> Values:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(variable), np.float64)
