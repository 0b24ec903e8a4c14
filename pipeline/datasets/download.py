"""The first stage: download and verify a recipe's data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import (
    ArchiveSource,
    Cifar10Source,
    Cifar100Source,
    DatasetSource,
    DigitsSource,
    FashionMnistSource,
    FolderSource,
    MnistSource,
    OwnImages,
    ParquetSource,
    TableSource,
)
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.archive_datasets import check_archive, list_archive
from pixelmill.pipeline.datasets.bundled import count_bundled_classes, list_bundled
from pixelmill.pipeline.datasets.catalogue import DOWNLOADS_FOLDER, Listing
from pixelmill.pipeline.datasets.corrections import read_corrections
from pixelmill.pipeline.datasets.exclusions import Exclusions
from pixelmill.pipeline.datasets.folders import check_folders, count_folder_classes, list_folder
from pixelmill.pipeline.datasets.parquet_datasets import (
    check_parquet,
    count_parquet_classes,
    list_parquet,
)
from pixelmill.pipeline.datasets.tables import check_table, count_table_classes, list_table
from pixelmill.pipeline.datasets.write_catalogue import write_catalogue


@dataclass(frozen=True)
class _Source:
    """How to list a kind of dataset, to count its classes (None if that is not known yet), and to check
    before a run that it is there.
    """

    list_images: Callable[[Any, Path], Listing]
    count_classes: Callable[[Any], int | None]
    check: Callable[[Any], object]


_NONE = Exclusions()
_BUNDLED = _Source(list_bundled, count_bundled_classes, lambda source: None)
_SOURCES: dict[type[DatasetSource], _Source] = {
    DigitsSource: _BUNDLED,
    MnistSource: _BUNDLED,
    FashionMnistSource: _BUNDLED,
    Cifar10Source: _BUNDLED,
    Cifar100Source: _BUNDLED,
    FolderSource: _Source(list_folder, count_folder_classes, check_folders),
    TableSource: _Source(list_table, count_table_classes, check_table),
    ArchiveSource: _Source(list_archive, lambda source: None, check_archive),
    ParquetSource: _Source(list_parquet, count_parquet_classes, check_parquet),
}


def download_dataset(
    source: DatasetSource,
    store: Path,
    exclusions: Exclusions = _NONE,
    *,
    verify_data: bool = False,
    for_training: bool = True,
) -> RawDataset:
    """List the images of a dataset, after downloading what is not in the cache, `downloads/` of the store.

    Args:
        source: The dataset of a recipe.
        store: The local folder for the working files of a store.
        exclusions: Contents that are left out.
        verify_data: Whether to read files again whose size and time have not changed.
        for_training: Whether each class must have enough images for its splits.

    Raises:
        DownloadError: No mirror provided the data.
        RequestError: It is not a dataset, a class has too few distinct images for its splits, or corrections
            contradict each other.
    """
    cache = store / DOWNLOADS_FOLDER
    path = source.corrections if isinstance(source, OwnImages) else None
    corrections = None if path is None else read_corrections(path)
    listing = _SOURCES[type(source)].list_images(source, cache)
    return write_catalogue(
        source.source,
        listing,
        cache,
        corrections,
        exclusions,
        verify_data=verify_data,
        for_training=for_training,
    )


def check_source(source: DatasetSource) -> None:
    """Check that a dataset of one's own is there and well-formed, without reading any image.

    Raises:
        RequestError: The first problem found.
    """
    _SOURCES[type(source)].check(source)
    if isinstance(source, OwnImages) and source.corrections is not None:
        read_corrections(source.corrections)


def count_classes(source: DatasetSource) -> int | None:
    """The number of classes of a dataset; None if it is not known without a download."""
    return _SOURCES[type(source)].count_classes(source)
