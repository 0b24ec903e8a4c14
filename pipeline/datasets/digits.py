"""The 8x8 digits that scikit-learn bundles."""

import numpy as np

from pixelmill.pipeline.datasets.images import Images
from pixelmill.pipeline.datasets.mirrors import DownloadedFiles

CLASS_NAMES = tuple("0123456789")


def download_digits() -> DownloadedFiles:
    """Nothing to download: the installed scikit-learn has the data."""
    return DownloadedFiles({}, "scikit-learn")


def read_digits() -> Images:
    """All 1,797 images, uint8 [images, 8, 8, 1], with their 17 grey levels scaled to 0..255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Images(pixels[..., np.newaxis], bunch.target.astype(np.int64))
