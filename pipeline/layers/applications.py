"""The networks of `keras.applications`: what is known of each without building it, and how Keras does.

The numbers are those of Keras 3 for three channels and no top; a test holds them against it.
"""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelmill.pipeline.config.layers import Application, ApplicationName
from pixelmill.pipeline.errors import DownloadError, PixelmillError, RequestError
from pixelmill.pipeline.layers.features import Features, LayerSummary, Trace, describe_volume

Scaling = Literal["tf", "torch", "caffe", "efficientnet_v2"]
"""What an architecture's authors made of pixels; the first three are named as in Keras."""

Side = Callable[[int], int]


@dataclass(frozen=True)
class _Facts:
    """What is known of an application.

    Attributes:
        scaling: What its authors made of pixels.
        side: The side of its output, in places, from the side of the image, in pixels.
        depth: Of its output.
        parameters: All numbers it holds, learned or kept.
        layers: How many Keras counts, its input among them.
        smallest: The least side of an image, in pixels.
    """

    scaling: Scaling
    side: Side
    depth: int
    parameters: int
    layers: int
    smallest: int = 32


def trace_application(layer: Application, features: Features, classes: int, position: str) -> Trace:
    """One row for the whole network: its multiply-adds and its receptive field stay unknown.

    Raises:
        RequestError: It cannot take the image, or cannot be told so many frozen layers.
    """
    facts, name = APPLICATIONS[layer.name], f"model.layers.{position} (application {layer.name})"
    image = describe_volume(features.volume)
    if position != "0":
        raise RequestError(f"{name} gets what other layers made", "the image", "Put it first.")
    if features.volume[-1] != 3:
        raise RequestError(f"{name} gets the image {image}", "three channels", "Set image.channels=3.")
    if min(features.grid) < facts.smallest:
        raise RequestError(
            f"{name} gets the image {image}",
            f"at least {facts.smallest}x{facts.smallest} pixels",
            "Raise image.height and image.width.",
        )
    if layer.frozen_layers != "all" and layer.frozen_layers > facts.layers:
        raise RequestError(
            f"{name} with {layer.frozen_layers} frozen layers",
            f"at most {facts.layers}, all it has",
            "Lower frozen_layers, or write `frozen_layers: all`.",
        )
    height, width = (facts.side(side) for side in features.grid)
    volume = (height, width, facts.depth)
    said = layer.model_dump(mode="json", exclude_defaults=True, exclude={"layer"})
    row = LayerSummary(
        position=position,
        layer=layer.layer,
        settings=", ".join(f"{key} {value}" for key, value in said.items()),
        output=volume,
        parameters=facts.parameters,
        multiply_adds=None,
        field=None,
        fully_connected=None,
    )
    return [row], Features(volume, (height, width), None)


def build_application(keras: Any, layer: Application, tensor: Any, classes: int, position: str) -> Any:
    """Scale pixels as the application's authors did, and apply it.

    Raises:
        RequestError: There is no such file of weights, or it is of another network.
        DownloadError: The weights cannot be downloaded.
    """
    for scale in SCALINGS[APPLICATIONS[layer.name].scaling](keras):
        tensor = scale(tensor)
    network = _load(keras, layer, tuple(tensor.shape[1:]))
    frozen = len(network.layers) if layer.frozen_layers == "all" else layer.frozen_layers
    for inner in network.layers[:frozen]:
        inner.trainable = False
    return network(tensor)


def _load(keras: Any, layer: Application, shape: tuple[int, ...]) -> Any:
    if layer.weights not in (None, "imagenet") and not Path(layer.weights).is_file():
        raise RequestError(
            f"weights {layer.weights!r} of the application {layer.name}",
            "null, imagenet, or the path of a file",
            "Correct `weights`, or write the file there.",
        )
    # Where an architecture can scale pixels itself, some do it with a layer that ONNX cannot take.
    own = {"include_preprocessing": False} if layer.name.startswith(SCALE_THEMSELVES) else {}
    try:
        # What Keras says of a download goes where our progress goes; standard output is for results.
        with redirect_stdout(sys.stderr):
            return getattr(keras.applications, layer.name)(
                include_top=False, weights=layer.weights, input_shape=shape, **own
            )
    except Exception as error:
        if layer.weights is None:
            raise
        raise _explain(layer, error) from error


def _explain(layer: Application, error: Exception) -> PixelmillError:
    reason = f"{type(error).__name__}: {error}"
    if layer.weights == "imagenet":
        return DownloadError(
            f"the weights of {layer.name} cannot be had ({reason})",
            "a download by Keras, once",
            "Check the network, or name a file of weights in `weights`.",
        )
    return RequestError(
        f"weights {layer.weights!r} of the application {layer.name} ({reason})",
        f"those of a {layer.name} without its top, as Keras saves them",
        "Name another file, or write `weights: null`.",
    )


def _per_channel(keras: Any, means: list[float], deviations: list[float]) -> Any:
    scale = [1 / deviation for deviation in deviations]
    offset = [-mean / deviation for mean, deviation in zip(means, deviations, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="scaling")


SCALINGS: dict[Scaling, Callable[[Any], list[Any]]] = {
    "tf": lambda keras: [keras.layers.Rescaling(1 / 127.5, -1.0, name="scaling")],
    "efficientnet_v2": lambda keras: [keras.layers.Rescaling(1 / 128, -1.0, name="scaling")],
    "torch": lambda keras: [
        _per_channel(keras, [123.675, 116.28, 103.53], [255 * 0.229, 255 * 0.224, 255 * 0.225])
    ],
    # Blue comes first there.
    "caffe": lambda keras: [
        _per_channel(keras, [123.68, 116.779, 103.939], [1.0, 1.0, 1.0]),
        lambda tensor: keras.ops.take(tensor, [2, 1, 0], axis=-1),
    ],
}
SCALE_THEMSELVES = ("EfficientNetV2", "MobileNetV3")


def _up(side: int) -> int:
    """Half, rounded up: stride 2 with all the padding it wants."""
    return -(-side // 2)


def _down(side: int) -> int:
    """Half, rounded down: stride 2 of a 2x2 window without padding."""
    return side // 2


def _inner(side: int) -> int:
    """A 3x3 window without padding."""
    return side - 2


def _inner_half(side: int) -> int:
    """A 3x3 window of stride 2 without padding."""
    return (side - 1) // 2


def _chain(*steps: Side) -> Side:
    def follow(side: int) -> int:
        for step in steps:
            side = step(side)
        return side

    return follow


_UP = _chain(_up, _up, _up, _up, _up)
_DOWN = _chain(_down, _down, _down, _down, _down)
_MOBILENET = _chain(_up, _down, _down, _down, _down)
_DENSENET = _chain(_up, _up, _down, _down, _down)
_INCEPTION = _chain(_inner_half, _inner, _inner_half, _inner, _inner_half, _inner_half, _inner_half)
_XCEPTION = _chain(_inner_half, _inner, _up, _up, _up, _up)
_NASNET = _chain(_inner_half, _up, _up, _up, _up)

APPLICATIONS: dict[ApplicationName, _Facts] = {
    "DenseNet121": _Facts("torch", _DENSENET, 1024, 7_037_504, 427),
    "DenseNet169": _Facts("torch", _DENSENET, 1664, 12_642_880, 595),
    "DenseNet201": _Facts("torch", _DENSENET, 1920, 18_321_984, 707),
    "EfficientNetV2B0": _Facts("torch", _UP, 1280, 5_919_312, 268),
    "EfficientNetV2B1": _Facts("torch", _UP, 1280, 6_931_124, 332),
    "EfficientNetV2B2": _Facts("torch", _UP, 1408, 8_769_374, 347),
    "EfficientNetV2B3": _Facts("torch", _UP, 1536, 12_930_622, 407),
    "EfficientNetV2S": _Facts("efficientnet_v2", _UP, 1280, 20_331_360, 512),
    "EfficientNetV2M": _Facts("efficientnet_v2", _UP, 1280, 53_150_388, 739),
    "InceptionV3": _Facts("tf", _INCEPTION, 2048, 21_802_784, 311, smallest=75),
    "MobileNet": _Facts("tf", _MOBILENET, 1024, 3_228_864, 86),
    "MobileNetV2": _Facts("tf", _UP, 1280, 2_257_984, 154),
    "MobileNetV3Small": _Facts("tf", _UP, 576, 939_120, 156),
    "MobileNetV3Large": _Facts("tf", _UP, 960, 2_996_352, 186),
    "NASNetMobile": _Facts("tf", _NASNET, 1056, 4_269_716, 769),
    "ResNet50": _Facts("caffe", _UP, 2048, 23_587_712, 175),
    "ResNet101": _Facts("caffe", _UP, 2048, 42_658_176, 345),
    "ResNet152": _Facts("caffe", _UP, 2048, 58_370_944, 515),
    "ResNet50V2": _Facts("tf", _UP, 2048, 23_564_800, 190),
    "ResNet101V2": _Facts("tf", _UP, 2048, 42_626_560, 377),
    "ResNet152V2": _Facts("tf", _UP, 2048, 58_331_648, 564),
    "VGG16": _Facts("caffe", _DOWN, 512, 14_714_688, 19),
    "VGG19": _Facts("caffe", _DOWN, 512, 20_024_384, 22),
    "Xception": _Facts("tf", _XCEPTION, 2048, 20_861_480, 132, smallest=71),
}
