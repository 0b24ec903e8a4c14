"""What versions predict for image files, with their ONNX files and their own preprocessing, as in scoring."""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.bundles.metadata import require_metadata
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.images import DecodedImage, Pixels
from pixelmill.pipeline.inference import Probabilities, are_probabilities, batch_size, load_session
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.progress import progress


@dataclass(frozen=True, eq=False)
class FilePredictions:
    """What a version predicts for some files.

    Attributes:
        bundle: The version.
        labels: Its classes, in the order of the probabilities.
        probabilities: float32 [files, classes]; 0 for a file that cannot be read.
        failures: Why a file cannot be read, by its index.
        images_per_second: Of inference on this machine: the median over the batches, the lowest and the
            highest; 0 without a file that can be read.
    """

    bundle: ModelBundle
    labels: tuple[str, ...]
    probabilities: Probabilities
    failures: Mapping[int, str]
    images_per_second: tuple[float, float, float]

    def in_order(self, wanted: Sequence[str]) -> Probabilities:
        """The probabilities with the classes in another order; 0 for a class that the version lacks."""
        known = {normalize_label(name): index for index, name in enumerate(self.labels)}
        ordered: Probabilities = np.zeros((len(self.probabilities), len(wanted)), np.float32)
        for column, name in enumerate(wanted):
            if (index := known.get(normalize_label(name))) is not None:
                ordered[:, column] = self.probabilities[:, index]
        return ordered

    def names(self) -> list[str]:
        """The predicted class of each file."""
        return [normalize_label(self.labels[index]) for index in self.probabilities.argmax(axis=1)]


def predict_files(
    bundles: Sequence[ModelBundle], files: Sequence[Path], title: str = "predict test images"
) -> list[FilePredictions]:
    """Predict files with each version.

    Args:
        bundles: The versions.
        files: Local files.
        title: What the progress says.

    Raises:
        RequestError: Images may have several labels for a version.
        WorkError: A version predicts something that is no probability.
    """
    for bundle in bundles:
        _require_one_label(bundle)
    predictors = [_Predictor(bundle, len(files)) for bundle in bundles]
    # Versions with the same preprocessing share the decoding, which takes most of the time.
    for spec in dict.fromkeys(predictor.spec for predictor in predictors):
        alike = [predictor for predictor in predictors if predictor.spec == spec]
        decoded = enumerate(decode_files(files, spec))
        with progress(title, len(files), "images") as advance:
            while found := list(itertools.islice(decoded, alike[0].batch_images)):
                images = {at: image.pixels for at, image in found if isinstance(image, DecodedImage)}
                failures = {at: str(image) for at, image in found if at not in images}
                for predictor in alike:
                    predictor.predict(images, failures)
                advance(len(found), "")
    return [predictor.result(files) for predictor in predictors]


def _require_one_label(bundle: ModelBundle) -> None:
    if bundle.multi_label:
        raise RequestError(
            f"{bundle.name}@{bundle.version}, for which an image may have several labels",
            "versions that assign one class to each image, by which they can be compared and judged",
            "Compare the columns `labels` of two prediction tables.",
        )


class _Predictor:
    """A loaded version and what it has predicted so far."""

    def __init__(self, bundle: ModelBundle, files: int) -> None:
        self._bundle, self.spec = bundle, bundle.image_spec()
        self._session = load_session(bundle.onnx_path, sha256=bundle.onnx_sha256)
        require_metadata(self._session, bundle)
        self._labels = bundle.labels()
        shape = (self.spec.height, self.spec.width, self.spec.channels)
        # Rounding depends on the size of the batch, so it has the size that scoring uses.
        self.batch_images = batch_size("cpu", math.prod(shape))
        self._batch: Pixels = np.zeros((self.batch_images, *shape), np.uint8)
        # The first call of a session takes longer than those after it.
        self._session.probabilities(self._batch)
        self._rows: Probabilities = np.zeros((files, len(self._labels)), np.float32)
        self._failures: dict[int, str] = {}
        self._rates: list[float] = []

    def predict(self, images: Mapping[int, Pixels], failures: Mapping[int, str]) -> None:
        self._failures |= failures
        if not images:
            return
        self._batch[: len(images)] = list(images.values())
        start = time.perf_counter()
        self._rows[list(images)] = self._session.probabilities(self._batch)[: len(images)]
        self._rates.append(self.batch_images / (time.perf_counter() - start))

    def result(self, files: Sequence[Path]) -> FilePredictions:
        invalid = [
            at for at in np.flatnonzero(~are_probabilities(self._rows)).tolist() if at not in self._failures
        ]
        if invalid:
            raise WorkError(
                f"{self._bundle.name}@{self._bundle.version} predicts no probabilities for {len(invalid):,} "
                f"of {len(files):,} images, such as {files[invalid[0]]}",
                "probabilities of 0 or more that add up to 1",
                "Roll back to a version that can predict them, or retrain.",
            )
        rates = self._rates or [0.0]
        return FilePredictions(
            bundle=self._bundle,
            labels=self._labels,
            probabilities=self._rows,
            failures=self._failures,
            images_per_second=(float(np.median(rates)), min(rates), max(rates)),
        )
