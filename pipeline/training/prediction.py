"""Predictions of the trained Keras model. To be run in a separate process."""

from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.datasets import PixelArray
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

_BATCH = 250


def predict_pixels(network: Any, pixels: PixelArray) -> Probabilities:
    """Predict images in batches with a loaded network: float32 [images, classes]."""
    predictions = []
    with progress("evaluate", len(pixels), "images") as advance:
        for start in range(0, len(pixels), _BATCH):
            batch = np.asarray(pixels[start : start + _BATCH])
            predictions.append(network.predict_on_batch(batch))
            advance(len(batch), "")
    probabilities: Probabilities = np.concatenate(predictions).astype(np.float32)
    return probabilities


def predict_images(model_path: Path, pixels: Pixels) -> Probabilities:
    """Predict images in one batch with a model file: float32 [images, classes].

    Prediction runs on the CPU in float32, whatever the model was trained on: this is the reference that the
    ONNX file must match.

    Raises:
        WorkError: The installed Keras cannot load the model.
    """
    try:
        network = load_model(model_path)
    except Exception as error:  # noqa: BLE001  # Keras raises many types, some of which cannot be pickled.
        raise WorkError(
            f"{model_path} cannot be loaded ({type(error).__name__}: {error})",
            "a model that the installed Keras can load",
            "Install the version of Keras in the bundle's manifest.",
        ) from None
    probabilities: Probabilities = network.predict_on_batch(pixels).astype(np.float32)
    return probabilities


def load_model(path: Path) -> Any:
    """Load a `.keras` file on the CPU in safe mode, which runs no code contained in the file."""
    import_tensorflow()
    choose_device("cpu")
    import keras

    # Layers that are added to it get the same names whatever the process did before.
    keras.utils.clear_session()
    return keras.saving.load_model(path, safe_mode=True, compile=False)
