"""What each simple layer does to the depth that reaches it, in numbers.

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
from pixelmill.pipeline.layers.windows import EACH_PLACE, Pair, Window


@dataclass(frozen=True)
class Step:
    """A simple layer's work.

    Attributes:
        depth: Of its output; None where that is all the numbers that come in, flattened.
        window: What it looks at for one place of its output; None for the whole grid at once, which
            leaves a flat volume.
        weights: Numbers it multiplies inputs with, all of them once a place.
        offsets: Numbers it holds besides: biases, and what a normalisation keeps.
    """

    depth: int | None
    window: Window | None = EACH_PLACE
    weights: int = 0
    offsets: int = 0


def convolution(layer: Convolution, depth: int, classes: int) -> Step:
    """Every filter has a kernel over the whole depth."""
    weights = prod(pair(layer.kernel_size)) * depth * layer.filters
    return Step(layer.filters, sliding(layer), weights, layer.filters if layer.bias else 0)


def depthwise_convolution(layer: DepthwiseConvolution, depth: int, classes: int) -> Step:
    """Every channel has `multiplier` kernels of its own."""
    output = depth * layer.multiplier
    weights = prod(pair(layer.kernel_size)) * output
    return Step(output, sliding(layer), weights, output if layer.bias else 0)


def separable_convolution(layer: SeparableConvolution, depth: int, classes: int) -> Step:
    """A depthwise convolution without bias, then a filter for each channel of the output."""
    between = depth * layer.multiplier
    weights = prod(pair(layer.kernel_size)) * between + between * layer.filters
    return Step(layer.filters, sliding(layer), weights, layer.filters if layer.bias else 0)


def fixed_convolution(layer: FixedConvolution, depth: int, classes: int) -> Step:
    """A depthwise convolution whose kernels are the same for every channel, and kept for each."""
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
    """One number for each channel."""
    return Step(depth, window=None)


def unchanged(layer: SimpleLayer, depth: int, classes: int) -> Step:
    """Each number for itself: activation, dropout, softmax."""
    return Step(depth)


def flatten(layer: SimpleLayer, depth: int, classes: int) -> Step:
    """The same numbers in a row."""
    return Step(depth=None)


def dense(layer: Dense, depth: int, classes: int) -> Step:
    """Every output has a weight for each input, and a bias."""
    units = classes if layer.units == "classes" else layer.units
    return Step(units, None, depth * units, units)


def sliding(
    layer: Convolution | DepthwiseConvolution | SeparableConvolution | FixedConvolution,
) -> Window:
    """The window of a layer that slides kernels."""
    if isinstance(layer, FixedConvolution):
        kernel = len(layer.matrices[0]), len(layer.matrices[0][0])
    else:
        kernel = pair(layer.kernel_size)
    return Window(kernel, (layer.stride, layer.stride), layer.dilation, layer.padding)


def pair(size: Size) -> Pair:
    """[height, width] of a size that may be a square's."""
    return (size, size) if isinstance(size, int) else size
