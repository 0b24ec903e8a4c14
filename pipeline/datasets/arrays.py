"""Datasets that come as arrays: each image is identified by its pixels and named by its place."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing, Part, Reader
from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.images import Pixels

Parts = Mapping[str, tuple[Part | None, Images]]
"""By the word before the number of each image, such as `train`: the split that the source assigns, and the images."""


@dataclass(frozen=True)
class ArrayReader:
    """Reads images of arrays.

    Attributes:
        load: Loads the arrays, which are not kept in memory between `opened` and the next time.
    """

    load: Callable[[], Parts]

    def opened(self) -> Reader:
        """A reader that holds the arrays in memory."""
        return _OpenedArrays(self.load())

    def read(self, place: str) -> Pixels:
        """See `Reader`."""
        return self.opened().read(place)  # type: ignore[return-value]


@dataclass(frozen=True)
class _OpenedArrays:
    parts: Parts

    def read(self, place: str) -> Pixels:
        word, _, number = place.rpartition(" ")
        pixels: Pixels = self.parts[word][1].pixels[int(number)]
        return pixels


def list_arrays(load: Callable[[], Parts], class_names: tuple[str, ...], provenance: str) -> Listing:
    """List images that are arrays: `train 0`, `train 1`, ..., in this order.

    Args:
        load: Loads the arrays.
        class_names: In the order of the labels.
        provenance: A description of where the data came from.
    """
    return Listing(_listed(load, class_names), ArrayReader(load), class_names, provenance)


def _listed(load: Callable[[], Parts], class_names: tuple[str, ...]) -> Iterator[ListedImage]:
    for word, (part, images) in load().items():
        for index, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            name = f"{word} {index}"
            sha256 = hashlib.sha256(pixels).hexdigest()
            yield ListedImage(name, name, name, class_names[label], part, sha256=sha256)
