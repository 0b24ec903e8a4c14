"""The first stage: download and verify a recipe's data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import (
    Cifar10Source,
    Cifar100Source,
    DatasetSource,
    DigitsSource,
    FashionMnistSource,
    FolderSource,
    MnistSource,
    TableSource,
)
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.bundled import count_bundled_classes, list_bundled
from pixelmill.pipeline.datasets.catalogue import Listing
from pixelmill.pipeline.datasets.folders import count_folder_classes, list_folder
from pixelmill.pipeline.datasets.tables import count_table_classes, list_table
from pixelmill.pipeline.datasets.write_catalogue import write_catalogue


@dataclass(frozen=True)
class _Source:
    """How to list a kind of dataset, and to count its classes (None if that is not known yet)."""

    list_images: Callable[[Any, Path], Listing]
    count_classes: Callable[[Any], int | None]


_BUNDLED = _Source(list_bundled, count_bundled_classes)
_SOURCES: dict[type[DatasetSource], _Source] = {
    DigitsSource: _BUNDLED,
    MnistSource: _BUNDLED,
    FashionMnistSource: _BUNDLED,
    Cifar10Source: _BUNDLED,
    Cifar100Source: _BUNDLED,
    FolderSource: _Source(list_folder, count_folder_classes),
    TableSource: _Source(list_table, count_table_classes),
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
