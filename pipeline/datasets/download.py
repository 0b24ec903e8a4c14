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
from pixelmill.pipeline.datasets.folders import count_folder_classes, index_folder


@dataclass(frozen=True)
class _Source:
    """How to download a kind of dataset, and to count its classes (None if that is not known yet)."""

    download: Callable[[Any, Path], RawDataset]
    count_classes: Callable[[Any], int | None]


_SOURCES: dict[type[DatasetSource], _Source] = {
    DigitsSource: _Source(
        lambda source, cache: digits.download_digits(), lambda source: len(digits.CLASS_NAMES)
    ),
    MnistSource: _Source(mnist.download_mnist, lambda source: len(mnist.CLASS_NAMES)),
    FashionMnistSource: _Source(
        fashion_mnist.download_fashion_mnist, lambda source: len(fashion_mnist.CLASS_NAMES)
    ),
    Cifar10Source: _Source(cifar10.download_cifar10, lambda source: len(cifar10.CLASS_NAMES)),
    FolderSource: _Source(index_folder, count_folder_classes),
}


def download_dataset(source: DatasetSource, store: Path) -> RawDataset:
    """Verify the files in the store's cache, `downloads/`, and download those that are missing.

    Raises:
        DownloadError: No mirror provided the data.
        RequestError: A folder is not a dataset.
    """
    return _SOURCES[type(source)].download(source, store / "downloads")


def count_classes(source: DatasetSource) -> int | None:
    """The number of classes of a dataset; None if it is not known without a download."""
    return _SOURCES[type(source)].count_classes(source)
