"""Convolutions: each output is a weighted sum of a window of its input."""

import math
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from pixelmill.pipeline.layers.layer import SimpleLayerSpec, Step
from pixelmill.pipeline.layers.windows import Padding, Size, Window, pair
from pixelmill.pipeline.part import Positive

PaddingField = Annotated[
    Padding,
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
KernelSize = Annotated[Size, Field(description="Side of a square kernel, or [height, width], in pixels.")]

KernelName = Literal["sobel_x", "sobel_y", "scharr_x", "scharr_y"]
Matrix = tuple[tuple[float, ...], ...]

FIXED_KERNELS: dict[KernelName, Matrix] = {
    "sobel_x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "sobel_y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "scharr_x": ((-3, 0, 3), (-10, 0, 10), (-3, 0, 3)),
    "scharr_y": ((-3, -10, -3), (0, 0, 0), (3, 10, 3)),
}


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


Kernel = Annotated[KernelName | Matrix, BeforeValidator(_check_kernel)]


class Convolution(SimpleLayerSpec):
    """A 2D convolution."""

    takes: ClassVar = "volume"

    layer: Literal["convolution"]
    filters: Filters
    kernel_size: KernelSize
    stride: Stride = 1
    padding: PaddingField = "same"
    dilation: Dilation = 1
    bias: Bias = False

    def step(self, depth: int, classes: int) -> Step:
        """Every filter has a kernel over the full depth."""
        weights = math.prod(pair(self.kernel_size)) * depth * self.filters
        return Step(self.filters, _window(self), weights, self.filters if self.bias else 0)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.Conv2D` with He initialization."""
        import keras

        convolution = keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            use_bias=self.bias,
            kernel_initializer="he_normal",
            name=name,
            **_sliding(self),
        )
        return [*_full_padding(self, name), convolution]


class DepthwiseConvolution(SimpleLayerSpec):
    """A depthwise convolution: each channel is convolved with its own kernels."""

    takes: ClassVar = "volume"

    layer: Literal["depthwise_convolution"]
    kernel_size: KernelSize
    multiplier: Multiplier = 1
    stride: Stride = 1
    padding: PaddingField = "same"
    dilation: Dilation = 1
    bias: Bias = False

    def step(self, depth: int, classes: int) -> Step:
        """Every channel has its own `multiplier` kernels."""
        output = depth * self.multiplier
        weights = math.prod(pair(self.kernel_size)) * output
        return Step(output, _window(self), weights, output if self.bias else 0)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.DepthwiseConv2D` with He initialization."""
        import keras

        convolution = keras.layers.DepthwiseConv2D(
            self.kernel_size,
            depth_multiplier=self.multiplier,
            use_bias=self.bias,
            depthwise_initializer="he_normal",
            name=name,
            **_sliding(self),
        )
        return [*_full_padding(self, name), convolution]


class SeparableConvolution(SimpleLayerSpec):
    """A depthwise convolution followed by a 1x1 convolution that mixes the channels."""

    takes: ClassVar = "volume"

    layer: Literal["separable_convolution"]
    filters: Filters
    kernel_size: KernelSize
    multiplier: Multiplier = 1
    stride: Stride = 1
    padding: PaddingField = "same"
    dilation: Dilation = 1
    bias: Bias = False

    def step(self, depth: int, classes: int) -> Step:
        """A depthwise convolution without bias, then a 1x1 filter for each output channel."""
        between = depth * self.multiplier
        weights = math.prod(pair(self.kernel_size)) * between + between * self.filters
        return Step(self.filters, _window(self), weights, self.filters if self.bias else 0)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.SeparableConv2D` with He initialization."""
        import keras

        convolution = keras.layers.SeparableConv2D(
            self.filters,
            self.kernel_size,
            depth_multiplier=self.multiplier,
            use_bias=self.bias,
            depthwise_initializer="he_normal",
            pointwise_initializer="he_normal",
            name=name,
            **_sliding(self),
        )
        return [*_full_padding(self, name), convolution]


class FixedConvolution(SimpleLayerSpec):
    """Fixed kernels that are not trained, each applied to each channel: channels x kernels outputs."""

    takes: ClassVar = "volume"

    layer: Literal["fixed_convolution"]
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)] = Field(
        description="Names, or rows of numbers, applied by cross-correlation (not flipped)."
    )
    stride: Stride = 1
    padding: PaddingField = "same"
    dilation: Dilation = 1

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The values of every kernel."""
        return tuple(FIXED_KERNELS[kernel] if isinstance(kernel, str) else kernel for kernel in self.kernels)

    @property
    def kernel_size(self) -> Size:
        """Height and width of the kernels, in pixels."""
        return len(self.matrices[0]), len(self.matrices[0][0])

    @model_validator(mode="after")
    def has_kernels_of_one_size(self) -> "FixedConvolution":
        """Require kernels of the same size."""
        if len({(len(matrix), len(matrix[0])) for matrix in self.matrices}) > 1:
            raise ValueError("kernels of one size; put the others in a separate layer")
        return self

    def step(self, depth: int, classes: int) -> Step:
        """A depthwise convolution with the same kernels for every channel, stored for each channel."""
        output = depth * len(self.kernels)
        return Step(output, _window(self), math.prod(pair(self.kernel_size)) * output)

    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """`keras.layers.DepthwiseConv2D` with the given kernels, not trainable."""
        import keras
        import numpy as np

        kernels = np.stack([np.array(matrix, np.float32) for matrix in self.matrices], axis=-1)
        convolution = keras.layers.DepthwiseConv2D(
            self.kernel_size,
            depth_multiplier=len(self.kernels),
            use_bias=False,
            depthwise_initializer=keras.initializers.Constant(kernels[:, :, np.newaxis, :]),
            trainable=False,
            name=name,
            **_sliding(self),
        )
        return [*_full_padding(self, name), convolution]


_Any = Convolution | DepthwiseConvolution | SeparableConvolution | FixedConvolution


def _window(layer: _Any) -> Window:
    return Window(pair(layer.kernel_size), (layer.stride, layer.stride), layer.dilation, layer.padding)


def _sliding(layer: _Any) -> dict[str, object]:
    padding = "valid" if layer.padding == "full" else layer.padding
    return {"strides": layer.stride, "dilation_rate": layer.dilation, "padding": padding}


def _full_padding(layer: _Any, name: str) -> list[Any]:
    """A layer for `full` padding, which Keras does not offer."""
    import keras

    if layer.padding != "full":
        return []
    height, width = _window(layer).span
    return [keras.layers.ZeroPadding2D((height - 1, width - 1), name=f"{name}_padding")]
