"""Regularization, which acts in training only."""

from typing import Any, Literal

from pydantic import Field

from pixelmill.pipeline.layers.layer import SimpleLayerSpec, Step
from pixelmill.pipeline.part import Fraction


class Dropout(SimpleLayerSpec):
    """Sets random values to zero, in training only."""

    layer: Literal["dropout"]
    rate: Fraction = Field(description="Share of the values set to zero.")

    def step(self, depth: int, classes: int) -> Step:
        """Elementwise, without parameters."""
        return Step(depth)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.Dropout`."""
        import keras

        return [keras.layers.Dropout(self.rate, name=name)]
