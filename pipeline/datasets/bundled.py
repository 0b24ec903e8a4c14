"""Listings of the datasets that are arrays: digits, MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from pixelmill.pipeline.config import (
    Cifar10Source,
    Cifar100Source,
    DigitsSource,
    FashionMnistSource,
    MnistSource,
)
from pixelmill.pipeline.datasets import cifar10, cifar100, digits, fashion_mnist, mnist
from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing, Part
from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles
from pixelmill.pipeline.images import Pixels

Kind = Literal["digits", "mnist", "fashion-mnist", "cifar10", "cifar100"]
BundledSource = DigitsSource | MnistSource | FashionMnistSource | Cifar10Source | Cifar100Source
CLASS_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "digits": digits.CLASS_NAMES,
    "mnist": mnist.CLASS_NAMES,
    "fashion-mnist": fashion_mnist.CLASS_NAMES,
    "cifar10": cifar10.CLASS_NAMES,
    "cifar100": cifar100.CLASS_NAMES,
}
# What images are called, and the split that the dataset assigns.
_PARTS: Mapping[str, Part | None] = {"digit": None, "train": "train", "test": "test"}


@dataclass(frozen=True)
class ArrayReader:
    """Reads the images of a dataset that is arrays; each process keeps those of one dataset in memory.

    Attributes:
        kind: The dataset.
        files: Its files in the cache, by name.
    """

    kind: Kind
    files: tuple[tuple[str, Path], ...]

    def read(self, place: str) -> Pixels:
        """The pixels of an image, uint8 [height, width, channels].

        Args:
            place: Its name, such as `train 17`.
        """
        title, _, index = place.partition(" ")
        pixels: Pixels = _read(self)[title].pixels[int(index)]
        return pixels

    @staticmethod
    def release() -> None:
        """Release the memory of the arrays, which are loaded again when they are needed."""
        _read.cache_clear()


def list_bundled(source: BundledSource, cache: Path) -> Listing:
    """List the images of a dataset that is arrays, in its order, after downloading what is missing.

    Raises:
        DownloadError: No mirror provided the data.
    """
    raw = _download(source, cache)
    reader = ArrayReader(_kind_of(source), tuple(raw.files.items()))
    return Listing(_list(reader), reader, CLASS_NAMES[reader.kind], raw.provenance)


def count_bundled_classes(source: BundledSource) -> int:
    """The number of classes of a dataset that is arrays."""
    return len(CLASS_NAMES[_kind_of(source)])


def _kind_of(source: BundledSource) -> Kind:
    kind: Kind
    (kind,) = get_args(type(source).model_fields["source"].annotation)
    return kind


def _download(source: BundledSource, cache: Path) -> DownloadedFiles:
    match source:
        case DigitsSource():
            return digits.download_digits()
        case MnistSource():
            return mnist.download_mnist(source, cache)
        case FashionMnistSource():
            return fashion_mnist.download_fashion_mnist(source, cache)
        case Cifar10Source():
            return cifar10.download_cifar10(source, cache)
        case Cifar100Source():
            return cifar100.download_cifar100(source, cache)


def _list(reader: ArrayReader) -> Iterator[ListedImage]:
    class_names = CLASS_NAMES[reader.kind]
    for title, images in _read(reader).items():
        for index, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            name = f"{title} {index}"
            sha256 = hashlib.sha256(pixels).hexdigest()
            yield ListedImage(name, name, name, class_names[label], _PARTS[title], sha256=sha256)


_READERS: Mapping[Kind, Callable[[DownloadedFiles], tuple[Images, Images]]] = {
    "mnist": mnist.read_mnist,
    "fashion-mnist": fashion_mnist.read_fashion_mnist,
    "cifar10": cifar10.read_cifar10,
    "cifar100": cifar100.read_cifar100,
}


@lru_cache(maxsize=1)
def _read(reader: ArrayReader) -> dict[str, Images]:
    if reader.kind == "digits":
        return {"digit": digits.read_digits()}
    train, test = _READERS[reader.kind](DownloadedFiles(dict(reader.files), ""))
    return {"train": train, "test": test}
