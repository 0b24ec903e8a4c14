"""What an engine predicts with an ONNX file, in a process with limits on its time and memory."""

from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.limited_process import LimitExceeded, Limits, run_limited

DEFAULT_SECONDS = 120.0
"""How long one engine may take. The slowest, in Python, needs most of a minute for a large network."""
# What an engine may allocate, in bytes: so much, and so many times the size of the model's file.
_MEMORY, _MEMORY_BY_SIZE = 4 * 2**30, 8
_LONGEST_TROUBLE = 500


def run_engine(
    name: EngineName, path: Path, tensors: Pixels, classes: int, seconds: float = DEFAULT_SECONDS
) -> Probabilities | str:
    """Have an engine predict tensors all at once and one by one.

    Args:
        name: The engine; it is installed.
        path: The ONNX file.
        tensors: uint8 [images, height, width, channels].
        classes: How many numbers are expected for each.
        seconds: How long it may take.

    Returns:
        float32 [2, images, classes], or why there are none: the engine cannot run the file, gives another
        shape, or exceeds the limits.
    """
    limits = Limits(seconds, _MEMORY + _MEMORY_BY_SIZE * path.stat().st_size)
    try:
        predicted = run_limited(limits, _predict, name, path, tensors)
    except LimitExceeded as error:
        return error.received
    if isinstance(predicted, str):
        return predicted.replace(str(path), path.name)[:_LONGEST_TROUBLE]
    for predictions in predicted:
        if predictions.shape != (len(tensors), classes):
            return f"it gave an array of shape {predictions.shape}"
    return np.stack(predicted)


def _predict(name: EngineName, path: Path, tensors: Pixels) -> tuple[Probabilities, Probabilities] | str:
    """The predictions, or why there are none."""
    try:
        predict = ENGINES[name].load(path)
        together = predict(tensors)
        return together, np.concatenate([predict(tensor[np.newaxis]) for tensor in tensors])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # Engines raise types of their own; Rust's panics, too.
        return " ".join(str(error).split()) or type(error).__name__
