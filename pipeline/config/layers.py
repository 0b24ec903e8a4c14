"""The layers of a recipe; `pixelmill.pipeline.layers` implements them."""

import math
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from pixelmill.pipeline.config.part import Fraction, Part, Positive, Text

Padding = Annotated[
    Literal["valid", "same", "full"],
    Field(
        description="Zero padding of the input: valid adds none, same keeps the size at stride 1, full adds "
        "enough for the kernel to overlap the input by a single pixel at the corners."
    ),
]
Stride = Annotated[Positive, Field(description="Step of the kernel, in pixels.")]
Dilation = Annotated[Positive, Field(description="Spacing of the kernel's elements; 1 leaves no gaps.")]
Bias = Annotated[bool, Field(description="Whether the layer has a bias.")]
Multiplier = Annotated[Positive, Field(description="Number of kernels per channel.")]
Filters = Annotated[Positive, Field(description="Number of filters, which is the number of output channels.")]

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
        raise ValueError(f"one of {', '.join(get_args(KernelName))}, or rows of numbers of equal length")
    return value


Size = Annotated[int | tuple[int, int], BeforeValidator(_check_size)]
"""The side of a square in pixels, or [height, width]."""
KernelSize = Annotated[Size, Field(description="Side of a square kernel, or [height, width], in pixels.")]
Kernel = Annotated[KernelName | Matrix, BeforeValidator(_check_kernel)]


class Convolution(Part):
    """A 2D convolution."""

    layer: Literal["convolution"]
    filters: Filters
    kernel_size: KernelSize
    stride: Stride = 1
    padding: Padding = "same"
    dilation: Dilation = 1
    bias: Bias = False


class DepthwiseConvolution(Part):
    """A depthwise convolution: each channel is convolved with its own kernels."""

    layer: Literal["depthwise_convolution"]
    kernel_size: KernelSize
    multiplier: Multiplier = 1
    stride: Stride = 1
    padding: Padding = "same"
    dilation: Dilation = 1
    bias: Bias = False


class SeparableConvolution(Part):
    """A depthwise convolution followed by a 1x1 convolution that mixes the channels."""

    layer: Literal["separable_convolution"]
    filters: Filters
    kernel_size: KernelSize
    multiplier: Multiplier = 1
    stride: Stride = 1
    padding: Padding = "same"
    dilation: Dilation = 1
    bias: Bias = False


class FixedConvolution(Part):
    """Fixed kernels that are not trained, each applied to each channel: channels x kernels outputs."""

    layer: Literal["fixed_convolution"]
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)] = Field(
        description="Names, or rows of numbers, applied by cross-correlation (not flipped)."
    )
    stride: Stride = 1
    padding: Padding = "same"
    dilation: Dilation = 1

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The values of every kernel."""
        return tuple(FIXED_KERNELS[kernel] if isinstance(kernel, str) else kernel for kernel in self.kernels)

    @model_validator(mode="after")
    def has_kernels_of_one_size(self) -> "FixedConvolution":
        """Require kernels of the same size."""
        if len({(len(matrix), len(matrix[0])) for matrix in self.matrices}) > 1:
            raise ValueError("kernels of one size; put the others in a separate layer")
        return self


class BatchNormalization(Part):
    """Batch normalization over each channel."""

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
    """An elementwise activation function."""

    layer: Literal["activation"]
    function: ActivationFunction = Field(
        default="relu",
        description="gelu is the tanh approximation: the supported ONNX opsets have no op for the exact one.",
    )


class Pooling(Part):
    """The maximum or mean of each window."""

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


class GlobalPooling(Part):
    """The maximum or mean of each channel."""

    layer: Literal["global_average_pooling", "global_max_pooling"]


class Dropout(Part):
    """Sets random values to zero, in training only."""

    layer: Literal["dropout"]
    rate: Fraction = Field(description="Share of the values set to zero.")


class Flatten(Part):
    """Flattens the input to a vector."""

    layer: Literal["flatten"]


class Dense(Part):
    """A fully connected layer."""

    layer: Literal["dense"]
    units: Positive | Literal["classes"] = Field(
        description="Number of outputs; classes: one for each class of the dataset."
    )


class Softmax(Part):
    """Converts the outputs to probabilities that sum to 1."""

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
    """A branch of layers whose output is added to the block's input.

    He et al., "Deep Residual Learning for Image Recognition" (2016), section 3.3, options A and B.
    """

    layer: Literal["residual"]
    layers: Annotated[
        tuple[Annotated[SimpleLayer, Field(discriminator="layer")], ...], Field(min_length=1)
    ] = Field(description="The layers of the branch.")
    shortcut: Literal["auto", "identity", "projection"] = Field(
        default="auto",
        description="identity adds the input unchanged; projection applies a 1x1 convolution with the "
        "branch's stride and batch normalization; auto is identity if the branch keeps the shape.",
    )
    activation: ActivationFunction | None = Field(default="relu", description="Applied to the sum.")


class Application(Part):
    """A network of `keras.applications` without its top; it must be the first layer.

    Pixels are preprocessed as by its authors. Networks that ONNX cannot express are not available.
    """

    layer: Literal["application"]
    name: ApplicationName = Field(description="The name in keras.applications.")
    weights: Text | None = Field(
        default=None,
        description="null: random; imagenet: downloaded by Keras; or the path of a weights file without the "
        "top.",
    )
    frozen_layers: Annotated[int, Field(ge=0, strict=True)] | Literal["all"] = Field(
        default=0, description="Number of layers to freeze, counted from the first in the order of Keras."
    )


Layer = Annotated[SimpleLayer | Residual | Application, Field(discriminator="layer")]

FIXED_KERNELS: dict[KernelName, Matrix] = {
    "sobel_x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "sobel_y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "scharr_x": ((-3, 0, 3), (-10, 0, 10), (-3, 0, 3)),
    "scharr_y": ((-3, -10, -3), (0, 0, 0), (3, 10, 3)),
}


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
            raise ValueError("the last two layers must be dense and softmax")
        return self
