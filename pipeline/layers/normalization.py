"""Normalization of the features."""

from typing import Any, Literal

from pixelmill.pipeline.layers.layer import SimpleLayerSpec, Step


class BatchNormalization(SimpleLayerSpec):
    """Batch normalization over each channel."""

    layer: Literal["batch_normalization"]

    def step(self, depth: int, classes: int) -> Step:
        """A scale, an offset, a mean and a variance for each channel."""
        return Step(depth, offsets=4 * depth)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.BatchNormalization`."""
        import keras

        return [keras.layers.BatchNormalization(name=name)]
