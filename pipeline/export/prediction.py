"""Predicting image files with Keras, and measuring the rounding error. Run it in a separate process."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.export.precision import in_precision
from pixelmill.pipeline.images import DecodedImage, Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.progress import progress

_log = getLogger(__name__)
_BATCH = 250
_PROBABILITIES, _IS_READ = "probabilities.npy", "is_read.npy"
# The number of images on which the rounding error is measured, and their batch size: float64 takes twice
# the memory and several times as long.
_NOISE_IMAGES, _NOISE_BATCH = 32, 8


@dataclass(frozen=True)
class FilePredictions:
    """A network's predictions for files.

    Attributes:
        probabilities: float32 [files, classes]; NaN in the row of an unreadable file.
        is_read: bool [files], whether each file could be read.
    """

    probabilities: Probabilities
    is_read: npt.NDArray[np.bool_]

    def save(self, folder: Path) -> None:
        """Write both arrays to an existing folder."""
        write_array(folder / _PROBABILITIES, self.probabilities)
        write_array(folder / _IS_READ, self.is_read)


def load_predictions(folder: Path) -> FilePredictions:
    """Load predictions written by `FilePredictions.save`."""
    return FilePredictions(
        np.load(folder / _PROBABILITIES, allow_pickle=False), np.load(folder / _IS_READ, allow_pickle=False)
    )


def predict(network: Any, tensors: Pixels) -> Probabilities:
    """Predict uint8 [images, height, width, channels]; returns float32 [images, classes]."""
    predictions: Probabilities = np.asarray(
        network.predict_on_batch(np.ascontiguousarray(tensors)), np.float32
    )
    return predictions


def predict_files(network: Any, files: Sequence[Path], image: ImageSpec) -> FilePredictions:
    """Predict image files.

    Args:
        network: A network with uint8 input.
        files: The image files; unreadable ones are marked in the result.
        image: The network's input.
    """
    probabilities = np.full((len(files), network.outputs[0].shape[-1]), np.nan, np.float32)
    is_read = np.zeros(len(files), bool)
    with progress("predict with Keras", len(files), "images") as advance:
        decoded = enumerate(decode_files(files, image))
        while batch := list(itertools.islice(decoded, _BATCH)):
            tensors = {row: found.pixels for row, found in batch if isinstance(found, DecodedImage)}
            if tensors:
                rows = list(tensors)
                probabilities[rows] = predict(network, np.stack(list(tensors.values())))
                is_read[rows] = True
            advance(len(batch), "")
    return FilePredictions(probabilities, is_read)


def measure_noise(
    network: Any, files: Sequence[Path], image: ImageSpec, predictions: FilePredictions
) -> float:
    """The rounding error of a network in float32: its largest difference from itself in float64.

    It is measured on up to 32 images, half of which are those with the least certain predictions, where
    rounding has the largest effect. If a layer does not support float64, predictions of single images are
    compared with the batched ones instead, which captures part of the rounding error.

    Args:
        network: A network with uint8 input that computes in float32.
        files: The image files.
        image: The network's input.
        predictions: The network's predictions for the files.

    Returns:
        The largest absolute difference of a probability; 0 if there is nothing to compare.
    """
    rows = _choose_rows(predictions)
    tensors = _read_tensors([files[row] for row in rows], image)
    if not tensors:
        return 0.0
    pixels = np.stack(list(tensors.values()))
    predicted = predictions.probabilities[[rows[place] for place in tensors]].astype(np.float64)
    try:
        exact = _predict_in_batches(in_precision(network, "float64"), pixels, _NOISE_BATCH)
    except Exception as error:  # noqa: BLE001  # The type depends on the layer that does not support float64.
        _log.warning("the network cannot compute in float64 (%s)", type(error).__name__)
        exact = _predict_in_batches(network, pixels, 1)
    return float(np.nan_to_num(np.abs(exact - predicted), nan=0.0, posinf=0.0).max())


def _predict_in_batches(network: Any, pixels: Pixels, size: int) -> npt.NDArray[np.float64]:
    batches = [
        np.asarray(network.predict_on_batch(pixels[start : start + size]), np.float64)
        for start in range(0, len(pixels), size)
    ]
    return np.concatenate(batches)


def _choose_rows(predictions: FilePredictions) -> list[int]:
    """The files with the least certain predictions, and as many evenly spaced others."""
    usable = np.flatnonzero(predictions.is_read & np.isfinite(predictions.probabilities).all(axis=1))
    certainty = np.abs(predictions.probabilities[usable].max(axis=1, initial=0.0) - 0.5)
    uncertain = usable[np.argsort(certainty, kind="stable")][: _NOISE_IMAGES // 2]
    others = np.setdiff1d(usable, uncertain)
    count = min(_NOISE_IMAGES - len(uncertain), len(others))
    spread = others[np.linspace(0, len(others) - 1, count).round().astype(int)] if count else others[:0]
    return [int(row) for row in np.union1d(uncertain, spread)]


def _read_tensors(files: Sequence[Path], image: ImageSpec) -> dict[int, Pixels]:
    """The tensors of the readable files, by the file's position."""
    decoded = enumerate(decode_files(files, image))
    return {place: found.pixels for place, found in decoded if isinstance(found, DecodedImage)}
