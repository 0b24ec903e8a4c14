"""The 8x8 digits that scikit-learn bundles."""

import hashlib

import numpy as np

from pixelmill.pipeline.datasets import Images, RawDataset

CLASS_NAMES = tuple("0123456789")


def download_digits() -> RawDataset:
    """Nothing to download: the installed scikit-learn has the data."""
    images = read_digits()
    fingerprint = hashlib.sha256(images.pixels.tobytes() + images.labels.tobytes()).hexdigest()
    return RawDataset("digits", {}, fingerprint, "scikit-learn")


def read_digits() -> Images:
    """All 1,797 images, uint8 [images, 8, 8, 1], with their 17 grey levels scaled to 0..255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Images(pixels[..., np.newaxis], bunch.target.astype(np.int64))
