"""The batch normalization statistics for inference, computed from training images.

During training, a layer normalizes with the mean and variance of each batch, and keeps a moving average of
them for inference. After a few hundred steps that average still contains part of its initial values and of
statistics of outdated weights; with an exponential moving average of the weights, it belongs to different
weights altogether. So the statistics are recomputed once the weights are final: Wu and Johnson, 2021,
arXiv:2105.07576, section 3.
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

_MAX_IMAGES = 10_000
_MAX_CHECKED_IMAGES = 2_000
_MIN_BATCH = 32
# No epoch has this number, so the random numbers differ from those of every epoch.
_SPAWN_KEY = 2**32 - 1
Values = npt.NDArray[np.float64]


def limit_momentum(network: Any, steps: int) -> None:
    """Lower the momentum so that the moving averages forget their initial values within an epoch.

    Validation during training, and with it early stopping, uses these averages. With the default momentum
    of 0.99 and 4 steps per epoch, they would stay close to their initial values for many epochs.

    Args:
        network: A Keras model, not yet compiled.
        steps: Steps per epoch. From 300 on, the momentum stays at 0.99.
    """
    for layer in trainable_normalizations(network):
        layer.momentum = min(layer.momentum, max(0.5, 1 - 3 / steps))


def estimate_statistics(
    network: Any, images: Images, training: TrainingSpec, devices: int = 1
) -> NormalizationCheck | None:
    """Set the statistics of each batch normalization from training images, and check the accuracy.

    The images are not augmented, and dropout is off, as at inference. Frozen layers keep their statistics.

    Args:
        network: A Keras model in float32, not compiled, from uint8 images to probabilities.
        images: The training split, from which at most 10,000 images are sampled.
        training: Gives the seed of the sample and the batch size.
        devices: Number of devices that share each batch.

    Returns:
        The accuracy on some of these images with the statistics of each batch and with the new ones; None
        for a network without trainable batch normalization.
    """
    layers = trainable_normalizations(network)
    if not layers:
        return None
    batches = _draw_batches(len(images.labels), training, devices)
    correct = []
    with progress("estimate statistics", batches.size, "images") as advance:
        with _using_batch_statistics(network, layers):
            moments = [_Moments() for _ in layers]
            for chosen in batches:
                correct.append(_count_correct(network, images, chosen))
                for layer, total in zip(layers, moments, strict=True):
                    total.add(len(chosen), _to_numpy(layer.moving_mean), _to_numpy(layer.moving_variance))
                advance(len(chosen), "")
        for layer, total in zip(layers, moments, strict=True):
            layer.moving_mean.assign(total.mean)
            layer.moving_variance.assign(total.variance)
    checked = batches[: math.ceil(_MAX_CHECKED_IMAGES / batches.shape[1])]
    return NormalizationCheck(
        images=checked.size,
        accuracy=sum(_count_correct(network, images, chosen) for chosen in checked) / checked.size,
        batch_accuracy=sum(correct[: len(checked)]) / checked.size,
    )


def trainable_normalizations(network: Any) -> list[Any]:
    """The trainable batch normalization layers of a Keras model and its nested models."""
    import keras

    found = []
    for layer in network.layers:
        if hasattr(layer, "layers"):
            found += trainable_normalizations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            found.append(layer)
    return found


class _Moments:
    """Running mean and variance over batches: Chan, Golub and LeVeque, 1979."""

    def __init__(self) -> None:
        self._count = 0
        self.mean: Values = np.zeros(1)
        self._squares: Values = np.zeros(1)

    @property
    def variance(self) -> Values:
        """The variance over all batches: mean variance within batches plus variance of their means."""
        return self._squares / self._count

    def add(self, count: int, mean: Values, variance: Values) -> None:
        delta, total = mean - self.mean, self._count + count
        self.mean = self.mean + delta * count / total
        self._squares = self._squares + variance * count + delta**2 * self._count * count / total
        self._count = total


def _draw_batches(count: int, training: TrainingSpec, devices: int) -> npt.NDArray[np.int64]:
    """Indices of batches of equal size, at least that of training: int64 [batches, images]."""
    rng = np.random.default_rng(np.random.SeedSequence(training.seed, spawn_key=(_SPAWN_KEY,)))
    chosen = rng.choice(count, min(count, _MAX_IMAGES), replace=False)
    batches = max(1, len(chosen) // max(training.batch_size, _MIN_BATCH))
    size = len(chosen) // batches
    size = max(1, size // devices) * devices
    return chosen[: batches * size].reshape(batches, size)


def _count_correct(network: Any, images: Images, chosen: npt.NDArray[np.int64]) -> int:
    # Sorted, so that the file is read in one direction.
    chosen = np.sort(chosen)
    pixels: Pixels = images.pixels[chosen]
    predictions = network.predict_on_batch(pixels).argmax(axis=1)
    return int(np.sum(predictions == images.labels[chosen]))


@contextmanager
def _using_batch_statistics(network: Any, layers: list[Any]) -> Iterator[None]:
    """Make layers normalize with the statistics of each batch at inference, and store those of the last."""
    before = [(layer.__class__, layer.momentum) for layer in layers]
    for layer in layers:
        layer.__class__ = _batch_statistics_class(layer.__class__)
        layer.momentum = 0.0
        # With zero momentum, an average that has overflowed would still give NaN.
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
    """Rebuild `predict_on_batch` for the current layers."""
    if chosen_backend() == "tensorflow":
        network.jit_compile = False  # XLA does not support deterministic ops.
    network.make_predict_function(force=True)


@cache
def _batch_statistics_class(kind: type) -> type:
    class BatchStatistics(kind):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            return super().call(inputs, training=True, mask=mask)

    return BatchStatistics


def _to_numpy(variable: Any) -> Values:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(variable), np.float64)
