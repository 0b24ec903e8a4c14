"""How near an ONNX file's predictions are to those of the Keras model, and the gate before publication.

The rule: no image gets another class, and no probability differs from Keras's by the allowed difference or
more. Two correct implementations of a network differ by what rounding to float32 does to it, which is next
to nothing in a small network and 1e-5 to 1e-4 in a deep one. So the rounding error of the Keras model itself
is measured, as its largest difference from the same model in float64, and 8 times that is allowed; never
less than 1e-5, never more than 1e-3. Another epsilon, padding, axis or rescaling moves the probabilities of
real images by more. Two classes are tied where Keras's probabilities for them lie within twice the allowed
difference; an image whose class changes between ties is counted and not refused. `export.max_abs_difference`
and `export.tie_margin` replace the two derived values.
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
from pixelmill.pipeline.export.outputs import are_probabilities
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.images import DecodedImage
from pixelmill.pipeline.inference import Probabilities, load_session
from pixelmill.pipeline.predictions import table_files
from pixelmill.pipeline.predictions.parts import read_part
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder

LEAST_ALLOWED, MOST_ALLOWED = 1e-5, 1e-3
_NOISE_FACTOR = 8
_SHOWN = 20


@dataclass(frozen=True)
class Tolerance:
    """How far an ONNX file's predictions may lie from Keras's.

    Attributes:
        noise: The rounding error of the Keras model, as a difference of probabilities.
        allowed_difference: What every difference of two probabilities has to stay below.
        tie_margin: How far apart two of Keras's probabilities may lie to be a tie.
    """

    noise: float
    allowed_difference: float
    tie_margin: float


def choose_tolerance(noise: float, export: ExportSpec) -> Tolerance:
    """The tolerance for a model with a rounding error of `noise`; see the module's description."""
    allowed = export.max_abs_difference
    if allowed is None:
        allowed = min(max(_NOISE_FACTOR * noise, LEAST_ALLOWED), MOST_ALLOWED)
    margin = 2 * allowed if export.tie_margin is None else export.tie_margin
    return Tolerance(noise, allowed, margin)


@dataclass(frozen=True)
class FileDifference:
    """How far two predictions for one file lie apart: classes, their probabilities, largest difference."""

    file: str
    keras_label: str
    keras_probability: float
    onnx_label: str
    onnx_probability: float
    difference: float


@dataclass(frozen=True)
class Parity:
    """How far an ONNX file's predictions lie from Keras's.

    Attributes:
        images: How many files Keras could read.
        unreadable: How many neither could read.
        invalid: For how many of the files that Keras could read the ONNX file gives no probabilities: none
            at all, NaN, infinity, or a row that does not add up to 1.
        first_invalid: The first of them; empty if there is none.
        label_flips: For how many the class differs by more than a tie.
        tied_flips: For how many it differs, and Keras's probabilities of both lie within the tie margin.
        tie_margin: How far apart two probabilities may lie to be a tie.
        max_abs_difference: The largest difference between two probabilities; infinite where one of the two
            predicted nothing.
        noise: The rounding error of the Keras model; see `Tolerance`.
        allowed_difference: What `max_abs_difference` has to stay below.
        batch_sizes: The sizes the images were put in, beside those of the scoring run.
        files: Those whose class differs, then those with the largest differences; at most 20.
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
    """Keras's predictions, and those of the ONNX file that lie furthest from them."""

    def __init__(self, keras: FilePredictions, tolerance: Tolerance) -> None:
        """Start with Keras's predictions, which are probabilities wherever a file could be read."""
        self._keras = keras.probabilities
        self._is_read = keras.is_read
        self._tolerance = tolerance
        self._worst = keras.probabilities.copy()
        self._difference: npt.NDArray[np.float64] = np.zeros(len(keras.is_read))
        self._is_invalid = np.zeros(len(keras.is_read), bool)

    def add(self, rows: slice, predictions: Probabilities) -> None:
        """Compare with predictions for some of the files.

        Args:
            rows: Which files.
            predictions: float32 [files, classes]; NaN in the row of a file that could not be read.
        """
        keras, is_read = self._keras[rows], self._is_read[rows]
        is_valid = are_probabilities(predictions)
        self._is_invalid[rows] |= is_read & ~is_valid
        with np.errstate(invalid="ignore"):
            difference = np.abs(predictions.astype(np.float64) - keras).max(axis=1)
        difference[~is_read & np.isnan(predictions).all(axis=1)] = 0.0
        difference[is_read & ~is_valid] = np.inf
        difference[np.isnan(difference)] = np.inf  # Read by the ONNX file's scoring run only.
        # Another class is worse than any difference without one.
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
        """Sum up, with `names` for the files."""
        rows = np.arange(len(self._keras))
        first, other = self._keras.argmax(axis=1), self._worst.argmax(axis=1)
        flipped = (first != other) & self._is_read & ~self._is_invalid
        margin = self._keras[rows, first] - self._keras[rows, other]
        tied = flipped & (margin <= self._tolerance.tie_margin)
        order = np.lexsort((-self._difference, ~flipped))[:_SHOWN]
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
                    class_names[first[row]],
                    float(self._keras[row, first[row]]),
                    class_names[other[row]],
                    float(self._worst[row, other[row]]),
                    float(self._difference[row]),
                )
                for row in order
                if self._difference[row] > 0
            ),
        )


def require_parity(parity: Parity) -> None:
    """Let only an equal model through.

    Raises:
        GateRefused: There is nothing to compare, the ONNX file gives no probabilities for an image or
            another class, or a probability differs by the allowed difference or more.
    """
    if not parity.images:
        raise GateRefused(
            f"{parity.unreadable} held-out images, none of which can be read",
            "images on which the ONNX file can be compared with Keras",
            "It is not published. Name other images.",
        )
    if parity.invalid:
        raise GateRefused(
            f"the ONNX file gives no valid probabilities for {parity.invalid:,} of {parity.images:,} "
            f"held-out images, the first of which is {parity.first_invalid}",
            "finite probabilities that add up to 1 for each image, as Keras predicts",
            "It is not published. Look for a layer that divides by zero or overflows in ONNX.",
        )
    if parity.label_flips or not parity.max_abs_difference < parity.allowed_difference:
        raise _refuse_difference(parity)


def _refuse_difference(parity: Parity) -> GateRefused:
    worst = parity.files[0]
    remedy = (
        "classes that differ between near ties are allowed by a larger export.tie_margin"
        if parity.label_flips
        else "a difference that is small enough for you is allowed by a larger export.max_abs_difference"
    )
    command = (
        "`pixelmill export --tie-margin`" if parity.label_flips else "`pixelmill export --max-abs-difference`"
    )
    return GateRefused(
        f"the ONNX file gives {parity.label_flips} of {parity.images} held-out images another label than "
        f"Keras, with a largest difference of {parity.max_abs_difference:.2g}; the worst is {worst.file}: "
        f"Keras says {worst.keras_label} ({worst.keras_probability:.4f}), ONNX {worst.onnx_label} "
        f"({worst.onnx_probability:.4f})",
        f"no other label beyond ties ({parity.tie_margin:.2g}), and a difference of less than "
        f"{parity.allowed_difference:.2g} (the rounding error of the Keras model is {parity.noise:.2g})",
        f"It is not published. Look for a layer that acts differently in ONNX; {remedy} ({command}).",
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
    """Score the held-out files as any folder is scored, and at every batch size, and compare with Keras.

    Args:
        bundle: What is to be proven; need not have a manifest yet.
        held_out: The files.
        keras: What Keras predicts for them.
        tolerance: How far the predictions may lie apart.
        batch_sizes: The batch sizes to put the images in, beside those of the scoring run.
        work: A folder for the prediction table; must not exist yet.
    """
    class_names = bundle.labels()
    comparison = Comparison(keras, tolerance)
    start = 0
    for answers in _scored(bundle, held_out, work):
        comparison.add(slice(start, start + len(answers)), answers)
        start += len(answers)
    for start, answers in _answered_in_batches(bundle, held_out, batch_sizes):
        comparison.add(slice(start, start + len(answers)), answers)
    return comparison.conclude(held_out.origins, class_names, batch_sizes)


def _scored(bundle: ModelBundle, held_out: HeldOut, work: Path) -> Iterator[Probabilities]:
    """The answers of a whole scoring run, a part of the table at a time, in the order of the files."""
    request = ScoringRequest(bundle, held_out.folder, work, top_k=len(bundle.labels()), max_failure_rate=1.0)
    table = score_folder(request)
    start = 0
    for file in table_files(table.folder):
        rows = read_part(file)
        paths = rows["image_path"].to_pylist()
        # A row that is not where its file is would be compared with another one's answer.
        if paths != list(held_out.paths[start : start + len(paths)]):
            raise GateRefused(
                f"a prediction table whose rows from {paths[0]} on are not the files that were listed",
                "a row for every file, in their order",
                "It is not published. Keep the held-out images as they are while they are scored.",
            )
        yield _probabilities(rows, bundle.labels())
        start += len(paths)


def _probabilities(rows: "pa.Table", class_names: Sequence[str]) -> Probabilities:
    """The probabilities of all classes from a table with as many choices as classes; NaN in failed rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    answers = np.full((len(rows), len(class_names)), np.nan, np.float32)
    scored = np.array([status == "scored" for status in rows["status"].to_pylist()])
    names = rows["top_labels"].combine_chunks().flatten()
    classes = pc.index_in(names, value_set=pa.array(class_names)).to_numpy()
    values = rows["top_probabilities"].combine_chunks().flatten().to_numpy()
    places = np.repeat(np.flatnonzero(scored), len(class_names))
    answers[places, classes] = values
    return answers


def _answered_in_batches(
    bundle: ModelBundle, held_out: HeldOut, batch_sizes: Sequence[int]
) -> Iterator[tuple[int, Probabilities]]:
    """The session's answers to consecutive files, with the place of the first, at every batch size."""
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
