"""Fashion-MNIST from any mirror; the gzipped IDX files are verified by their SHA-256.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms" (2017).
"""

import gzip
import zlib
from pathlib import Path

from pixelmill.pipeline.config import FashionMnistSource
from pixelmill.pipeline.datasets.idx import join_images, read_idx
from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles, WantedFile, fetch_files, plain_mirror
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import Pixels

# The first class is usually called "T-shirt/top", which cannot be the name of a folder.
CLASS_NAMES = (
    *("T-shirt or top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FILES = (
    WantedFile(
        "train-images-idx3-ubyte.gz",
        "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc",
        26_421_880,
    ),
    WantedFile(
        "train-labels-idx1-ubyte.gz",
        "b0197879cbda89f3dc7b894f9fd52b858e68ea4182b6947c9d8c2b67e5f18dcc",
        29_515,
    ),
    WantedFile(
        "t10k-images-idx3-ubyte.gz",
        "78dcbbfb5a27efaf1b6c1d616caca68560be8766c5bffcb2791df9273a534229",
        4_422_102,
    ),
    WantedFile(
        "t10k-labels-idx1-ubyte.gz",
        "42bd18137a62d5998cdeae52bf3a0676ac6b706f5cf8439b47bb5b151ae3dccf",
        5_148,
    ),
)
SIDE = 28
_MAX_CONTENT_BYTES = 1 << 26


def download_fashion_mnist(source: FashionMnistSource, cache: Path) -> DownloadedFiles:
    """Download the four files to the cache.

    Raises:
        DownloadError: No mirror provided them.
    """
    return DownloadedFiles(*fetch_files(FILES, [plain_mirror(base) for base in source.mirrors], cache))


def read_fashion_mnist(raw: DownloadedFiles) -> tuple[Images, Images]:
    """The 60,000 training and the 10,000 test images, uint8 [images, 28, 28, 1].

    Raises:
        WorkError: A file is truncated, is no gzipped IDX file, or does not go with the others.
    """
    arrays = [(file.name, _read(raw.files[file.name], file.name)) for file in FILES]
    return (
        join_images(arrays[0], arrays[1], SIDE, len(CLASS_NAMES)),
        join_images(arrays[2], arrays[3], SIDE, len(CLASS_NAMES)),
    )


def _read(path: Path, name: str) -> Pixels:
    try:
        with gzip.open(path) as file:
            content = file.read(_MAX_CONTENT_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise WorkError(
            f"{path} cannot be read ({error})", "a gzipped IDX file", "Remove it and run again."
        ) from error
    return read_idx(content, name)
