"""Each simple layer as a sequence of Keras layers; `keras` is passed as an argument and never imported.

The table is in `pixelmill.pipeline.layers.kinds`, which `pixelmill.pipeline.training.network` uses.
"""

from typing import Any

import numpy as np

from pixelmill.pipeline.config.layers import (
    Activation,
    BatchNormalization,
    Convolution,
    Dense,
    DepthwiseConvolution,
    Dropout,
    FixedConvolution,
    Flatten,
    GlobalPooling,
    Pooling,
    SeparableConvolution,
    Softmax,
)
from pixelmill.pipeline.layers.arithmetic import sliding

Layers = list[Any]


def convolution(keras: Any, layer: Convolution, classes: int, name: str) -> Layers:
    """`keras.layers.Conv2D` with He initialization."""
    return [
        *_padding(keras, layer, name),
        keras.layers.Conv2D(
            layer.filters,
            layer.kernel_size,
            use_bias=layer.bias,
            kernel_initializer="he_normal",
            name=name,
            **_sliding(layer),
        ),
    ]


def depthwise_convolution(keras: Any, layer: DepthwiseConvolution, classes: int, name: str) -> Layers:
    """`keras.layers.DepthwiseConv2D`."""
    return [
        *_padding(keras, layer, name),
        keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            depth_multiplier=layer.multiplier,
            use_bias=layer.bias,
            depthwise_initializer="he_normal",
            name=name,
            **_sliding(layer),
        ),
    ]


def separable_convolution(keras: Any, layer: SeparableConvolution, classes: int, name: str) -> Layers:
    """`keras.layers.SeparableConv2D`."""
    return [
        *_padding(keras, layer, name),
        keras.layers.SeparableConv2D(
            layer.filters,
            layer.kernel_size,
            depth_multiplier=layer.multiplier,
            use_bias=layer.bias,
            depthwise_initializer="he_normal",
            pointwise_initializer="he_normal",
            name=name,
            **_sliding(layer),
        ),
    ]


def fixed_convolution(keras: Any, layer: FixedConvolution, classes: int, name: str) -> Layers:
    """`keras.layers.DepthwiseConv2D` with the given kernels, not trainable."""
    kernels = np.stack([np.array(matrix, np.float32) for matrix in layer.matrices], axis=-1)
    return [
        *_padding(keras, layer, name),
        keras.layers.DepthwiseConv2D(
            kernels.shape[:2],
            depth_multiplier=len(layer.kernels),
            use_bias=False,
            depthwise_initializer=keras.initializers.Constant(kernels[:, :, np.newaxis, :]),
            trainable=False,
            name=name,
            **_sliding(layer),
        ),
    ]


def batch_normalization(keras: Any, layer: BatchNormalization, classes: int, name: str) -> Layers:
    """`keras.layers.BatchNormalization`."""
    return [keras.layers.BatchNormalization(name=name)]


def activation(keras: Any, layer: Activation, classes: int, name: str) -> Layers:
    """`keras.layers.Activation`, or the approximation of gelu, which it does not offer."""
    if layer.function == "gelu":
        return [lambda tensor: keras.ops.gelu(tensor, approximate=True)]
    return [keras.layers.Activation(layer.function, name=name)]


def pooling(keras: Any, layer: Pooling, classes: int, name: str) -> Layers:
    """`keras.layers.MaxPooling2D` or `AveragePooling2D`, whose mean excludes padding."""
    kinds = {"max_pooling": keras.layers.MaxPooling2D, "average_pooling": keras.layers.AveragePooling2D}
    return [kinds[layer.layer](layer.size, strides=layer.stride, padding=layer.padding, name=name)]


def global_pooling(keras: Any, layer: GlobalPooling, classes: int, name: str) -> Layers:
    """`keras.layers.GlobalAveragePooling2D` or `GlobalMaxPooling2D`."""
    kinds = {
        "global_average_pooling": keras.layers.GlobalAveragePooling2D,
        "global_max_pooling": keras.layers.GlobalMaxPooling2D,
    }
    return [kinds[layer.layer](name=name)]


def dropout(keras: Any, layer: Dropout, classes: int, name: str) -> Layers:
    """`keras.layers.Dropout`."""
    return [keras.layers.Dropout(layer.rate, name=name)]


def flatten(keras: Any, layer: Flatten, classes: int, name: str) -> Layers:
    """`keras.layers.Flatten`."""
    return [keras.layers.Flatten(name=name)]


def dense(keras: Any, layer: Dense, classes: int, name: str) -> Layers:
    """`keras.layers.Dense`."""
    return [keras.layers.Dense(classes if layer.units == "classes" else layer.units, name=name)]


def softmax(keras: Any, layer: Softmax, classes: int, name: str) -> Layers:
    """`keras.layers.Softmax`."""
    return [keras.layers.Softmax(name=name)]


Sliding = Convolution | DepthwiseConvolution | SeparableConvolution | FixedConvolution


def _padding(keras: Any, layer: Sliding, name: str) -> Layers:
    """A layer for `full` padding, which Keras does not offer."""
    if layer.padding != "full":
        return []
    height, width = sliding(layer).span
    return [keras.layers.ZeroPadding2D((height - 1, width - 1), name=f"{name}_padding")]


def _sliding(layer: Sliding) -> dict[str, object]:
    padding = "valid" if layer.padding == "full" else layer.padding
    return {"strides": layer.stride, "dilation_rate": layer.dilation, "padding": padding}
