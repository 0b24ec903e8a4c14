"""The first stage: download and verify a recipe's data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import (
    Cifar10Source,
    DatasetSource,
    DigitsSource,
    FashionMnistSource,
    FolderSource,
    MnistSource,
)
from pixelmill.pipeline.datasets import RawDataset, cifar10, digits, fashion_mnist, mnist
from pixelmill.pipeline.datasets.catalogue import Listing
from pixelmill.pipeline.datasets.class_folders import count_folder_classes
from pixelmill.pipeline.datasets.folders import list_folder
from pixelmill.pipeline.datasets.write_catalogue import write_catalogue


@dataclass(frozen=True)
class _Source:
    """How to list a kind of dataset, and to count its classes (None if that is not known yet)."""

    list_images: Callable[[Any, Path], Listing]
    count_classes: Callable[[Any], int | None]


_SOURCES: dict[type[DatasetSource], _Source] = {
    DigitsSource: _Source(lambda source, cache: digits.list_digits(), lambda source: len(digits.CLASS_NAMES)),
    MnistSource: _Source(mnist.list_mnist, lambda source: len(mnist.CLASS_NAMES)),
    FashionMnistSource: _Source(
        fashion_mnist.list_fashion_mnist, lambda source: len(fashion_mnist.CLASS_NAMES)
    ),
    Cifar10Source: _Source(cifar10.list_cifar10, lambda source: len(cifar10.CLASS_NAMES)),
    FolderSource: _Source(list_folder, count_folder_classes),
}


def download_dataset(source: DatasetSource, store: Path, *, verify_data: bool = False) -> RawDataset:
    """List the images of a dataset, after downloading what is not in the cache, `downloads/` of the store.

    Args:
        source: The dataset of a recipe.
        store: The local folder for the working files of a store.
        verify_data: Whether to read files again whose size and time have not changed.

    Raises:
        DownloadError: No mirror provided the data.
        RequestError: A folder is not a dataset, or a class has too few distinct images for its splits.
    """
    cache = store / "downloads"
    listing = _SOURCES[type(source)].list_images(source, cache)
    return write_catalogue(source.source, listing, cache, verify_data=verify_data)


def count_classes(source: DatasetSource) -> int | None:
    """The number of classes of a dataset; None if it is not known without a download."""
    return _SOURCES[type(source)].count_classes(source)
