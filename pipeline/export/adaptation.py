"""Adapting networks to the input and output of a bundle: uint8 images in, probabilities of the classes out.

Imports TensorFlow, so run it in a separate process.
"""

from typing import Any

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.export import PixelRange
from pixelmill.pipeline.export.precision import Precision

# The scale and offset that map 0 to 255 to each range.
_RESCALING: dict[PixelRange, tuple[float, float]] = {
    "0..255": (1.0, 0.0),
    "0..1": (1 / 255, 0.0),
    "-1..1": (1 / 127.5, -1.0),
}
_FLOAT32: Precision = "float32"


def accept_uint8(network: Any, pixel_range: PixelRange, image: ImageSpec) -> Any:
    """A network that takes uint8 pixels of a fixed size and rescales them to the range `network` expects.

    Args:
        network: Takes [batch, height, width, channels]; returned unchanged if its input is already so.
        pixel_range: The range of pixels that it expects.
        image: The size of the images.
    """
    import keras

    shape = (image.height, image.width, image.channels)
    takes_uint8 = network.inputs[0].dtype == "uint8"
    if takes_uint8 and tuple(network.inputs[0].shape[1:]) == shape:
        return network
    pixels = keras.Input(shape, dtype="uint8", name="image")
    scale, offset = _RESCALING[pixel_range]
    scaled = pixels if takes_uint8 else keras.layers.Rescaling(scale, offset, dtype=_FLOAT32)(pixels)
    return keras.Model(pixels, network(scaled))


def with_two_classes(network: Any, from_logits: bool) -> Any:
    """A binary network with an output for each class, the positive class last.

    Args:
        network: A network with one output.
        from_logits: Whether that is a logit, so that the outputs are logits as well; otherwise they are the
            probabilities 1 - y and y.
    """
    import keras

    y = network.outputs[0]
    both = [keras.ops.zeros_like(y) if from_logits else 1 - y, y]
    return keras.Model(network.inputs[0], keras.ops.concatenate(both, axis=1))


def add_softmax(network: Any) -> Any:
    """The network with a softmax added to its outputs."""
    import keras

    probabilities = keras.layers.Softmax(dtype=_FLOAT32)(network.outputs[0])
    return keras.Model(network.inputs[0], probabilities)


def add_sigmoid(network: Any) -> Any:
    """The network with a sigmoid added to each of its outputs."""
    import keras

    probabilities = keras.layers.Activation("sigmoid", dtype=_FLOAT32)(network.outputs[0])
    return keras.Model(network.inputs[0], probabilities)


def divide_logits(network: Any, temperature: float) -> Any:
    """The network with its logits divided by a temperature.

    Args:
        network: It ends with a softmax layer, as those that a recipe describes.
        temperature: Above 0.
    """
    import keras

    logits = network.layers[-1].input
    scaled = keras.layers.Rescaling(1 / temperature, name="temperature", dtype=_FLOAT32)(logits)
    softmax = keras.layers.Softmax(name=network.layers[-1].name, dtype=_FLOAT32)
    return keras.Model(network.inputs[0], softmax(scaled))
