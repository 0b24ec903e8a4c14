"""Images with labels, as arrays in memory or read from disk when they are used."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


class PixelArray(Protocol):
    """What a NumPy array and `StoredTensors` have in common: uint8 [images, height, width, channels].

    It is indexed along its first dimension, by an integer, a slice or an array of integers.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, height, width, channels)."""

    @property
    def dtype(self) -> Any:
        """uint8."""

    @property
    def nbytes(self) -> int:
        """The size in bytes."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, key: Any, /) -> Any:
        """One image or several, as a NumPy array."""

    def __iter__(self) -> Iterator[Any]:
        """Each image in turn."""

    def __array__(self) -> "np.ndarray[Any, Any]":
        """All images in memory."""


@dataclass(frozen=True)
class Images:
    """`pixels`: uint8 [images, height, width, channels]; `labels`: int64 [images], class indices."""

    pixels: PixelArray
    labels: Labels
