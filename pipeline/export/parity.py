"""How near an ONNX file's answers are to those of the Keras model, and the gate before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.config import ExportSpec
from pipeline.errors import GateRefused
from pipeline.inference import Probabilities

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
