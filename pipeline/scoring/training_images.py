"""The images that a model was trained on, found by their content."""

from collections.abc import Sequence

import numpy as np

from pixelmill.pipeline.bundles import TRAINING_IMAGES_FILE, ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions.arrays import Mask

_BYTES = 32


def require_training_images(bundle: ModelBundle) -> None:
    """Check that a bundle lists the images of its training.

    Raises:
        RequestError: It does not.
    """
    if not (bundle.folder / TRAINING_IMAGES_FILE).is_file():
        raise RequestError(
            f"`mark_training_images` with {bundle.folder}, which has no {TRAINING_IMAGES_FILE}",
            "a model that lists the images of its training",
            "Omit the option, or retrain the model.",
        )


class TrainingImages:
    """The SHA-256 of every image that a model was trained, validated or tested on; 32 bytes each."""

    def __init__(self, bundle: ModelBundle) -> None:
        import pyarrow.parquet as pq

        rows = pq.read_table(bundle.folder / TRAINING_IMAGES_FILE, columns=["sha256"], use_threads=False)
        content = bytes.fromhex("".join(filter(None, rows["sha256"].to_pylist())))
        self._known = np.sort(np.frombuffer(content, f"S{_BYTES}"))

    def seen(self, sha256: Sequence[str | None]) -> Mask:
        """Whether the model knows the content of each file; bool [files].

        Args:
            sha256: SHA-256 of each file, in hexadecimal; None if it could not be read.
        """
        digests = np.frombuffer(
            bytes.fromhex("".join(each or "0" * 2 * _BYTES for each in sha256)), f"S{_BYTES}"
        )
        if not len(self._known):
            return np.zeros(len(digests), bool)
        places = np.minimum(np.searchsorted(self._known, digests), len(self._known) - 1)
        found: Mask = self._known[places] == digests
        known: Mask = found & np.array([each is not None for each in sha256], bool)
        return known
