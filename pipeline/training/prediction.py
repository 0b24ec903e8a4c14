"""What the trained Keras model says of images. Run it in a process of its own."""

from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import write_array
from pixelmill.pipeline.datasets import PreparedDataset, SplitName
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training import TrainedModel
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

_BATCH = 250


def predict_split(model: TrainedModel, dataset: PreparedDataset, split: SplitName, path: Path) -> Path:
    """Write the model's probabilities, float32 [images, classes], for every image of a split as `.npy`.

    On the CPU in float32, whatever it was trained on: this is what the ONNX file must equal.
    """
    network = load_model(model.model_path)
    pixels = dataset.split(split).pixels
    answers = []
    with progress("evaluate", len(pixels), "images") as advance:
        for start in range(0, len(pixels), _BATCH):
            batch = np.asarray(pixels[start : start + _BATCH])
            answers.append(network.predict_on_batch(batch))
            advance(len(batch), "")
    write_array(path, np.concatenate(answers).astype(np.float32))
    return path


def predict_images(model_path: Path, pixels: Pixels) -> Probabilities:
    """A model file's probabilities, float32 [images, classes], for a few images, as `predict_split` asks.

    Raises:
        WorkError: The Keras that is installed here cannot load it.
    """
    try:
        network = load_model(model_path)
    except Exception as error:  # noqa: BLE001  # Of many types; some do not survive the way to another process.
        raise WorkError(
            f"{model_path} cannot be loaded ({type(error).__name__}: {error})",
            "a model that the Keras installed here can read",
            "Install the version of Keras that the bundle's manifest names.",
        ) from None
    answer: Probabilities = network.predict_on_batch(pixels).astype(np.float32)
    return answer


def load_model(path: Path) -> Any:
    """Load a `.keras` file on the CPU, without running code that it brings along."""
    import_tensorflow()
    choose_device("cpu")
    import keras

    return keras.saving.load_model(path, safe_mode=True, compile=False)
