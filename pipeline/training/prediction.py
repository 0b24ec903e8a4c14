"""Predictions of the trained Keras model. To be run in a separate process."""

from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import PixelArray
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Embeddings, Probabilities
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.training.backends import start_backend
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

_BATCH = 250
_MAX_VALUES = 2048


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


def embed_images(model_path: Path, pixels: PixelArray, path: Path, training: TrainingSpec) -> Embeddings:
    """Embed images with a model, as the input of its last convolution.

    Later layers know by heart what label each training image has.

    Args:
        model_path: The `.keras` file.
        pixels: uint8 [images, height, width, channels].
        path: The `.npy` file that they are written to, which may be larger than the memory.
        training: The settings of the training: its device and batch size are used.

    Returns:
        float32 [images, values], mapped from the file. Of a network without convolutions, the input of the
        last dense layer.
    """
    start_backend(training)
    import keras

    network = keras.saving.load_model(model_path, safe_mode=True, compile=False)
    body, embeddings = _body(network), None
    with progress("embed the training images", len(pixels), "images") as advance:
        for start in range(0, len(pixels), training.batch_size):
            batch = body.predict_on_batch(np.asarray(pixels[start : start + training.batch_size]))
            if embeddings is None:
                shape = (len(pixels), batch.shape[1])
                embeddings = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            embeddings[start : start + len(batch)] = batch
            advance(len(batch), "")
    mapped: Embeddings = np.load(path, mmap_mode="r")
    return mapped


def _body(network: Any) -> Any:
    """The network up to the input of its last convolution, which may be in a nested network."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D, keras.Model)
    convolutions = [layer for layer in network.layers if isinstance(layer, kinds)]
    if not convolutions:
        dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
        return keras.Model(network.inputs, _flatten(dense[-1].input))
    last = convolutions[-1]
    if not isinstance(last, keras.Model):
        return keras.Model(network.inputs, _flatten(last.input))
    # An application comes first, after what scales the pixels.
    scaled = network.layers[network.layers.index(last) - 1].output
    return keras.Model(network.inputs, _body(last)(scaled))


def _flatten(tensor: Any) -> Any:
    """A vector for each image, of a map averaged until it has at most 2,048 values."""
    import keras

    tensor = keras.ops.cast(tensor, "float32")
    if len(tensor.shape) == 4:
        height, width, channels = tensor.shape[1:]
        sizes = range(1, max(height, width) + 1)
        fits = (size for size in sizes if -(-height // size) * -(-width // size) * channels <= _MAX_VALUES)
        size = next(fits, max(height, width))
        tensor = keras.layers.AveragePooling2D(size, padding="same")(tensor)
    return keras.layers.Flatten()(tensor)


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
