"""The first stage: have a recipe's data on this machine, whole and verified."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import DigitsSource, FolderSource, MnistSource
from pipeline.datasets import RawDataset
from pipeline.datasets.digits import download_digits
from pipeline.datasets.folders import index_folder
from pipeline.datasets.mnist import download_mnist

_SOURCES: dict[type, Callable[..., RawDataset]] = {
    DigitsSource: lambda source, cache: download_digits(),
    MnistSource: download_mnist,
    FolderSource: index_folder,
}


def download_dataset(source: DigitsSource | MnistSource | FolderSource, store: Path) -> RawDataset:
    """Fetch what a source lacks in the store's cache, `downloads/`, and verify what it has.

    Raises:
        DownloadError: No mirror gave the data.
        RequestError: A folder is no dataset.
    """
    return _SOURCES[type(source)](source, store / "downloads")
