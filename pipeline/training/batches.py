"""The batches a network is fed: read from the prepared files, shuffled and changed.

Every batch is made from the seed, the epoch and the step alone, and from NumPy, whatever Keras runs on.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.config import TrainingSpec
from pipeline.datasets import Images
from pipeline.images import Pixels
from pipeline.training.augmenting import SoftLabels, augment

Batch = tuple[Pixels, SoftLabels]
_VALIDATION_BATCH = 500
_BLOCK_BYTES = 2**20
_WINDOW_BLOCKS = 256


def steps_per_epoch(images: int, training: TrainingSpec) -> int:
    """How many batches show all images."""
    return math.ceil(images / training.batch_size)


class TrainingBatches:
    """The batches of all epochs, one epoch after the other.

    An epoch shows every image, and fills its last batch from its first: all are of one size, as XLA wants
    it, and can be shared evenly by several devices.
    """

    def __init__(self, images: Images, classes: int, training: TrainingSpec) -> None:
        self._images, self._classes, self._training = images, classes, training
        self.steps = steps_per_epoch(len(images.labels), training)
        # Two: the end of an epoch and the beginning of the next are made at the same time.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return self._training.epochs * self.steps

    def __getitem__(self, index: int) -> Batch:
        epoch, step = divmod(index, self.steps)
        size = self._training.batch_size
        chosen = self._order(epoch)[step * size : (step + 1) * size]
        labels = _one_hot(self._images.labels[chosen], self._classes)
        # Here and not in the loss, which would smooth what the validation is measured against, too.
        smoothing = np.float32(self._training.label_smoothing)
        labels = labels * (1 - smoothing) + smoothing / np.float32(self._classes)
        return augment(
            self._images.pixels[chosen], labels, self._training.augmentation, self._draws(epoch, step)
        )

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        pixels = self._images.pixels
        block = max(1, _BLOCK_BYTES // (pixels.nbytes // len(pixels)))
        order = shuffled_order(len(pixels), block, _WINDOW_BLOCKS, self._draws(epoch))
        return np.resize(order, self.steps * self._training.batch_size)

    def _draws(self, *place: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._training.seed, spawn_key=place))


class ValidationBatches:
    """A split as it is, in its order; all batches but the last can be shared evenly by the devices."""

    def __init__(self, images: Images, classes: int, devices: int) -> None:
        self._images, self._classes = images, classes
        self._size = max(1, min(_VALIDATION_BATCH, len(images.labels)) // devices) * devices

    def __len__(self) -> int:
        return math.ceil(len(self._images.labels) / self._size)

    def __getitem__(self, index: int) -> Batch:
        part = slice(index * self._size, (index + 1) * self._size)
        return np.asarray(self._images.pixels[part]), _one_hot(self._images.labels[part], self._classes)


def shuffled_order(count: int, block: int, window: int, draws: np.random.Generator) -> npt.NDArray[np.int64]:
    """Every index below `count` once, in random order: int64 [count].

    Blocks of neighbours are shuffled, then what each `window` of blocks holds. So the reads of a file
    larger than memory stay, for a while, in a few places; a file smaller than the window is shuffled wholly.
    """
    blocks = np.split(np.arange(count), range(block, count, block))
    draws.shuffle(blocks)
    windows = [np.concatenate(blocks[first : first + window]) for first in range(0, len(blocks), window)]
    for one in windows:
        draws.shuffle(one)
    return np.concatenate(windows)


def _one_hot(labels: npt.NDArray[np.int64], classes: int) -> SoftLabels:
    return np.eye(classes, dtype=np.float32)[labels]
