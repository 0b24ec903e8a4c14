"""Fully connected layers, and the vectors they take."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pixelmill.pipeline.layers.layer import SimpleLayerSpec, Step
from pixelmill.pipeline.part import Positive


class Flatten(SimpleLayerSpec):
    """Flattens the input to a vector."""

    layer: Literal["flatten"]

    def step(self, depth: int, classes: int) -> Step:
        """All values as a vector."""
        return Step(depth=None)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.Flatten`."""
        import keras

        return [keras.layers.Flatten(name=name)]


class Dense(SimpleLayerSpec):
    """A fully connected layer."""

    takes: ClassVar = "flat"

    layer: Literal["dense"]
    units: Positive | Literal["classes"] = Field(
        description="Number of outputs; classes: one for each class of the dataset."
    )

    def count_units(self, classes: int) -> int:
        """The number of outputs for a number of classes."""
        return classes if self.units == "classes" else self.units

    def step(self, depth: int, classes: int) -> Step:
        """Every output has a weight for each input, and a bias."""
        units = self.count_units(classes)
        return Step(units, None, depth * units, units)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.Dense`."""
        import keras

        return [keras.layers.Dense(self.count_units(classes), name=name)]
