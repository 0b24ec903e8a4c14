"""CIFAR-10 in its binary form, from any mirror; the archive is verified by its SHA-256.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from functools import partial
from pathlib import Path

import numpy as np

from pixelmill.pipeline.config import Cifar10Source
from pixelmill.pipeline.datasets.archives import read_members
from pixelmill.pipeline.datasets.arrays import Parts, list_arrays
from pixelmill.pipeline.datasets.catalogue import Listing
from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles, WantedFile, fetch_files, plain_mirror
from pixelmill.pipeline.errors import WorkError

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ARCHIVE = WantedFile(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"{FOLDER}/data_batch_{number}.bin" for number in range(1, 6))
TEST = f"{FOLDER}/test_batch.bin"
SIDE = 32
_RECORD = 1 + 3 * SIDE * SIDE
_MAX_BATCH_BYTES = 10_000 * _RECORD


def list_cifar10(source: Cifar10Source, cache: Path) -> Listing:
    """Download the archive if it is not in the cache, and list its images.

    Raises:
        DownloadError: No mirror provided it.
        WorkError: The archive has changed since it was downloaded.
    """
    raw = DownloadedFiles(*fetch_files([ARCHIVE], [plain_mirror(base) for base in source.mirrors], cache))
    return list_arrays(partial(_load, raw), CLASS_NAMES, raw.provenance)


def _load(raw: DownloadedFiles) -> Parts:
    train, test = read_cifar10(raw)
    return {"train": ("train", train), "test": ("test", test)}


def read_cifar10(raw: DownloadedFiles) -> tuple[Images, Images]:
    """The 50,000 training and the 10,000 test images, uint8 [images, 32, 32, 3].

    Raises:
        WorkError: The archive has changed since it was downloaded.
    """
    batches = read_members(raw.files[ARCHIVE.name], (*TRAIN, TEST), _MAX_BATCH_BYTES)
    return read_records(b"".join(batches[name] for name in TRAIN)), read_records(batches[TEST])


def read_records(content: bytes) -> Images:
    """Read records of a label (one byte) and an image (32x32 bytes each of red, green and blue).

    Raises:
        WorkError: The bytes are not such records.
    """
    values = np.frombuffer(content, np.uint8)
    if not len(values) or len(values) % _RECORD or values[::_RECORD].max() >= len(CLASS_NAMES):
        raise WorkError(
            f"{len(values)} bytes of images",
            f"records of {_RECORD} bytes, each starting with a label below {len(CLASS_NAMES)}",
            "Remove the archive from the cache and run again.",
        )
    records = values.reshape(-1, _RECORD)
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int64))
