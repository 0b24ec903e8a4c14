"""The ways in which a dataset may come, each with the function that lists its images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pixelmill.pipeline.config import (
    ArchiveSource,
    Cifar10Source,
    Cifar100Source,
    DatasetSource,
    DigitsSource,
    FashionMnistSource,
    FolderSource,
    MnistSource,
    ParquetSource,
    TableSource,
)
from pixelmill.pipeline.datasets.archive_datasets import check_archive, list_archive
from pixelmill.pipeline.datasets.bundled import CLASS_NAMES, list_bundled
from pixelmill.pipeline.datasets.catalogue import Listing
from pixelmill.pipeline.datasets.folders import check_folders, count_folder_classes, list_folder
from pixelmill.pipeline.datasets.parquet_datasets import (
    check_parquet,
    count_parquet_classes,
    list_parquet,
)
from pixelmill.pipeline.datasets.tables import check_table, count_table_classes, list_table


class _Kind(NamedTuple):
    """A kind of dataset.

    Attributes:
        list: Lists its images, after a download where one is needed, to the cache.
        check: Checks before a run that it is there, without reading any image.
        count_classes: The number of its classes; None if that is not known without a download.
    """

    list: Callable[[Any, Path], Listing]
    check: Callable[[Any], object]
    count_classes: Callable[[Any], int | None]


def _count_bundled(source: Any) -> int:
    return len(CLASS_NAMES[source.source])


_BUNDLED = _Kind(list_bundled, lambda source: None, _count_bundled)
_KINDS: Mapping[type[DatasetSource], _Kind] = {
    DigitsSource: _BUNDLED,
    MnistSource: _BUNDLED,
    FashionMnistSource: _BUNDLED,
    Cifar10Source: _BUNDLED,
    Cifar100Source: _BUNDLED,
    FolderSource: _Kind(list_folder, check_folders, count_folder_classes),
    TableSource: _Kind(list_table, check_table, count_table_classes),
    ArchiveSource: _Kind(list_archive, check_archive, lambda source: None),
    ParquetSource: _Kind(list_parquet, check_parquet, count_parquet_classes),
}
LISTINGS: Mapping[type[DatasetSource], Callable[[Any, Path], Listing]] = {
    source: kind.list for source, kind in _KINDS.items()
}


def list_dataset(source: DatasetSource, cache: Path) -> Listing:
    """List the images of a dataset.

    Args:
        source: The dataset of a recipe.
        cache: A local folder for downloads and unpacked archives.

    Raises:
        DownloadError: No server provided the data.
        RequestError: It is not a dataset.
    """
    return LISTINGS[type(source)](source, cache)


def check_source(source: DatasetSource) -> None:
    """Check that a dataset of one's own is there and well-formed, without reading any image.

    Raises:
        RequestError: The first problem found.
    """
    _KINDS[type(source)].check(source)


def count_source_classes(source: DatasetSource) -> int | None:
    """The number of classes of a dataset; None if it is not known without a download."""
    return _KINDS[type(source)].count_classes(source)
