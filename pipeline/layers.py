"""What a list of layers makes of an image's volume, known before training and without TensorFlow."""

from dataclasses import dataclass

from pipeline.config import (
    BatchNormalization,
    Convolution,
    Dense,
    Flatten,
    GlobalPooling,
    ImageSpec,
    Layer,
    ModelSpec,
    Padding,
    Pooling,
)
from pipeline.errors import RequestError

Volume = tuple[int, ...]
"""(height, width, depth), or (units,) once flattened or pooled over the whole image."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network: what comes out of it, per image, and the numbers it learns or keeps."""

    layer: str
    output: Volume
    parameters: int


def summarize_layers(model: ModelSpec, image: ImageSpec, classes: int) -> tuple[LayerSummary, ...]:
    """Follow an image through the layers.

    Args:
        model: The network.
        image: What comes in.
        classes: How many classes the dataset has.

    Raises:
        RequestError: A layer cannot take what reaches it, or the outputs are not the classes.
    """
    volume: Volume = (image.height, image.width, image.channels)
    rows = []
    for index, layer in enumerate(model.layers):
        name = f"model.layers.{index} ({layer.layer})"
        output = _output(layer, volume, classes, name)
        rows.append(LayerSummary(layer.layer, output, _parameters(layer, volume, output)))
        volume = output
    if volume != (classes,):
        raise RequestError(
            f"a network with the output {_text(volume)}",
            f"{classes}, one for each class of the dataset",
            "Write `units: classes` in the last dense layer.",
        )
    return tuple(rows)


def check_network(model: ModelSpec, image: ImageSpec) -> None:
    """See that every layer can take what reaches it, before the number of classes is known.

    Raises:
        RequestError: One cannot.
    """
    units = model.layers[-2].units if isinstance(model.layers[-2], Dense) else "classes"
    summarize_layers(model, image, classes=2 if units == "classes" else units)


def _output(layer: Layer, volume: Volume, classes: int, name: str) -> Volume:
    if isinstance(layer, Flatten):
        product = 1
        for size in volume:
            product *= size
        return (product,)
    if isinstance(layer, Dense):
        if len(volume) != 1:
            raise RequestError(
                f"{name} gets the volume {_text(volume)}",
                "a flat one",
                "Put global_average_pooling or flatten before it.",
            )
        return (classes if layer.units == "classes" else layer.units,)
    if not isinstance(layer, Convolution | Pooling | GlobalPooling):
        return volume
    if len(volume) != 3:
        raise RequestError(
            f"{name} gets the flat volume {_text(volume)}",
            "height x width x depth",
            "Move it before the layer that flattens.",
        )
    height, width, depth = volume
    if isinstance(layer, GlobalPooling):
        return (depth,)
    if isinstance(layer, Convolution):
        size, stride, depth = layer.kernel_size, layer.stride, layer.filters
    else:
        size, stride = layer.size, layer.stride or layer.size
    sides = tuple(_side(side, size, stride, layer.padding) for side in (height, width))
    if min(sides) < 1:
        raise RequestError(
            f"{name} of size {size} gets the volume {_text(volume)}",
            f"at least {size}x{size} pixels",
            "Take a pooling or a `valid` padding away before it, or use larger images.",
        )
    return (*sides, depth)


def _side(side: int, size: int, stride: int, padding: Padding) -> int:
    """Output side in pixels, as in Keras: ceil(side / stride), or ceil((side - size + 1) / stride)."""
    return -(-(side if padding == "same" else side - size + 1) // stride)


def _parameters(layer: Layer, volume: Volume, output: Volume) -> int:
    if isinstance(layer, Convolution):
        weights = layer.kernel_size**2 * volume[-1] * layer.filters
        return weights + (layer.filters if layer.bias else 0)
    if isinstance(layer, BatchNormalization):
        return 4 * volume[-1]
    if isinstance(layer, Dense):
        return (volume[0] + 1) * output[0]
    return 0


def _text(volume: Volume) -> str:
    return "x".join(map(str, volume))
