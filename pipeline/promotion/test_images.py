"""The test images of a promotion, and what a version predicts for them."""

import hashlib
import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pixelmill.pipeline.bundles import TRAINING_IMAGES_FILE, ModelBundle
from pixelmill.pipeline.bundles.metadata import require_metadata
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.datasets.catalogue import SLICE
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import DecodedImage, Pixels
from pixelmill.pipeline.inference import Probabilities, are_probabilities, batch_size, load_session
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.promotion.bars import JudgedPredictions

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TestImages:
    """Image files that the new version was not trained on.

    Attributes:
        files: The files, in any order.
        sha256: The content of each, in hexadecimal.
        labels: int64 [files], the true classes.
        class_names: In the order of the labels.
        slices: The values of each further column of the dataset, as text [files].
    """

    __test__ = False  # Not a test, whatever pytest takes its name for.

    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    labels: Labels
    class_names: tuple[str, ...]
    slices: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)

    @classmethod
    def of_dataset(cls, dataset: PreparedDataset, folder: Path) -> "TestImages":
        """The test images of a prepared dataset: their own files, or PNG files of those that are none here.

        Args:
            dataset: The dataset.
            folder: An existing folder for the PNG files.
        """
        images, rows = dataset.split("test"), dataset.rows("test")
        files = []
        for index, origin in enumerate(rows["origin"].to_pylist()):
            file = Path(unescape(origin))
            if not file.is_file():
                file = folder / f"{index:08d}.png"
                file.write_bytes(encode_png(images.pixels[index]))
            files.append(file)
        slices = {
            name.removeprefix(SLICE): np.array([str(value) for value in rows[name].to_pylist()])
            for name in rows.column_names
            if name.startswith(SLICE)
        }
        sha256 = tuple(rows["sha256"].to_pylist())
        return cls(tuple(files), sha256, images.labels, dataset.class_names, slices)

    def not_among(self, contents: Collection[str]) -> Flags:
        """Which files have a content that is not among `contents`: bool [files]."""
        return np.array([content not in contents for content in self.sha256], bool)

    def of_classes(self, names: Sequence[str]) -> Flags:
        """Which files are of one of the classes: bool [files]."""
        known = {normalize_label(name) for name in names}
        flags: Flags = np.array([normalize_label(name) in known for name in self.class_names], bool)[
            self.labels
        ]
        return flags

    def fingerprint(self, chosen: Flags) -> str:
        """SHA-256 of the contents of some of the files, whatever their order."""
        contents = sorted(itertools.compress(self.sha256, chosen))
        return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def trained_on(bundle: ModelBundle) -> set[str] | None:
    """The contents that a version was trained or validated on; None if its bundle does not list them."""
    path = bundle.folder / TRAINING_IMAGES_FILE
    if not path.is_file():
        return None
    rows = pq.read_table(path, columns=["sha256"], filters=[("split", "!=", "test")])
    return set(rows["sha256"].to_pylist())


def predict_test_images(bundles: Sequence[ModelBundle], test: TestImages) -> list[JudgedPredictions]:
    """Predict files with the ONNX file of each version and its own preprocessing, as scoring does.

    Args:
        bundles: Versions; their classes may be in any order, and a class that a version lacks gets 0.
        test: The images.

    Returns:
        The predictions of each version, with the classes in the order of `test`.

    Raises:
        WorkError: A file cannot be read any more, or a prediction is not a probability.
    """
    predictors = [_Predictor(bundle) for bundle in bundles]
    # Versions with the same preprocessing share the decoding, which takes most of the time.
    for spec in dict.fromkeys(predictor.spec for predictor in predictors):
        alike = [predictor for predictor in predictors if predictor.spec == spec]
        decoded = zip(test.files, decode_files(test.files, spec), strict=True)
        with progress("predict test images", len(test.files), "images") as advance:
            while found := list(itertools.islice(decoded, alike[0].batch_images)):
                for file, image in found:
                    if not isinstance(image, DecodedImage):
                        raise _unreadable(file, str(image))
                for predictor in alike:
                    predictor.predict([image.pixels for _, image in found if isinstance(image, DecodedImage)])
                advance(len(found), "")
    return [predictor.result(test) for predictor in predictors]


class _Predictor:
    """A loaded version and what it has predicted so far."""

    def __init__(self, bundle: ModelBundle) -> None:
        self._bundle, self.spec = bundle, bundle.image_spec()
        self._session = load_session(bundle.onnx_path, sha256=bundle.onnx_sha256)
        require_metadata(self._session, bundle)
        shape = (self.spec.height, self.spec.width, self.spec.channels)
        # Rounding depends on the size of the batch, so it has the size that scoring uses.
        self.batch_images = batch_size("cpu", math.prod(shape))
        self._batch: Pixels = np.zeros((self.batch_images, *shape), np.uint8)
        # The first call of a session takes longer than those after it.
        self._session.probabilities(self._batch)
        self._rows: list[Probabilities] = []
        self._rates: list[float] = []

    def predict(self, images: Sequence[Pixels]) -> None:
        self._batch[: len(images)] = images
        start = time.perf_counter()
        self._rows.append(self._session.probabilities(self._batch)[: len(images)])
        self._rates.append(self.batch_images / (time.perf_counter() - start))

    def result(self, test: TestImages) -> JudgedPredictions:
        probabilities = np.concatenate(self._rows)
        _require_probabilities(self._bundle, probabilities, test.files)
        return JudgedPredictions(
            probabilities=_in_order(probabilities, self._bundle.labels(), test.class_names),
            labels=test.labels,
            class_names=test.class_names,
            slices=test.slices,
            model_bytes=self._bundle.onnx_path.stat().st_size,
            images_per_second=(float(np.median(self._rates)), min(self._rates), max(self._rates)),
        )


def _in_order(probabilities: Probabilities, labels: Sequence[str], wanted: Sequence[str]) -> Probabilities:
    """Probabilities [images, classes] with the classes in another order; 0 for a class that is not known."""
    known = {normalize_label(name): index for index, name in enumerate(labels)}
    ordered: Probabilities = np.zeros((len(probabilities), len(wanted)), np.float32)
    for column, name in enumerate(wanted):
        if (index := known.get(normalize_label(name))) is not None:
            ordered[:, column] = probabilities[:, index]
    return ordered


def _require_probabilities(bundle: ModelBundle, rows: Probabilities, files: Sequence[Path]) -> None:
    invalid = np.flatnonzero(~are_probabilities(rows))
    if len(invalid):
        raise WorkError(
            f"{bundle.name}@{bundle.version} predicts no probabilities for {len(invalid):,} of {len(rows):,} "
            f"test images, such as {files[invalid[0]]}",
            "probabilities of 0 or more that add up to 1",
            "Roll back to a version that can predict them, or retrain.",
        )


def _unreadable(file: Path, reason: str) -> WorkError:
    return WorkError(
        f"test image {file} cannot be read any more ({reason})",
        "the file that the new version was evaluated on",
        "Restore it, and run the same command again.",
    )
