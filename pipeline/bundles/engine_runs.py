"""Running an engine on a file of a model in a process with limits on its time and memory."""

from pathlib import Path

import numpy as np

from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.limited_process import LimitExceeded, Limits, run_limited

DEFAULT_SECONDS = 120.0
"""How long one engine may take. The reference engine needs most of a minute for a large network."""
# An engine may allocate this many bytes, plus this many times the size of the model file.
_MEMORY, _MEMORY_BY_SIZE = 4 * 2**30, 8
_MAX_REASON_LENGTH = 500


def run_engine(
    name: EngineName, path: Path, tensors: Pixels, classes: int, seconds: float = DEFAULT_SECONDS
) -> Probabilities | str:
    """Predict with an engine, in one batch and image by image.

    Args:
        name: The engine, which must be installed.
        path: The file; others with the same stem count towards the memory limit.
        tensors: uint8 [images, height, width, channels].
        classes: The expected number of probabilities per image.
        seconds: The time limit.

    Returns:
        float32 [2, images, classes], or the reason for having no predictions: the engine cannot run the
        file, returns another shape, or exceeds the limits.
    """
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*"))
    limits = Limits(seconds, _MEMORY + _MEMORY_BY_SIZE * size)
    try:
        predicted = run_limited(limits, _predict, name, path, tensors)
    except LimitExceeded as error:
        return error.received
    if isinstance(predicted, str):
        return predicted.replace(str(path), path.name)[:_MAX_REASON_LENGTH]
    for predictions in predicted:
        if predictions.shape != (len(tensors), classes):
            return f"it returned an array of shape {predictions.shape}"
    return np.stack(predicted)


def _predict(name: EngineName, path: Path, tensors: Pixels) -> tuple[Probabilities, Probabilities] | str:
    """The predictions in one batch and image by image, or the reason for having none."""
    try:
        predict = ENGINES[name].load(path)
        in_one_batch = predict(tensors)
        return in_one_batch, np.concatenate([predict(tensor[np.newaxis]) for tensor in tensors])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # Engines raise their own types; a Rust panic is a BaseException.
        return " ".join(str(error).split()) or type(error).__name__
