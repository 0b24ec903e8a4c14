"""The proof that an ONNX file answers as the Keras model does, file by file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.config import ExportSpec
from pipeline.errors import GateRefused
from pipeline.export import ModelBundle
from pipeline.images import ImageFailure, decode
from pipeline.inference import Probabilities, load_session
from pipeline.predictions import table_files
from pipeline.predictions.parts import read_part
from pipeline.progress import progress
from pipeline.proving.held_out import HeldOut
from pipeline.scoring import ScoringRequest
from pipeline.scoring.folder import score_folder

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 20


@dataclass(frozen=True)
class FileDifference:
    """How far two answers to one file lie apart: first choices, their probabilities, largest difference."""

    file: str
    keras_label: str
    keras_probability: float
    onnx_label: str
    onnx_probability: float
    difference: float


@dataclass(frozen=True)
class Parity:
    """How far an ONNX file's answers lie from Keras's.

    Attributes:
        images: How many files both answered.
        unreadable: How many neither could read.
        label_flips: For how many the first choice differs by more than a tie.
        tied_flips: For how many it differs, and Keras's probabilities of both lie within the tie margin.
        tie_margin: How far apart two probabilities may lie to be a tie.
        max_abs_difference: The largest difference between two probabilities; infinite where one of the two
            gave no answer.
        batch_sizes: The sizes the images were put in, beside those of the scoring run.
        files: Those that flipped, then those with the largest differences; at most 20.
    """

    images: int
    unreadable: int
    label_flips: int
    tied_flips: int
    tie_margin: float
    max_abs_difference: float
    batch_sizes: tuple[int, ...]
    files: tuple[FileDifference, ...]


class Comparison:
    """Keras's answers, and the worst that other answers to the same files did."""

    def __init__(self, keras: Probabilities, tie_margin: float) -> None:
        """Take Keras's answers, float32 [files, classes]; NaN in the row of a file it could not read."""
        self._keras = keras
        self._tie_margin = tie_margin
        self._worst = keras.copy()
        self._difference: npt.NDArray[np.float64] = np.zeros(len(keras))

    def add(self, rows: slice, answers: Probabilities) -> None:
        """Compare the answers to some of the files: float32 [rows, classes], NaN where there is none."""
        keras = self._keras[rows]
        unanswered = np.isnan(keras).any(axis=1), np.isnan(answers).any(axis=1)
        difference = np.abs(answers.astype(np.float64) - keras).max(axis=1)
        difference[unanswered[0] & unanswered[1]] = 0.0
        difference[unanswered[0] ^ unanswered[1]] = np.inf
        # A flip is worse than any difference without one.
        rank = difference + 2.0 * (answers.argmax(axis=1) != keras.argmax(axis=1)) * ~unanswered[0]
        worse = rank > self._rank(rows)
        self._difference[rows] = np.maximum(self._difference[rows], difference)
        self._worst[rows][worse] = answers[worse]

    def _rank(self, rows: slice) -> npt.NDArray[np.float64]:
        flipped = self._worst[rows].argmax(axis=1) != self._keras[rows].argmax(axis=1)
        rank: npt.NDArray[np.float64] = self._difference[rows] + 2.0 * flipped
        return rank

    def conclude(
        self, names: Sequence[str], class_names: Sequence[str], batch_sizes: Sequence[int]
    ) -> Parity:
        """Sum up, with `names` for the files."""
        rows = np.arange(len(self._keras))
        unreadable = np.isnan(self._keras).any(axis=1) & (self._difference == 0)
        first, other = self._keras.argmax(axis=1), self._worst.argmax(axis=1)
        flipped = (first != other) & ~unreadable
        margin = self._keras[rows, first] - self._keras[rows, other]
        tied = flipped & (margin <= self._tie_margin)
        order = np.lexsort((-self._difference, ~flipped))[:_SHOWN]
        return Parity(
            images=int((~unreadable).sum()),
            unreadable=int(unreadable.sum()),
            label_flips=int((flipped & ~tied).sum()),
            tied_flips=int(tied.sum()),
            tie_margin=self._tie_margin,
            max_abs_difference=float(self._difference.max(initial=0.0)),
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


def measure_parity(
    bundle: ModelBundle, held_out: HeldOut, keras: Probabilities, export: ExportSpec, work: Path
) -> Parity:
    """Score the held-out files as any folder is scored, and at every batch size, and compare with Keras.

    Args:
        bundle: What is to be proven; need not have a manifest yet.
        held_out: The files.
        keras: Keras's answers to them, float32 [files, classes], NaN where it could not read one.
        export: The batch sizes and the tie margin.
        work: A folder for the prediction table; must not exist yet.
    """
    class_names = bundle.labels()
    comparison = Comparison(keras, export.tie_margin)
    start = 0
    for answers in _scored(bundle, held_out, work):
        comparison.add(slice(start, start + len(answers)), answers)
        start += len(answers)
    for start, answers in _answered_in_batches(bundle, held_out, export.batch_sizes):
        comparison.add(slice(start, start + len(answers)), answers)
    return comparison.conclude(held_out.origins, class_names, export.batch_sizes)


def require_parity(parity: Parity, export: ExportSpec) -> None:
    """Let only an equal model through.

    Raises:
        GateRefused: A label differs, or a probability by more than the recipe allows.
    """
    if not parity.images:
        raise GateRefused(
            f"{parity.unreadable} held-out images, none of which can be read",
            "images on which the ONNX file answers as Keras does",
            "It is not published. Name other images.",
        )
    if parity.label_flips or not parity.max_abs_difference < export.max_abs_difference:
        worst = parity.files[0]
        raise GateRefused(
            f"the ONNX file gives {parity.label_flips} of {parity.images} held-out images another label "
            f"than Keras, with a largest difference of {parity.max_abs_difference:.2g}; the worst is "
            f"{worst.file}: Keras says {worst.keras_label} ({worst.keras_probability:.4f}), ONNX "
            f"{worst.onnx_label} ({worst.onnx_probability:.4f})",
            f"no other label beyond ties, and less than {export.max_abs_difference:g}",
            "It is not published. Look for a layer that acts differently in ONNX.",
        )


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
    session, spec = load_session(bundle.onnx_path), bundle.image_spec()
    files, step = held_out.files(), max(batch_sizes)
    shape = (spec.height, spec.width, spec.channels)
    with progress("compare with Keras", len(files), "images") as advance:
        for start in range(0, len(files), step):
            chunk = files[start : start + step]
            tensors, is_read = np.zeros((len(chunk), *shape), np.uint8), np.zeros(len(chunk), bool)
            for place, file in enumerate(chunk):
                try:
                    tensors[place] = decode(file.read_bytes(), spec).pixels
                    is_read[place] = True
                except (ImageFailure, OSError):
                    continue
            for size in batch_sizes:
                pieces = [
                    session.probabilities(tensors[first : first + size])
                    for first in range(0, len(chunk), size)
                ]
                yield start, np.where(is_read[:, np.newaxis], np.concatenate(pieces), np.float32(np.nan))
            advance(len(chunk), "")
