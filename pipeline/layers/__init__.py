"""What a list of layers makes of an image's volume, known before training and without TensorFlow."""

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.config.layers import Dense, ModelSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.features import Features, LayerSummary, Volume, describe_volume
from pixelmill.pipeline.layers.kinds import trace_layers
from pixelmill.pipeline.layers.windows import ReceptiveField

__all__ = ["LayerSummary", "Volume", "check_network", "count_outputs", "describe_volume", "summarize_layers"]


def summarize_layers(model: ModelSpec, image: ImageSpec, classes: int) -> tuple[LayerSummary, ...]:
    """Follow an image through the layers.

    Args:
        model: The network.
        image: What comes in.
        classes: How many classes the dataset has.

    Raises:
        RequestError: A layer cannot take what reaches it, or the outputs are not the classes.
    """
    pixels = Features(
        (image.height, image.width, image.channels), (image.height, image.width), ReceptiveField()
    )
    rows, output = trace_layers(model.layers, pixels, classes)
    if output.volume != (classes,):
        raise RequestError(
            f"a network with the output {describe_volume(output.volume)}",
            f"{classes}, one for each class of the dataset",
            "Write `units: classes` in the last dense layer.",
        )
    return tuple(rows)


def check_network(model: ModelSpec, image: ImageSpec) -> None:
    """See that every layer can take what reaches it, before the number of classes is known.

    Raises:
        RequestError: One cannot.
    """
    summarize_layers(model, image, classes=count_outputs(model) or 2)


def count_outputs(model: ModelSpec) -> int | None:
    """How many outputs a recipe gives its network; None where it leaves that to the dataset's classes."""
    units = model.layers[-2].units if isinstance(model.layers[-2], Dense) else "classes"
    return None if units == "classes" else units
