"""The output depth, window and parameters of each simple layer.

The table of all layers is in `pixelmill.pipeline.layers.kinds`.
"""

from dataclasses import dataclass
from math import prod

from pixelmill.pipeline.config.layers import (
    Convolution,
    Dense,
    DepthwiseConvolution,
    FixedConvolution,
    Pooling,
    SeparableConvolution,
    SimpleLayer,
    Size,
)
from pixelmill.pipeline.layers.windows import POINTWISE, Pair, Window


@dataclass(frozen=True)
class Step:
    """The computation of a simple layer.

    Attributes:
        depth: Depth of its output; None if it flattens its input.
        window: The window for one position of the output; None if it covers the whole input, which gives a
            flat output.
        weights: Number of weights, each used once per position.
        offsets: Number of other parameters: biases, and those of batch normalization.
    """

    depth: int | None
    window: Window | None = POINTWISE
    weights: int = 0
    offsets: int = 0


def convolution(layer: Convolution, depth: int, classes: int) -> Step:
    """Every filter has a kernel over the full depth."""
    weights = prod(pair(layer.kernel_size)) * depth * layer.filters
    return Step(layer.filters, sliding(layer), weights, layer.filters if layer.bias else 0)


def depthwise_convolution(layer: DepthwiseConvolution, depth: int, classes: int) -> Step:
    """Every channel has its own `multiplier` kernels."""
    output = depth * layer.multiplier
    weights = prod(pair(layer.kernel_size)) * output
    return Step(output, sliding(layer), weights, output if layer.bias else 0)


def separable_convolution(layer: SeparableConvolution, depth: int, classes: int) -> Step:
    """A depthwise convolution without bias, then a 1x1 filter for each output channel."""
    between = depth * layer.multiplier
    weights = prod(pair(layer.kernel_size)) * between + between * layer.filters
    return Step(layer.filters, sliding(layer), weights, layer.filters if layer.bias else 0)


def fixed_convolution(layer: FixedConvolution, depth: int, classes: int) -> Step:
    """A depthwise convolution with the same kernels for every channel, stored for each channel."""
    window = sliding(layer)
    output = depth * len(layer.kernels)
    return Step(output, window, prod(window.kernel) * output)


def batch_normalization(layer: SimpleLayer, depth: int, classes: int) -> Step:
    """A scale, an offset, a mean and a variance for each channel."""
    return Step(depth, offsets=4 * depth)


def pooling(layer: Pooling, depth: int, classes: int) -> Step:
    """A window over each channel."""
    stride = pair(layer.size if layer.stride is None else layer.stride)
    return Step(depth, Window(pair(layer.size), stride, padding=layer.padding))


def global_pooling(layer: SimpleLayer, depth: int, classes: int) -> Step:
    """One value per channel."""
    return Step(depth, window=None)


def unchanged(layer: SimpleLayer, depth: int, classes: int) -> Step:
    """Elementwise layers without parameters: activation, dropout, softmax."""
    return Step(depth)


def flatten(layer: SimpleLayer, depth: int, classes: int) -> Step:
    """All values as a vector."""
    return Step(depth=None)


def dense(layer: Dense, depth: int, classes: int) -> Step:
    """Every output has a weight for each input, and a bias."""
    units = classes if layer.units == "classes" else layer.units
    return Step(units, None, depth * units, units)


def sliding(
    layer: Convolution | DepthwiseConvolution | SeparableConvolution | FixedConvolution,
) -> Window:
    """The window of a convolution."""
    if isinstance(layer, FixedConvolution):
        kernel = len(layer.matrices[0]), len(layer.matrices[0][0])
    else:
        kernel = pair(layer.kernel_size)
    return Window(kernel, (layer.stride, layer.stride), layer.dilation, layer.padding)


def pair(size: Size) -> Pair:
    """A size as [height, width]; a single number is the side of a square."""
    return (size, size) if isinstance(size, int) else size
