"""The input pipeline: batches prepared ahead by threads, in the form that Keras accepts."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.training.augmentation import SoftLabels, augment
from pixelmill.pipeline.training.backends import Backend, chosen_backend

Batch = tuple[Pixels, SoftLabels]
WeightedBatch = tuple[Pixels, SoftLabels, npt.NDArray[np.float32]]
"""With the weight of each image in the loss, float32 [images]."""
KerasBatch = Batch | WeightedBatch
_VALIDATION_BATCH = 500
_BLOCK_BYTES = 2**20
_WINDOW_BLOCKS = 256


@dataclass(frozen=True)
class TrainingImages:
    """The images to train and to validate on."""

    train: Images
    validation: Images


def steps_per_epoch(images: int, training: TrainingSpec) -> int:
    """The number of batches that cover all images."""
    return math.ceil(images / training.batch_size)


class TrainingBatches:
    """The batches of all epochs, one epoch after the other.

    An epoch covers every image, and its last batch is filled up with images from its first: all batches
    have the same size, which XLA requires and which several devices can share evenly.
    """

    def __init__(self, images: Images, classes: int, training: TrainingSpec) -> None:
        self._images, self._classes, self._training = images, classes, training
        self.steps = steps_per_epoch(len(images.labels), training)
        # The end of an epoch and the beginning of the next are prepared at the same time.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return self._training.epochs * self.steps

    def __getitem__(self, index: int) -> Batch:
        epoch, step = divmod(index, self.steps)
        size = self._training.batch_size
        chosen = self._order(epoch)[step * size : (step + 1) * size]
        labels = _one_hot(self._images.labels[chosen], self._classes)
        # Labels are smoothed here because smoothing in the loss would also affect validation.
        smoothing = np.float32(self._training.label_smoothing)
        labels = labels * (1 - smoothing) + smoothing / np.float32(self._classes)
        return augment(
            self._images.pixels[chosen], labels, self._training.augmentation, self._rng(epoch, step)
        )

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        pixels = self._images.pixels
        block = max(1, _BLOCK_BYTES // (pixels.nbytes // len(pixels)))
        order = shuffled_order(len(pixels), block, _WINDOW_BLOCKS, self._rng(epoch))
        return np.resize(order, self.steps * self._training.batch_size)

    def _rng(self, *place: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._training.seed, spawn_key=place))


class ValidationBatches:
    """A split in order, without augmentation; all batches but the last divide evenly among the devices."""

    def __init__(self, images: Images, classes: int, devices: int) -> None:
        self._images, self._classes = images, classes
        self._size = max(1, min(_VALIDATION_BATCH, len(images.labels)) // devices) * devices

    def __len__(self) -> int:
        return math.ceil(len(self._images.labels) / self._size)

    def __getitem__(self, index: int) -> Batch:
        part = slice(index * self._size, (index + 1) * self._size)
        return np.asarray(self._images.pixels[part]), _one_hot(self._images.labels[part], self._classes)


def shuffled_order(count: int, block: int, window: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Every index below `count` once, in random order: int64 [count].

    Blocks of consecutive indices are shuffled, then the indices within each `window` of blocks. Reads of a
    file larger than memory therefore stay local for a while; a file that fits the window is fully shuffled.
    """
    blocks = np.split(np.arange(count), range(block, count, block))
    rng.shuffle(blocks)
    windows = [np.concatenate(blocks[first : first + window]) for first in range(0, len(blocks), window)]
    for one in windows:
        rng.shuffle(one)
    return np.concatenate(windows)


def _one_hot(labels: npt.NDArray[np.int64], classes: int) -> SoftLabels:
    return np.eye(classes, dtype=np.float32)[labels]


_MAX_THREADS = 8
_STACK_BYTES = 2**21


class Batches(Protocol):
    """A sequence of batches."""

    def __len__(self) -> int:
        """The number of batches."""

    def __getitem__(self, index: int) -> KerasBatch:
        """Prepare a batch; called from several threads at once."""


class BatchPrefetcher:
    """Batches prepared ahead by threads, one epoch at a time.

    The worker threads of Keras are restarted every epoch, which takes a tenth of a second each time.
    """

    def __init__(self, batches: Batches, steps: int, pool: ThreadPoolExecutor, ahead: int) -> None:
        self._epoch = 0
        self._batches, self._steps, self._pool, self._ahead = batches, steps, pool, ahead
        self._coming: dict[int, Future[KerasBatch]] = {}

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> KerasBatch:
        index = self._epoch * self._steps + step
        for later in range(index, min(index + self._ahead, len(self._batches))):
            if later not in self._coming:
                self._coming[later] = self._pool.submit(self._batches.__getitem__, later)
        return self._coming.pop(index).result()

    def start_epoch(self, epoch: int) -> None:
        """Switch to the batches of an epoch, counted from 0."""
        self._epoch = epoch

    def as_keras(self) -> Any:
        """The input for `fit` on the selected Keras backend."""
        return as_keras(self.__getitem__, self._steps, chosen_backend())


@contextmanager
def prefetch_batches(batches: Batches, steps: int) -> Iterator[BatchPrefetcher]:
    """Prepare batches ahead in threads within the block; an epoch has `steps` of them."""
    import cv2

    # The batches are already spread over threads; those of OpenCV would only compete with them.
    cv2.setNumThreads(1)
    threads = min(processor_limit().count, _MAX_THREADS)
    pool = ThreadPoolExecutor(threads, "batches")
    try:
        yield BatchPrefetcher(batches, steps, pool, threads + 2)
    finally:
        pool.shutdown(cancel_futures=True)


def as_keras(batch_of: Callable[[int], KerasBatch], steps: int, backend: Backend) -> Any:
    """The input for `fit`; `batch_of` returns the batch of a step."""
    return _as_dataset(batch_of, steps) if backend == "tensorflow" else _as_py_dataset(batch_of, steps)


def _as_dataset(batch_of: Callable[[int], KerasBatch], steps: int) -> Any:
    """A `tf.data.Dataset` without autotuning that fetches many small batches at once.

    The dataset that Keras makes from a `PyDataset` has autotuning on. The tuner sleeps for 10 ms, then
    twice as long each time, and an epoch often has to wait for it to wake up: 12 seconds of work took 20.5.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    example = batch_of(0)
    at_once = max(1, _STACK_BYTES // example[0].nbytes)
    signature = tuple(tf.TensorSpec((None, None, *array.shape[1:]), array.dtype) for array in example)
    stacks = tf.data.Dataset.from_generator(
        lambda: _stacks(batch_of, steps, at_once), output_signature=signature
    )
    batches = stacks.prefetch(1).unbatch().apply(tf.data.experimental.assert_cardinality(steps))
    return batches.with_options(options)


def _stacks(
    batch_of: Callable[[int], KerasBatch], steps: int, at_once: int
) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Consecutive batches of the same size, stacked along a new first dimension."""
    for first in range(0, steps, at_once):
        run = [batch_of(step) for step in range(first, min(first + at_once, steps))]
        for _, alike in groupby(run, key=lambda batch: len(batch[0])):
            yield tuple(np.stack(arrays) for arrays in zip(*alike, strict=True))


def _as_py_dataset(batch_of: Callable[[int], KerasBatch], steps: int) -> Any:
    import keras

    class PrefetchedDataset(keras.utils.PyDataset):  # type: ignore[misc]
        num_batches = steps

        def __getitem__(self, step: int) -> KerasBatch:
            return batch_of(step)

    return PrefetchedDataset()
