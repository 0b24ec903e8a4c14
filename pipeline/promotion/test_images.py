"""The test images of a promotion, and what a version predicts for them."""

import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pixelmill.pipeline.bundles import TRAINING_IMAGES_FILE, ModelBundle
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.datasets.catalogue import SLICE
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.promotion.bars import JudgedPredictions
from pixelmill.pipeline.promotion.prediction import FilePredictions, predict_files

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
    """Predict test images with the ONNX file of each version and its own preprocessing, as scoring does.

    Args:
        bundles: Versions; their classes may be in any order, and a class that a version lacks gets 0.
        test: The images.

    Returns:
        The predictions of each version, with the classes in the order of `test`.

    Raises:
        WorkError: A file cannot be read any more, or a prediction is not a probability.
    """
    return [_judged(found, test) for found in predict_files(bundles, test.files)]


def _judged(found: FilePredictions, test: TestImages) -> JudgedPredictions:
    for index, reason in found.failures.items():
        raise WorkError(
            f"test image {test.files[index]} cannot be read any more ({reason})",
            "the file that the new version was evaluated on",
            "Restore it, and run the same command again.",
        )
    return JudgedPredictions(
        probabilities=found.in_order(test.class_names),
        labels=test.labels,
        class_names=test.class_names,
        slices=test.slices,
        model_bytes=found.bundle.onnx_path.stat().st_size,
        images_per_second=found.images_per_second,
    )
