"""Shapes, parameters and receptive fields of a network, computed before training without TensorFlow."""

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.config.layers import Dense, ModelSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.features import Features, LayerSummary, Volume, describe_volume
from pixelmill.pipeline.layers.kinds import trace_layers
from pixelmill.pipeline.layers.windows import ReceptiveField

__all__ = ["LayerSummary", "Volume", "check_network", "count_outputs", "describe_volume", "summarize_layers"]


def summarize_layers(model: ModelSpec, image: ImageSpec, classes: int) -> tuple[LayerSummary, ...]:
    """Summarize each layer of a network.

    Args:
        model: The network.
        image: The size of the input images.
        classes: Number of classes of the dataset.

    Raises:
        RequestError: A layer does not accept its input, or the number of outputs is not that of the classes.
    """
    pixels = Features(
        (image.height, image.width, image.channels), (image.height, image.width), ReceptiveField()
    )
    rows, output = trace_layers(model.layers, pixels, classes)
    if output.volume != (classes,):
        raise RequestError(
            f"a network with the output {describe_volume(output.volume)}",
            f"{classes}, one for each class of the dataset",
            "Set `units: classes` in the last dense layer.",
        )
    return tuple(rows)


def check_network(model: ModelSpec, image: ImageSpec) -> None:
    """Check that every layer accepts its input, before the number of classes is known.

    Raises:
        RequestError: A layer does not.
    """
    summarize_layers(model, image, classes=count_outputs(model) or 2)


def count_outputs(model: ModelSpec) -> int | None:
    """The number of outputs in the recipe; None if it is the number of classes of the dataset."""
    units = model.layers[-2].units if isinstance(model.layers[-2], Dense) else "classes"
    return None if units == "classes" else units
