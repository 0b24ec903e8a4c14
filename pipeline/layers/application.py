"""The networks of `keras.applications`: their properties without building them, and how to build them.

The numbers are those of Keras 3 for three channels and no top; a test compares them with Keras.
"""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.features import Features, LayerSummary, Trace, describe_volume
from pixelmill.pipeline.layers.layer import LayerSpec
from pixelmill.pipeline.part import WeightsSource

ApplicationName = Literal[
    "ConvNeXtTiny",
    "ConvNeXtSmall",
    "ConvNeXtBase",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "EfficientNetV2M",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "NASNetMobile",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNet50V2",
    "ResNet101V2",
    "ResNet152V2",
    "VGG16",
    "VGG19",
    "Xception",
]

Scaling = Literal["tf", "torch", "caffe", "efficientnet", "efficientnet_v2"]
"""The preprocessing of an architecture's authors; the first three names are those of Keras."""

Side = Callable[[int], int]


@dataclass(frozen=True)
class _Facts:
    """The properties of an application.

    Attributes:
        scaling: The preprocessing of its authors.
        side: Height or width of the output, as a function of that of the image.
        depth: Channels of the output.
        parameters: Number of parameters, trainable and non-trainable.
        layers: Number of layers in Keras, including the input.
        min_side: Minimum height and width of an image, in pixels.
    """

    scaling: Scaling
    side: Side
    depth: int
    parameters: int
    layers: int
    min_side: int = 32


class Application(LayerSpec):
    """A network of `keras.applications` without its top; it must be the first layer.

    Pixels are preprocessed as by its authors. Networks that ONNX cannot express are not available.
    """

    layer: Literal["application"]
    name: ApplicationName = Field(description="The name in keras.applications.")
    weights: WeightsSource | None = Field(
        default=None,
        description="null: random; imagenet: downloaded by Keras; or a path, or a URL with #sha256=HASH, of "
        "weights or a whole model, as .h5 or .keras.",
    )
    frozen_layers: Annotated[int, Field(ge=0, strict=True)] | Literal["all"] = Field(
        default=0, description="Number of layers to freeze, counted from the first in the order of Keras."
    )
    frozen_normalization: bool = Field(
        default=False,
        description="Whether batch normalization keeps the statistics and weights that it was given, as is "
        "usual when pretrained layers are trained on few images.",
    )

    def trace(self, features: Features, classes: int, position: str) -> Trace:
        """One row for the whole network; its multiply-adds and receptive field are unknown.

        Raises:
            RequestError: It does not accept the image, or has fewer layers than are to be frozen.
        """
        facts = APPLICATIONS[self.name]
        self._check_image(facts, features, position)
        height, width = (facts.side(side) for side in features.grid)
        volume = (height, width, facts.depth)
        row = LayerSummary(
            position=position,
            layer=self.layer,
            settings=self.settings,
            output=volume,
            parameters=facts.parameters,
            multiply_adds=None,
            field=None,
            fully_connected=None,
        )
        return [row], Features(volume, (height, width), None)

    def build(self, tensor: Any, classes: int, position: str) -> Any:
        """Preprocess pixels as by the application's authors, and apply it, with random weights.

        `pixelmill.pipeline.training.pretrained` loads others.
        """
        import keras

        for scale in SCALINGS[APPLICATIONS[self.name].scaling](keras):
            tensor = scale(tensor)
        network = build_application(self.name, tuple(tensor.shape[1:]), weights=None)
        frozen = len(network.layers) if self.frozen_layers == "all" else self.frozen_layers
        for inner in network.layers[:frozen]:
            inner.trainable = False
        if self.frozen_normalization:
            for inner in network.layers:
                if isinstance(inner, keras.layers.BatchNormalization):
                    inner.trainable = False
        return network(tensor)

    def _check_image(self, facts: _Facts, features: Features, position: str) -> None:
        name = f"model.layers.{position} (application {self.name})"
        image = describe_volume(features.volume)
        if position != "0":
            raise RequestError(f"{name} is not the first layer", "the image as input", "Put it first.")
        if features.volume[-1] != 3:
            raise RequestError(f"{name} gets the image {image}", "three channels", "Set image.channels=3.")
        if min(features.grid) < facts.min_side:
            raise RequestError(
                f"{name} gets the image {image}",
                f"at least {facts.min_side}x{facts.min_side} pixels",
                "Raise image.height and image.width.",
            )
        if self.frozen_layers != "all" and self.frozen_layers > facts.layers:
            raise RequestError(
                f"{name} with {self.frozen_layers} frozen layers",
                f"at most {facts.layers}, the number of its layers",
                "Lower frozen_layers, or set `frozen_layers: all`.",
            )


def build_application(
    name: ApplicationName, shape: tuple[int, ...], weights: Literal["imagenet"] | None
) -> Any:
    """The network of Keras without its top, for images of this shape; `imagenet` is downloaded by Keras."""
    import keras

    # Some architectures that include preprocessing use a layer that ONNX does not support.
    options = {"include_preprocessing": False} if name.startswith(INCLUDE_PREPROCESSING) else {}
    # Standard output is for results, so the download progress of Keras goes to standard error.
    with redirect_stdout(sys.stderr):
        return getattr(keras.applications, name)(
            include_top=False, weights=weights, input_shape=shape, **options
        )


def _per_channel(keras: Any, means: list[float], deviations: list[float]) -> Any:
    scale = [1 / deviation for deviation in deviations]
    offset = [-mean / deviation for mean, deviation in zip(means, deviations, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="scaling")


SCALINGS: dict[Scaling, Callable[[Any], list[Any]]] = {
    "tf": lambda keras: [keras.layers.Rescaling(1 / 127.5, -1.0, name="scaling")],
    # The network itself divides by 255.
    "efficientnet": lambda keras: [_per_channel(keras, [123.675, 116.28, 103.53], [0.229, 0.224, 0.225])],
    "efficientnet_v2": lambda keras: [keras.layers.Rescaling(1 / 128, -1.0, name="scaling")],
    "torch": lambda keras: [
        _per_channel(keras, [123.675, 116.28, 103.53], [255 * 0.229, 255 * 0.224, 255 * 0.225])
    ],
    # The channels are in the order blue, green, red.
    "caffe": lambda keras: [
        _per_channel(keras, [123.68, 116.779, 103.939], [1.0, 1.0, 1.0]),
        lambda tensor: keras.ops.take(tensor, [2, 1, 0], axis=-1),
    ],
}
INCLUDE_PREPROCESSING = ("ConvNeXt", "EfficientNetV2", "MobileNetV3")


def _halve_up(side: int) -> int:
    """Half, rounded up: stride 2 with `same` padding."""
    return -(-side // 2)


def _halve_down(side: int) -> int:
    """Half, rounded down: a 2x2 window with stride 2, without padding."""
    return side // 2


def _conv3(side: int) -> int:
    """A 3x3 window without padding."""
    return side - 2


def _conv3_stride2(side: int) -> int:
    """A 3x3 window with stride 2, without padding."""
    return (side - 1) // 2


def _chain(*steps: Side) -> Side:
    def follow(side: int) -> int:
        for step in steps:
            side = step(side)
        return side

    return follow


_UP = _chain(_halve_up, _halve_up, _halve_up, _halve_up, _halve_up)
_DOWN = _chain(_halve_down, _halve_down, _halve_down, _halve_down, _halve_down)
_CONVNEXT = _chain(lambda side: side // 4, _halve_down, _halve_down, _halve_down)
_MOBILENET = _chain(_halve_up, _halve_down, _halve_down, _halve_down, _halve_down)
_DENSENET = _chain(_halve_up, _halve_up, _halve_down, _halve_down, _halve_down)
_INCEPTION = _chain(
    _conv3_stride2, _conv3, _conv3_stride2, _conv3, _conv3_stride2, _conv3_stride2, _conv3_stride2
)
_XCEPTION = _chain(_conv3_stride2, _conv3, _halve_up, _halve_up, _halve_up, _halve_up)
_NASNET = _chain(_conv3_stride2, _halve_up, _halve_up, _halve_up, _halve_up)

APPLICATIONS: dict[ApplicationName, _Facts] = {
    "ConvNeXtTiny": _Facts("torch", _CONVNEXT, 768, 27_820_128, 132),
    "ConvNeXtSmall": _Facts("torch", _CONVNEXT, 768, 49_454_688, 258),
    "ConvNeXtBase": _Facts("torch", _CONVNEXT, 1024, 87_566_464, 258),
    "DenseNet121": _Facts("torch", _DENSENET, 1024, 7_037_504, 427),
    "DenseNet169": _Facts("torch", _DENSENET, 1664, 12_642_880, 595),
    "DenseNet201": _Facts("torch", _DENSENET, 1920, 18_321_984, 707),
    "EfficientNetB0": _Facts("efficientnet", _UP, 1280, 4_049_571, 237),
    "EfficientNetB1": _Facts("efficientnet", _UP, 1280, 6_575_239, 339),
    "EfficientNetB2": _Facts("efficientnet", _UP, 1408, 7_768_569, 339),
    "EfficientNetB3": _Facts("efficientnet", _UP, 1536, 10_783_535, 384),
    "EfficientNetB4": _Facts("efficientnet", _UP, 1792, 17_673_823, 474),
    "EfficientNetB5": _Facts("efficientnet", _UP, 2048, 28_513_527, 576),
    "EfficientNetB6": _Facts("efficientnet", _UP, 2304, 40_960_143, 666),
    "EfficientNetB7": _Facts("efficientnet", _UP, 2560, 64_097_687, 813),
    "EfficientNetV2B0": _Facts("torch", _UP, 1280, 5_919_312, 268),
    "EfficientNetV2B1": _Facts("torch", _UP, 1280, 6_931_124, 332),
    "EfficientNetV2B2": _Facts("torch", _UP, 1408, 8_769_374, 347),
    "EfficientNetV2B3": _Facts("torch", _UP, 1536, 12_930_622, 407),
    "EfficientNetV2S": _Facts("efficientnet_v2", _UP, 1280, 20_331_360, 512),
    "EfficientNetV2M": _Facts("efficientnet_v2", _UP, 1280, 53_150_388, 739),
    "InceptionV3": _Facts("tf", _INCEPTION, 2048, 21_802_784, 311, min_side=75),
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
    "Xception": _Facts("tf", _XCEPTION, 2048, 20_861_480, 132, min_side=71),
}
