"""Building a Keras model from the layers of a recipe."""

from typing import Any

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.layers import ModelSpec
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.layers.layer import build_layers


def build_network(model: ModelSpec, image: ImageSpec, classes: int) -> Any:
    """A Keras model from images, uint8 [batch, height, width, channels], to probabilities.

    Its first layer rescales the pixels to 0..1, or as an application expects them, so the saved model takes
    raw pixels.

    Raises:
        RequestError: The weights of an application do not exist, or belong to another network.
        DownloadError: The weights cannot be downloaded.
    """
    import keras

    inputs = keras.Input((image.height, image.width, image.channels), dtype="uint8", name="image")
    if isinstance(model.layers[0], Application):
        tensor = inputs
    else:
        tensor = keras.layers.Rescaling(1 / 255, name="scaling")(inputs)
    return keras.Model(inputs, build_layers(model.layers, tensor, classes))
