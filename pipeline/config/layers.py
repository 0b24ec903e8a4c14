"""The layers a recipe may list; `pipeline.layers` says what each of them does."""

import math
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.part import Fraction, Part, Positive

Padding = Literal["valid", "same", "full"]
"""None; what keeps the size at stride 1; what lets the kernel's corner touch the image's."""

KernelName = Literal["sobel_x", "sobel_y", "scharr_x", "scharr_y"]
Matrix = tuple[tuple[float, ...], ...]
ApplicationName = Literal[
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
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


def _check_size(value: object) -> object:
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else (value,)
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError("a whole number above 0, or two of them: [height, width]")
    return value


def _check_kernel(value: object) -> object:
    if isinstance(value, str) and value in get_args(KernelName):
        return value
    rows = value if isinstance(value, list | tuple) else ()
    widths = {len(row) if isinstance(row, list | tuple) else 0 for row in rows}
    numbers = [number for row in rows if isinstance(row, list | tuple) for number in row]
    known = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    if len(widths) != 1 or widths == {0} or not known:
        raise ValueError(f"one of {', '.join(get_args(KernelName))}, or rows of numbers, all of one length")
    return value


Size = Annotated[int | tuple[int, int], BeforeValidator(_check_size)]
"""Of a square in pixels, or [height, width]."""
Kernel = Annotated[KernelName | Matrix, BeforeValidator(_check_kernel)]


class Convolution(Part):
    """`filters` learned kernels, each over the whole depth."""

    layer: Literal["convolution"]
    filters: Positive
    kernel_size: Size
    stride: Positive = 1
    padding: Padding = "same"
    dilation: Positive = 1
    bias: bool = False


class DepthwiseConvolution(Part):
    """`multiplier` learned kernels for each channel, over that channel alone."""

    layer: Literal["depthwise_convolution"]
    kernel_size: Size
    multiplier: Positive = 1
    stride: Positive = 1
    padding: Padding = "same"
    dilation: Positive = 1
    bias: bool = False


class SeparableConvolution(Part):
    """A depthwise convolution, and one of 1x1 that mixes its channels into `filters`."""

    layer: Literal["separable_convolution"]
    filters: Positive
    kernel_size: Size
    multiplier: Positive = 1
    stride: Positive = 1
    padding: Padding = "same"
    dilation: Positive = 1
    bias: bool = False


class FixedConvolution(Part):
    """Given kernels, never learned, each over each channel alone: a depth of channels times kernels.

    A kernel is named or is rows of numbers, laid over the image as it is written, not turned.
    """

    layer: Literal["fixed_convolution"]
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)]
    stride: Positive = 1
    padding: Padding = "same"
    dilation: Positive = 1

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The numbers of every kernel."""
        return tuple(FIXED_KERNELS[kernel] if isinstance(kernel, str) else kernel for kernel in self.kernels)

    @model_validator(mode="after")
    def has_kernels_of_one_size(self) -> "FixedConvolution":
        """Refuse kernels that cannot be laid over the image together."""
        if len({(len(matrix), len(matrix[0])) for matrix in self.matrices}) > 1:
            raise ValueError("kernels of one size; list the others in a layer of their own")
        return self


class BatchNormalization(Part):
    layer: Literal["batch_normalization"]


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


class Activation(Part):
    """`gelu` is the approximation by tanh: exact, it has no ONNX op in the opsets exported."""

    layer: Literal["activation"]
    function: ActivationFunction = "relu"


class Pooling(Part):
    """Without `stride`, windows lie side by side."""

    layer: Literal["max_pooling", "average_pooling"]
    size: Size = 2
    stride: Size | None = None
    padding: Literal["valid", "same"] = "valid"


class GlobalPooling(Part):
    layer: Literal["global_average_pooling", "global_max_pooling"]


class Dropout(Part):
    layer: Literal["dropout"]
    rate: Fraction


class Flatten(Part):
    layer: Literal["flatten"]


class Dense(Part):
    """`units: classes` stands for the number of classes the dataset has."""

    layer: Literal["dense"]
    units: Positive | Literal["classes"]


class Softmax(Part):
    layer: Literal["softmax"]


SimpleLayer = (
    Convolution
    | DepthwiseConvolution
    | SeparableConvolution
    | FixedConvolution
    | BatchNormalization
    | Activation
    | Pooling
    | GlobalPooling
    | Dropout
    | Flatten
    | Dense
    | Softmax
)


class Residual(Part):
    """A branch of layers whose output is added to what a shortcut makes of its input.

    The shortcut `projection` is a 1x1 convolution with the branch's stride, and batch normalisation;
    `identity` changes nothing, and `auto` is the identity where the branch keeps the volume. He et al.,
    "Deep Residual Learning for Image Recognition" (2016), section 3.3, options A and B.
    """

    layer: Literal["residual"]
    layers: Annotated[tuple[Annotated[SimpleLayer, Field(discriminator="layer")], ...], Field(min_length=1)]
    shortcut: Literal["auto", "identity", "projection"] = "auto"
    activation: ActivationFunction | None = "relu"


class Application(Part):
    """A network of `keras.applications` without its top, by its name there; it must come first.

    It scales pixels as its authors did. Those that ONNX cannot express are not offered. `weights`: none,
    `imagenet`, which Keras downloads, or a file of weights without the top. Of its layers, in Keras's
    order, the first `frozen_layers` stay as they are.
    """

    layer: Literal["application"]
    name: ApplicationName
    weights: str | None = None
    frozen_layers: Annotated[int, Field(ge=0, strict=True)] | Literal["all"] = 0


Layer = Annotated[SimpleLayer | Residual | Application, Field(discriminator="layer")]

FIXED_KERNELS: dict[KernelName, Matrix] = {
    "sobel_x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "sobel_y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "scharr_x": ((-3, 0, 3), (-10, 0, 10), (-3, 0, 3)),
    "scharr_y": ((-3, -10, -3), (0, 0, 0), (3, 10, 3)),
}


class ModelSpec(Part):
    """The network, from the image to the probabilities.

    Pixels reach the first layer divided by 255, unless that is an application.
    """

    layers: Annotated[tuple[Layer, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def ends_in_probabilities(self) -> "ModelSpec":
        """Refuse a network whose output is anything but probabilities."""
        dense, softmax = self.layers[-2:]
        if not (isinstance(dense, Dense) and isinstance(softmax, Softmax)):
            raise ValueError("the last two layers must be dense and softmax")
        return self
