"""From a recipe's list of layers to a Keras model."""

from collections.abc import Callable
from typing import Any

from pipeline.config import (
    Activation,
    BatchNormalization,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GlobalPooling,
    ImageSpec,
    ModelSpec,
    Pooling,
    Softmax,
)


def build_network(model: ModelSpec, image: ImageSpec, classes: int) -> Any:
    """A Keras model that takes uint8 [batch, height, width, channels] and gives probabilities.

    The scaling to 0..1 is its first layer, so the saved model takes pixels as they are.
    """
    import keras

    inputs = keras.Input((image.height, image.width, image.channels), dtype="uint8", name="image")
    tensor = keras.layers.Rescaling(1 / 255)(inputs)
    for layer in model.layers:
        tensor = _BUILDERS[type(layer)](keras.layers, layer, classes)(tensor)
    return keras.Model(inputs, tensor)


def _convolution(layers: Any, layer: Convolution, classes: int) -> Any:
    return layers.Conv2D(
        layer.filters,
        layer.kernel_size,
        strides=layer.stride,
        padding=layer.padding,
        use_bias=layer.bias,
        kernel_initializer="he_normal",
    )


def _pooling(layers: Any, layer: Pooling, classes: int) -> Any:
    kind = {"max_pooling": layers.MaxPooling2D, "average_pooling": layers.AveragePooling2D}
    return kind[layer.layer](layer.size, strides=layer.stride, padding=layer.padding)


def _global_pooling(layers: Any, layer: GlobalPooling, classes: int) -> Any:
    kind = {
        "global_average_pooling": layers.GlobalAveragePooling2D,
        "global_max_pooling": layers.GlobalMaxPooling2D,
    }
    return kind[layer.layer]()


_BUILDERS: dict[type, Callable[[Any, Any, int], Any]] = {
    Convolution: _convolution,
    BatchNormalization: lambda layers, layer, classes: layers.BatchNormalization(),
    Activation: lambda layers, layer, classes: layers.Activation(layer.function),
    Pooling: _pooling,
    GlobalPooling: _global_pooling,
    Dropout: lambda layers, layer, classes: layers.Dropout(layer.rate),
    Flatten: lambda layers, layer, classes: layers.Flatten(),
    Dense: lambda layers, layer, classes: layers.Dense(classes if layer.units == "classes" else layer.units),
    Softmax: lambda layers, layer, classes: layers.Softmax(),
}
