"""Pooling: the maximum or mean of a window of each channel."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pixelmill.pipeline.layers.layer import SimpleLayerSpec, Step
from pixelmill.pipeline.layers.windows import Size, Window, pair


class Pooling(SimpleLayerSpec):
    """The maximum or mean of each window."""

    takes: ClassVar = "volume"

    layer: Literal["max_pooling", "average_pooling"]
    size: Size = Field(default=2, description="Side of a square window, or [height, width], in pixels.")
    stride: Size | None = Field(
        default=None,
        description="Step of the window, in pixels; null: its size, so that windows do not overlap.",
    )
    padding: Literal["valid", "same"] = Field(
        default="valid",
        description="valid: only windows inside the input; same: padded, one output per step.",
    )

    def step(self, depth: int, classes: int) -> Step:
        """A window over each channel."""
        stride = pair(self.size if self.stride is None else self.stride)
        return Step(depth, Window(pair(self.size), stride, padding=self.padding))

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.MaxPooling2D` or `AveragePooling2D`, whose mean excludes padding."""
        import keras

        kinds = {"max_pooling": keras.layers.MaxPooling2D, "average_pooling": keras.layers.AveragePooling2D}
        return [kinds[self.layer](self.size, strides=self.stride, padding=self.padding, name=name)]


class GlobalPooling(SimpleLayerSpec):
    """The maximum or mean of each channel."""

    takes: ClassVar = "volume"

    layer: Literal["global_average_pooling", "global_max_pooling"]

    def step(self, depth: int, classes: int) -> Step:
        """One value per channel."""
        return Step(depth, window=None)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.GlobalAveragePooling2D` or `GlobalMaxPooling2D`."""
        import keras

        kinds = {
            "global_average_pooling": keras.layers.GlobalAveragePooling2D,
            "global_max_pooling": keras.layers.GlobalMaxPooling2D,
        }
        return [kinds[self.layer](name=name)]
