"""Class activation maps: which positions of an image speak for a class. To be run in a separate process.

CAM, for networks that end in global average pooling and one dense layer: Zhou et al., "Learning Deep
Features for Discriminative Localization" (2016), equation 2. Grad-CAM, for others: Selvaraju et al. (2017),
equations 1 and 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.activations import Values, list_map_layers, reader

Method = Literal["CAM", "Grad-CAM"]


@dataclass(frozen=True)
class ClassMaps:
    """Class activation maps of one image.

    Attributes:
        method: `CAM` is signed, and its mean over the positions plus the bias of the class is the class's
            logit; `Grad-CAM` is never negative.
        values: One map for each class asked for, float32 [classes, height, width].
        biases: The bias of each class in the last dense layer, float32 [classes].
    """

    method: Method
    values: Values
    biases: Values


def map_classes(network: Any, pixels: Pixels, classes: Sequence[Sequence[int]]) -> list[ClassMaps]:
    """The class activation maps of images.

    Args:
        network: A Keras model that ends in a dense layer and a softmax, as `load_model` returns it.
        pixels: The images, uint8 [images, height, width, channels].
        classes: The indices of the classes, for each image.

    Raises:
        ValueError: No layer before the last ones keeps positions, or the last that does has only one.
    """
    import keras

    if not list_map_layers(network):
        raise ValueError("no layer of the network keeps positions")
    reduction, dense = _reduction(network), network.operations[-2]
    if reduction.input.shape[1] * reduction.input.shape[2] == 1:
        raise ValueError("the last feature maps have a single position")
    read = reader(network, [reduction.input])
    features = [read(pixels[at : at + 1])[0] for at in range(len(pixels))]
    kernel, bias = (keras.ops.convert_to_numpy(each) for each in (dense.kernel, dense.bias))
    if type(reduction).__name__ == "GlobalAveragePooling2D" and _is_last_but_dense(network, reduction):
        maps = [
            np.moveaxis(values[0] @ kernel[:, list(some)], -1, 0)
            for values, some in zip(features, classes, strict=True)
        ]
        return [
            ClassMaps("CAM", values, bias[list(some)]) for values, some in zip(maps, classes, strict=True)
        ]
    head = keras.Model(reduction.input, network.operations[-1].input)
    return [
        ClassMaps("Grad-CAM", _grad_cam(head, values, some), bias[list(some)])
        for values, some in zip(features, classes, strict=True)
    ]


def _reduction(network: Any) -> Any:
    """The last operation that turns feature maps into a vector."""
    for operation in reversed(network.operations):
        given = operation.input
        if not isinstance(given, list) and len(given.shape) == 4 and len(operation.output.shape) == 2:
            return operation
    raise ValueError("no layer turns feature maps into a vector")


def _is_last_but_dense(network: Any, reduction: Any) -> bool:
    """Whether only dropout, which does nothing at inference, stands between pooling and the dense layer."""
    names = [type(operation).__name__ for operation in network.operations]
    return set(names[network.operations.index(reduction) + 1 : -2]) <= {"Dropout"} and names[-2] == "Dense"


def _grad_cam(head: Any, features: Values, classes: Sequence[int]) -> Values:
    """Grad-CAM of one image, given its features, float32 [1, height, width, channels]."""
    import tensorflow as tf

    values = tf.constant(features)
    maps = []
    for each in classes:
        with tf.GradientTape() as tape:
            tape.watch(values)
            score = head([values], training=False)[0, each]
        weights = tf.reduce_mean(tape.gradient(score, values), axis=(1, 2))
        maps.append(tf.nn.relu(tf.einsum("bhwc,bc->bhw", values, weights))[0].numpy())
    return np.stack(maps).astype(np.float32)
