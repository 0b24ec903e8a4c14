"""Comparing an ONNX file's predictions with those of the Keras model, and the gate before publication.

The rule: no image gets another class, and every probability differs from Keras's by less than the allowed
difference. Two correct implementations of a network differ by float32 rounding, which is negligible in a
small network and 1e-5 to 1e-4 in a deep one. The rounding error of the Keras model itself is therefore
measured, as its largest difference from the same model in float64, and 8 times that is allowed; at least
1e-5 and at most 1e-3. A wrong epsilon, padding, axis or rescaling changes the probabilities of real images
by more. Two classes are tied if Keras's probabilities for them lie within twice the allowed difference;
images whose class changes between tied classes are counted but not refused. `export.max_abs_difference` and
`export.tie_margin` override the two derived values.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.export.held_out import HeldOut
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.images import DecodedImage
from pixelmill.pipeline.inference import Probabilities, are_probabilities, load_session
from pixelmill.pipeline.predictions import table_files
from pixelmill.pipeline.predictions.parts import read_part
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder

MIN_ALLOWED, MAX_ALLOWED = 1e-5, 1e-3
_NOISE_FACTOR = 8
_MAX_FILES = 20


@dataclass(frozen=True)
class Tolerance:
    """How much an ONNX file's predictions may differ from Keras's.

    Attributes:
        noise: The rounding error of the Keras model, as a difference of probabilities.
        allowed_difference: The bound that every difference must be less than.
        tie_margin: The largest difference of two of Keras's probabilities that counts as a tie.
    """

    noise: float
    allowed_difference: float
    tie_margin: float


def choose_tolerance(noise: float, export: ExportSpec) -> Tolerance:
    """The tolerance for a model with a rounding error of `noise`; see the module's docstring."""
    allowed = export.max_abs_difference
    if allowed is None:
        allowed = min(max(_NOISE_FACTOR * noise, MIN_ALLOWED), MAX_ALLOWED)
    margin = 2 * allowed if export.tie_margin is None else export.tie_margin
    return Tolerance(noise, allowed, margin)


def tolerance_of(parity: "Parity") -> Tolerance:
    """The tolerance with which a comparison was made."""
    return Tolerance(parity.noise, parity.allowed_difference, parity.tie_margin)


@dataclass(frozen=True)
class FileDifference:
    """Two predictions for one file: classes, their probabilities and the largest difference."""

    file: str
    keras_label: str
    keras_probability: float
    onnx_label: str
    onnx_probability: float
    difference: float


@dataclass(frozen=True)
class Parity:
    """How an ONNX file's predictions compare with Keras's.

    Attributes:
        images: The number of files readable by Keras.
        unreadable: The number of files readable by neither.
        invalid: The number of files readable by Keras for which the ONNX file has no valid probabilities:
            none at all, NaN, infinity, or a row that does not add up to 1.
        first_invalid: The first of them; empty if there is none.
        label_flips: The number of files whose class differs, ties excluded.
        tied_flips: The number of files whose class differs between two classes that are tied.
        tie_margin: The largest difference of two of Keras's probabilities that counts as a tie.
        max_abs_difference: The largest difference of two probabilities; infinite if only one of the two
            models has a prediction.
        noise: The rounding error of the Keras model; see `Tolerance`.
        allowed_difference: The bound that `max_abs_difference` must be less than.
        batch_sizes: The batch sizes that were compared, in addition to those of the scoring run.
        files: Files whose class differs, then those with the largest differences; at most 20.
    """

    images: int
    unreadable: int
    invalid: int
    first_invalid: str
    label_flips: int
    tied_flips: int
    tie_margin: float
    max_abs_difference: float
    noise: float
    allowed_difference: float
    batch_sizes: tuple[int, ...]
    files: tuple[FileDifference, ...]


class Comparison:
    """Accumulates the ONNX file's predictions that differ most from Keras's."""

    def __init__(self, keras: FilePredictions, tolerance: Tolerance, multi_label: bool = False) -> None:
        """Begin with Keras's predictions, which are valid probabilities for every readable file."""
        self._multi_label = multi_label
        self._keras = keras.probabilities
        self._is_read = keras.is_read
        self._tolerance = tolerance
        self._worst = keras.probabilities.copy()
        self._difference: npt.NDArray[np.float64] = np.zeros(len(keras.is_read))
        self._is_invalid = np.zeros(len(keras.is_read), bool)

    def add(self, rows: slice, predictions: Probabilities) -> None:
        """Compare with predictions for some of the files.

        Args:
            rows: The files' positions.
            predictions: float32 [files, classes]; NaN in the row of an unreadable file.
        """
        keras, is_read = self._keras[rows], self._is_read[rows]
        is_valid = are_probabilities(predictions, self._multi_label)
        self._is_invalid[rows] |= is_read & ~is_valid
        with np.errstate(invalid="ignore"):
            difference = np.abs(predictions.astype(np.float64) - keras).max(axis=1)
        difference[~is_read & np.isnan(predictions).all(axis=1)] = 0.0
        difference[is_read & ~is_valid] = np.inf
        difference[np.isnan(difference)] = np.inf  # Readable only in the scoring run.
        # A different class ranks above any difference of probabilities.
        rank = difference + 2.0 * (predictions.argmax(axis=1) != keras.argmax(axis=1)) * (is_read & is_valid)
        worse = rank > self._rank(rows)
        self._difference[rows] = np.maximum(self._difference[rows], difference)
        self._worst[rows][worse] = predictions[worse]

    def _rank(self, rows: slice) -> npt.NDArray[np.float64]:
        flipped = self._worst[rows].argmax(axis=1) != self._keras[rows].argmax(axis=1)
        rank: npt.NDArray[np.float64] = self._difference[rows] + 2.0 * flipped
        return rank

    def conclude(
        self, names: Sequence[str], class_names: Sequence[str], batch_sizes: Sequence[int]
    ) -> Parity:
        """Summarize the comparison, with `names` for the files."""
        rows = np.arange(len(self._keras))
        top_1, other = self._keras.argmax(axis=1), self._worst.argmax(axis=1)
        flipped = (top_1 != other) & self._is_read & ~self._is_invalid
        margin = self._keras[rows, top_1] - self._keras[rows, other]
        tied = flipped & (margin <= self._tolerance.tie_margin)
        order = np.lexsort((-self._difference, ~flipped))[:_MAX_FILES]
        invalid = np.flatnonzero(self._is_invalid)
        return Parity(
            images=int(self._is_read.sum()),
            unreadable=int((~self._is_read & (self._difference == 0)).sum()),
            invalid=len(invalid),
            first_invalid=names[invalid[0]] if len(invalid) else "",
            label_flips=int((flipped & ~tied).sum()),
            tied_flips=int(tied.sum()),
            tie_margin=self._tolerance.tie_margin,
            max_abs_difference=float(self._difference.max(initial=0.0)),
            noise=self._tolerance.noise,
            allowed_difference=self._tolerance.allowed_difference,
            batch_sizes=tuple(batch_sizes),
            files=tuple(
                FileDifference(
                    names[row],
                    class_names[top_1[row]],
                    float(self._keras[row, top_1[row]]),
                    class_names[other[row]],
                    float(self._worst[row, other[row]]),
                    float(self._difference[row]),
                )
                for row in order
                if self._difference[row] > 0
            ),
        )


def require_parity(parity: Parity) -> None:
    """Refuse an ONNX file whose predictions differ from Keras's.

    Raises:
        GateRefused: There is nothing to compare, the ONNX file predicts another class or no probabilities
            for an image, or a probability differs by the allowed difference or more.
    """
    if not parity.images:
        raise GateRefused(
            f"{parity.unreadable} held-out images, none of which can be read",
            "readable images on which to compare the ONNX file with Keras",
            "It is not published. Provide other images.",
        )
    if parity.invalid:
        raise GateRefused(
            f"the ONNX file predicts no valid probabilities for {parity.invalid:,} of {parity.images:,} "
            f"held-out images, the first of which is {parity.first_invalid}",
            "finite probabilities for each image, as Keras predicts",
            "It is not published. Look for a layer that divides by zero or overflows in ONNX.",
        )
    if parity.label_flips or not parity.max_abs_difference < parity.allowed_difference:
        raise _refuse_difference(parity)


def _refuse_difference(parity: Parity) -> GateRefused:
    worst = parity.files[0]
    remedy = (
        "if the classes are nearly tied, increase export.tie_margin"
        if parity.label_flips
        else "if the difference is acceptable, increase export.max_abs_difference"
    )
    command = (
        "`pixelmill export --tie-margin`" if parity.label_flips else "`pixelmill export --max-abs-difference`"
    )
    return GateRefused(
        f"the ONNX file predicts another label than Keras for {parity.label_flips} of {parity.images} "
        f"held-out images, with a largest difference of {parity.max_abs_difference:.2g}; the worst is "
        f"{worst.file}: Keras predicts {worst.keras_label} ({worst.keras_probability:.4f}), ONNX "
        f"{worst.onnx_label} ({worst.onnx_probability:.4f})",
        f"no other label except in ties ({parity.tie_margin:.2g}), and a difference of less than "
        f"{parity.allowed_difference:.2g} (the rounding error of the Keras model is {parity.noise:.2g})",
        f"It is not published. Look for a layer that behaves differently in ONNX; {remedy} ({command}).",
    )


if TYPE_CHECKING:
    import pyarrow as pa


def measure_parity(
    bundle: ModelBundle,
    held_out: HeldOut,
    keras: FilePredictions,
    tolerance: Tolerance,
    batch_sizes: Sequence[int],
    work: Path,
) -> Parity:
    """Predict the held-out files with a scoring run and at every batch size, and compare with Keras.

    Args:
        bundle: The bundle to check; it may lack a manifest.
        held_out: The files.
        keras: Keras's predictions for them.
        tolerance: How much the predictions may differ.
        batch_sizes: The batch sizes to predict at, in addition to those of the scoring run.
        work: A folder for the prediction table; must not exist yet.

    Raises:
        GateRefused: The held-out files changed while they were scored.
    """
    class_names = bundle.labels()
    comparison = Comparison(keras, tolerance, bundle.multi_label)
    start = 0
    for predictions in _score(bundle, held_out, work):
        comparison.add(slice(start, start + len(predictions)), predictions)
        start += len(predictions)
    for start, predictions in _predict_in_batches(bundle, held_out, batch_sizes):
        comparison.add(slice(start, start + len(predictions)), predictions)
    return comparison.conclude(held_out.origins, class_names, batch_sizes)


def _score(bundle: ModelBundle, held_out: HeldOut, work: Path) -> Iterator[Probabilities]:
    """The predictions of a scoring run, one part of the table at a time, in the order of the files."""
    request = ScoringRequest(bundle, held_out.folder, work, top_k=len(bundle.labels()), max_failure_rate=1.0)
    table = score_folder(request)
    start = 0
    for file in table_files(table.folder):
        rows = read_part(file)
        paths = rows["image_path"].to_pylist()
        # A misplaced row would be compared with the prediction for another file.
        if paths != list(held_out.paths[start : start + len(paths)]):
            raise GateRefused(
                f"a prediction table whose rows from {paths[0]} on differ from the listed files",
                "a row for every file, in the order of the files",
                "It is not published. Do not change the held-out images while they are scored.",
            )
        yield _probabilities(rows, bundle.labels())
        start += len(paths)


def _probabilities(rows: "pa.Table", class_names: Sequence[str]) -> Probabilities:
    """The probabilities of all classes, from a table with all of them in each row; NaN in failed rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    predictions = np.full((len(rows), len(class_names)), np.nan, np.float32)
    scored = np.array([status == "scored" for status in rows["status"].to_pylist()])
    names = rows["top_labels"].combine_chunks().flatten()
    classes = pc.index_in(names, value_set=pa.array(class_names)).to_numpy()
    values = rows["top_probabilities"].combine_chunks().flatten().to_numpy()
    places = np.repeat(np.flatnonzero(scored), len(class_names))
    predictions[places, classes] = values
    return predictions


def _predict_in_batches(
    bundle: ModelBundle, held_out: HeldOut, batch_sizes: Sequence[int]
) -> Iterator[tuple[int, Probabilities]]:
    """The predictions for consecutive files at every batch size, each with the position of the first file."""
    session, spec = load_session(bundle.onnx_path, sha256=bundle.onnx_sha256), bundle.image_spec()
    files, step = held_out.files(), max(batch_sizes)
    decoded = decode_files(files, spec)
    shape = (spec.height, spec.width, spec.channels)
    with progress("compare with Keras", len(files), "images") as advance:
        for start in range(0, len(files), step):
            chunk = files[start : start + step]
            tensors, is_read = np.zeros((len(chunk), *shape), np.uint8), np.zeros(len(chunk), bool)
            for place, image in enumerate(itertools.islice(decoded, len(chunk))):
                if isinstance(image, DecodedImage):
                    tensors[place], is_read[place] = image.pixels, True
            for size in batch_sizes:
                pieces = [
                    session.probabilities(tensors[first : first + size])
                    for first in range(0, len(chunk), size)
                ]
                yield start, np.where(is_read[:, np.newaxis], np.concatenate(pieces), np.float32(np.nan))
            advance(len(chunk), "")
