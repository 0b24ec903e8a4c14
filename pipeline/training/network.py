"""From a recipe's list of layers to a Keras model."""

from typing import Any

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.config.layers import Application, ModelSpec
from pixelmill.pipeline.layers.kinds import build_layers


def build_network(model: ModelSpec, image: ImageSpec, classes: int) -> Any:
    """A Keras model that takes uint8 [batch, height, width, channels] and gives probabilities.

    Its first layer scales pixels, to 0..1 or as an application wants them: the saved model takes them as
    they are.

    Raises:
        RequestError: The weights that an application names are no file, or another network's.
        DownloadError: They cannot be downloaded.
    """
    import keras

    inputs = keras.Input((image.height, image.width, image.channels), dtype="uint8", name="image")
    if isinstance(model.layers[0], Application):
        tensor = inputs
    else:
        tensor = keras.layers.Rescaling(1 / 255, name="scaling")(inputs)
    return keras.Model(inputs, build_layers(keras, model.layers, tensor, classes))
