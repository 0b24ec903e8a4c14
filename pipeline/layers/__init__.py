"""The layers of a network: their fields in a recipe, what they make of an image, and how Keras builds them.

Shapes, parameters and receptive fields are computed before training, without TensorFlow.
"""

from typing import Annotated, Protocol

from pydantic import Field, model_validator

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.activation import Softmax
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.layers.dense import Dense
from pixelmill.pipeline.layers.features import Features, LayerSummary, Volume, describe_volume
from pixelmill.pipeline.layers.kinds import SimpleLayer
from pixelmill.pipeline.layers.layer import trace_layers
from pixelmill.pipeline.layers.residual import Residual
from pixelmill.pipeline.layers.windows import ReceptiveField
from pixelmill.pipeline.part import Part

__all__ = [
    "Layer",
    "LayerSummary",
    "ModelSpec",
    "Volume",
    "check_network",
    "count_outputs",
    "describe_volume",
    "summarize_layers",
]

Layer = Annotated[SimpleLayer | Residual | Application, Field(discriminator="layer")]


class ImageShape(Protocol):
    """The shape of the input images, such as that of an `ImageSpec`."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def channels(self) -> int:
        """1 or 3."""


class ModelSpec(Part):
    """The network, from the image to the probabilities.

    Pixels are divided by 255 before the first layer, unless it is an application.
    """

    layers: Annotated[tuple[Layer, ...], Field(min_length=2)] = Field(
        description="From the image to the probabilities; the last two are dense and softmax."
    )

    @model_validator(mode="after")
    def ends_in_probabilities(self) -> "ModelSpec":
        """Require a network whose outputs are probabilities."""
        dense, softmax = self.layers[-2:]
        if not (isinstance(dense, Dense) and isinstance(softmax, Softmax)):
            raise ValueError(
                "the last two layers must be dense and softmax: retraining gives each image one class"
            )
        return self


def summarize_layers(model: ModelSpec, image: ImageShape, classes: int) -> tuple[LayerSummary, ...]:
    """Summarize each layer of a network.

    Args:
        model: The network.
        image: The shape of the input images.
        classes: Number of classes of the dataset.

    Raises:
        RequestError: A layer does not accept its input, or the number of outputs is not that of the classes.
    """
    grid = (image.height, image.width)
    rows, output = trace_layers(
        model.layers, Features((*grid, image.channels), grid, ReceptiveField()), classes
    )
    if output.volume != (classes,):
        raise RequestError(
            f"a network with the output {describe_volume(output.volume)}",
            f"{classes}, one for each class of the dataset",
            "Set `units: classes` in the last dense layer.",
        )
    return tuple(rows)


def check_network(model: ModelSpec, image: ImageShape) -> None:
    """Check that every layer accepts its input, before the number of classes is known.

    Raises:
        RequestError: A layer does not.
    """
    summarize_layers(model, image, classes=count_outputs(model) or 2)


def count_outputs(model: ModelSpec) -> int | None:
    """The number of outputs in the recipe; None if it is the number of classes of the dataset."""
    units = model.layers[-2].units if isinstance(model.layers[-2], Dense) else "classes"
    return None if units == "classes" else units
