"""The proof that the ONNX file answers as the Keras model does, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import ExportSpec
from pipeline.errors import GateRefused
from pipeline.images import Pixels
from pipeline.inference import Probabilities, load_session
from pipeline.progress import progress


@dataclass(frozen=True)
class Parity:
    """How far two sets of answers to the same images lie apart.

    Attributes:
        images: How many images both answered.
        label_flips: For how many the first choice differs at any batch size.
        max_abs_difference: The largest difference between two probabilities.
        batch_sizes: The sizes the images were put in.
        flipped: Indices of the first flipped images, at most 20.
    """

    images: int
    label_flips: int
    max_abs_difference: float
    batch_sizes: tuple[int, ...]
    flipped: tuple[int, ...]


def compare_with_keras(
    onnx_path: Path, pixels: Pixels, keras: Probabilities, batch_sizes: Sequence[int]
) -> Parity:
    """Ask the ONNX file about every image at every batch size and compare with Keras's answers.

    Args:
        onnx_path: The file to prove.
        pixels: uint8 [images, height, width, channels].
        keras: float32 [images, classes], what Keras answered.
        batch_sizes: At least one.
    """
    session = load_session(onnx_path)
    flipped: set[int] = set()
    largest = 0.0
    expected_labels = keras.argmax(axis=1)
    with progress("compare with Keras", len(pixels) * len(batch_sizes), "images") as advance:
        for size in batch_sizes:
            for start in range(0, len(pixels), size):
                part = slice(start, start + size)
                answers = session.probabilities(np.ascontiguousarray(pixels[part]))
                difference = np.abs(answers - keras[part])
                # NaN compares as False everywhere; as infinity it cannot slip through.
                largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
                flips = np.flatnonzero(answers.argmax(axis=1) != expected_labels[part])
                flipped.update((flips + start).tolist())
                advance(len(answers), "")
    return Parity(len(pixels), len(flipped), largest, tuple(batch_sizes), tuple(sorted(flipped)[:20]))


def require_parity(parity: Parity, export: ExportSpec) -> None:
    """Let only an equal model through.

    Raises:
        GateRefused: A label differs, or a probability by more than the recipe allows.
    """
    if parity.label_flips or not parity.max_abs_difference < export.max_abs_difference:
        raise GateRefused(
            f"the ONNX file gives {parity.label_flips} of {parity.images} test images another label "
            f"than Keras, with a largest difference of {parity.max_abs_difference:.2g}",
            f"no other label and less than {export.max_abs_difference:g}",
            "It is not published. Look for a layer that acts differently in ONNX.",
        )
