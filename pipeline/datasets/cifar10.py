"""CIFAR-10 in its binary form, from any mirror; the archive is verified by its SHA-256.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from pathlib import Path

import numpy as np

from pixelmill.pipeline.config import Cifar10Source
from pixelmill.pipeline.datasets.archives import read_members
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


def download_cifar10(source: Cifar10Source, cache: Path) -> DownloadedFiles:
    """Download the archive to the cache.

    Raises:
        DownloadError: No mirror provided it.
    """
    return DownloadedFiles(*fetch_files([ARCHIVE], [plain_mirror(base) for base in source.mirrors], cache))


def read_cifar10(raw: DownloadedFiles) -> tuple[Images, Images]:
    """The 50,000 training and the 10,000 test images, uint8 [images, 32, 32, 3].

    Raises:
        WorkError: The archive has changed since it was downloaded.
    """
    batches = read_members(raw.files[ARCHIVE.name], (*TRAIN, TEST), _MAX_BATCH_BYTES)
    return read_records(b"".join(batches[name] for name in TRAIN)), read_records(batches[TEST])


def read_records(content: bytes, label_bytes: int = 1, class_count: int = len(CLASS_NAMES)) -> Images:
    """Read records of labels (a byte each) and an image (32x32 bytes each of red, green and blue).

    Args:
        content: The records.
        label_bytes: How many labels a record has; the last is the class.
        class_count: The number of classes.

    Raises:
        WorkError: The bytes are not such records.
    """
    values = np.frombuffer(content, np.uint8)
    size = label_bytes + 3 * SIDE * SIDE
    if not len(values) or len(values) % size or values[label_bytes - 1 :: size].max() >= class_count:
        raise WorkError(
            f"{len(values)} bytes of images",
            f"records of {size} bytes, each starting with a label below {class_count}",
            "Remove the archive from the cache and run again.",
        )
    records = values.reshape(-1, size)
    planes = records[:, label_bytes:].reshape(-1, 3, SIDE, SIDE)
    labels = records[:, label_bytes - 1].astype(np.int64)
    return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)
