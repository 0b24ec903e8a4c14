"""Batches made by threads ahead of the network, in the form that Keras takes."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from pipeline.resources import processor_limit
from pipeline.training.backends import Backend, chosen_backend
from pipeline.training.batches import Batch

_MOST_THREADS = 8
_STACK_BYTES = 2**21


class Batches(Protocol):
    """Batches in their order."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Batch:
        """Make one; several threads may ask at once."""


class Feed:
    """Batches made by threads ahead of the network, handed out an epoch at a time.

    Keras' own worker threads end with every epoch, and so cost a tenth of a second each time.
    """

    def __init__(self, batches: Batches, steps: int, pool: ThreadPoolExecutor, ahead: int) -> None:
        self._epoch = 0
        self._batches, self._steps, self._pool, self._ahead = batches, steps, pool, ahead
        self._coming: dict[int, Future[Batch]] = {}

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        index = self._epoch * self._steps + step
        for later in range(index, min(index + self._ahead, len(self._batches))):
            if later not in self._coming:
                self._coming[later] = self._pool.submit(self._batches.__getitem__, later)
        return self._coming.pop(index).result()

    def start_epoch(self, epoch: int) -> None:
        """Hand out the batches of an epoch from now on, counted from 0."""
        self._epoch = epoch

    def as_keras(self) -> Any:
        """What `fit` takes, on the backend of Keras that is chosen."""
        return as_keras(self.__getitem__, self._steps, chosen_backend())


@contextmanager
def feeding(batches: Batches, steps: int) -> Iterator[Feed]:
    """Have batches made ahead while the block lasts; `steps` of them are an epoch."""
    import cv2

    # The threads below share the batches; OpenCV's own only spin beside them, which doubles the work.
    cv2.setNumThreads(1)
    threads = min(processor_limit().count, _MOST_THREADS)
    pool = ThreadPoolExecutor(threads, "batches")
    try:
        yield Feed(batches, steps, pool, threads + 2)
    finally:
        pool.shutdown(cancel_futures=True)


def as_keras(batch_of: Callable[[int], Batch], steps: int, backend: Backend) -> Any:
    """What `fit` takes; `batch_of` gives the batches of an epoch by their step."""
    return _as_dataset(batch_of, steps) if backend == "tensorflow" else _as_py_dataset(batch_of, steps)


def _as_dataset(batch_of: Callable[[int], Batch], steps: int) -> Any:
    """A `tf.data.Dataset` that leaves its threads as they are and asks for many small batches at once.

    The one that Keras makes of a `PyDataset` has its threads tuned. The tuner sleeps for 10 ms, then for
    twice as long, and so on, and an epoch often ends only when its sleep does: 12 seconds of work took 20.5.
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


def _stacks(batch_of: Callable[[int], Batch], steps: int, at_once: int) -> Iterator[Batch]:
    """The same batches with one more dimension; a stack's are of one size."""
    for first in range(0, steps, at_once):
        run = [batch_of(step) for step in range(first, min(first + at_once, steps))]
        for _, alike in groupby(run, key=lambda batch: len(batch[0])):
            pixels, labels = zip(*alike, strict=True)
            yield np.stack(pixels), np.stack(labels)


def _as_py_dataset(batch_of: Callable[[int], Batch], steps: int) -> Any:
    import keras

    class Fed(keras.utils.PyDataset):  # type: ignore[misc]
        num_batches = steps

        def __getitem__(self, step: int) -> Batch:
            return batch_of(step)

    return Fed()
