"""Activation functions."""

from typing import Any, Literal

from pydantic import Field

from pixelmill.pipeline.layers.layer import SimpleLayerSpec, Step

ActivationFunction = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "hard_silu",
    "softplus",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
]


class Activation(SimpleLayerSpec):
    """An elementwise activation function."""

    layer: Literal["activation"]
    function: ActivationFunction = Field(
        default="relu",
        description="gelu is the tanh approximation: the supported ONNX opsets have no op for the exact one.",
    )

    def step(self, depth: int, classes: int) -> Step:
        """Elementwise, without parameters."""
        return Step(depth)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.Activation`, or the approximation of gelu, which it does not offer."""
        import keras

        if self.function == "gelu":
            return [lambda tensor: keras.ops.gelu(tensor, approximate=True)]
        return [keras.layers.Activation(self.function, name=name)]


class Softmax(SimpleLayerSpec):
    """Converts the outputs to probabilities that sum to 1."""

    layer: Literal["softmax"]

    def step(self, depth: int, classes: int) -> Step:
        """No parameters."""
        return Step(depth)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.Softmax`."""
        import keras

        return [keras.layers.Softmax(name=name)]
