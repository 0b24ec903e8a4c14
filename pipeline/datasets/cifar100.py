"""CIFAR-100 in its binary form, with its 100 fine classes; the archive is verified by its SHA-256.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from pathlib import Path

from pixelmill.pipeline.config import Cifar100Source
from pixelmill.pipeline.datasets.archives import read_members
from pixelmill.pipeline.datasets.cifar10 import SIDE, read_records
from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles, WantedFile, fetch_files, plain_mirror

CLASS_NAMES = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver"),
    *("bed", "bee", "beetle", "bicycle", "bottle"),
    *("bowl", "boy", "bridge", "bus", "butterfly"),
    *("camel", "can", "castle", "caterpillar", "cattle"),
    *("chair", "chimpanzee", "clock", "cloud", "cockroach"),
    *("couch", "crab", "crocodile", "cup", "dinosaur"),
    *("dolphin", "elephant", "flatfish", "forest", "fox"),
    *("girl", "hamster", "house", "kangaroo", "keyboard"),
    *("lamp", "lawn_mower", "leopard", "lion", "lizard"),
    *("lobster", "man", "maple_tree", "motorcycle", "mountain"),
    *("mouse", "mushroom", "oak_tree", "orange", "orchid"),
    *("otter", "palm_tree", "pear", "pickup_truck", "pine_tree"),
    *("plain", "plate", "poppy", "porcupine", "possum"),
    *("rabbit", "raccoon", "ray", "road", "rocket"),
    *("rose", "sea", "seal", "shark", "shrew"),
    *("skunk", "skyscraper", "snail", "snake", "spider"),
    *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table"),
    *("tank", "telephone", "television", "tiger", "tractor"),
    *("train", "trout", "tulip", "turtle", "wardrobe"),
    *("whale", "willow_tree", "wolf", "woman", "worm"),
)
ARCHIVE = WantedFile(
    "cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    168_513_733,
)
TRAIN = "cifar-100-binary/train.bin"
TEST = "cifar-100-binary/test.bin"
# A coarse and a fine label.
_LABEL_BYTES = 2
_MAX_BYTES = 50_000 * (_LABEL_BYTES + 3 * SIDE * SIDE)


def download_cifar100(source: Cifar100Source, cache: Path) -> DownloadedFiles:
    """Download the archive to the cache.

    Raises:
        DownloadError: No mirror provided it.
    """
    return DownloadedFiles(*fetch_files([ARCHIVE], [plain_mirror(base) for base in source.mirrors], cache))


def read_cifar100(raw: DownloadedFiles) -> tuple[Images, Images]:
    """The 50,000 training and the 10,000 test images, uint8 [images, 32, 32, 3].

    Raises:
        WorkError: The archive has changed since it was downloaded.
    """
    files = read_members(raw.files[ARCHIVE.name], (TRAIN, TEST), _MAX_BYTES)
    train, test = (read_records(files[name], _LABEL_BYTES, len(CLASS_NAMES)) for name in (TRAIN, TEST))
    return train, test
