"""What happens inside a trained Keras network for a few images: kernels, feature maps, logits.

Everything is read from the saved model, on the CPU in float32. To be run in a separate process.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.images import Pixels

Values = npt.NDArray[np.float32]
MapKind = Literal["convolution", "activation", "pooling", "sum"]
Reader = Callable[[Pixels | Values], list[Values]]
KernelKind = Literal["convolution", "depthwise", "separable", "dense"]

# The kind of each operation whose output is shown, by the name of its class in Keras.
_KINDS: dict[str, MapKind] = {
    **dict.fromkeys(("Conv2D", "DepthwiseConv2D", "SeparableConv2D"), "convolution"),
    **dict.fromkeys(("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Gelu"), "activation"),
    **dict.fromkeys(("MaxPooling2D", "AveragePooling2D"), "pooling"),
    "Add": "sum",
}
_WITH_KERNELS: dict[str, KernelKind] = {
    "Conv2D": "convolution",
    "DepthwiseConv2D": "depthwise",
    "SeparableConv2D": "separable",
    "Dense": "dense",
}


@dataclass(frozen=True)
class MapLayer:
    """An operation of a network whose output keeps positions.

    Attributes:
        name: Its name in Keras, which begins with its position in the recipe.
        kind: What it does.
        nested: The name of the application that contains it, or None.
    """

    name: str
    kind: MapKind
    nested: str | None = None


@dataclass(frozen=True)
class FeatureMaps:
    """The output of one layer for several images.

    Attributes:
        layer: The layer.
        values: The first channels, float32 [images, height, width, channels shown].
        channels: Number of all channels.
    """

    layer: MapLayer
    values: Values
    channels: int


@dataclass(frozen=True)
class Kernels:
    """The kernels of one layer.

    Attributes:
        name: The layer's name in Keras.
        kind: `convolution`: one kernel for each filter, over all input channels; `depthwise` and
            `separable`: over one input channel; `dense`: the weights of a unit, arranged as the image.
        is_trained: Whether training changed them.
        values: The first kernels, float32 [height, width, input channels, kernels shown].
        total: Number of all kernels.
    """

    name: str
    kind: KernelKind
    is_trained: bool
    values: Values
    total: int


def list_map_layers(network: Any) -> list[MapLayer]:
    """The convolutions, activations, poolings and sums of a network, in the order of computation."""
    return [
        MapLayer(operation.name, _KINDS[type(operation).__name__], outer and outer.name)
        for operation, outer in _operations(network)
        if type(operation).__name__ in _KINDS and len(operation.output.shape) == 4
    ]


def record_maps(network: Any, layers: Sequence[MapLayer], pixels: Pixels, channels: int) -> list[FeatureMaps]:
    """Compute the outputs of layers.

    Args:
        network: A Keras model, as `load_model` returns it.
        layers: Some of `list_map_layers`.
        pixels: The images, uint8 [images, height, width, channels].
        channels: Number of channels to return of each layer.
    """
    outer = [layer for layer in layers if layer.nested is None]
    inner = [layer for layer in layers if layer.nested is not None]
    readers = [(outer, reader(network, [_named(network, each.name).output for each in outer]))]
    if inner:
        application, given = _input_of_application(network)
        enter = reader(network, [given])
        of_application = reader(application, [_named(application, each.name).output for each in inner])
        readers.append((inner, lambda image: of_application(enter(image)[0])))
    # One image at a time, because Keras keeps the output of every layer until the last one is computed.
    found: dict[MapLayer, list[Values]] = {layer: [] for layer in layers}
    for at in range(len(pixels)):
        for some, read in readers:
            for layer, values in zip(some, read(pixels[at : at + 1]), strict=True):
                found[layer].append(values)
    return [
        FeatureMaps(layer, np.concatenate(values)[..., :channels], values[0].shape[-1])
        for layer, values in found.items()
    ]


def read_kernels(network: Any, count: int) -> list[Kernels]:
    """The kernels of the first layer that has any, and, if those are not trained, of the first trained one.

    A dense layer counts if it takes the flattened image.

    Args:
        network: A Keras model.
        count: Number of kernels to return of each layer.
    """
    found: list[Kernels] = []
    for operation, _ in _operations(network):
        kernels = _kernels_of(operation, network.inputs[0].shape[1:], count)
        if kernels is not None and (kernels.is_trained or not found):
            found.append(kernels)
        if found and found[-1].is_trained:
            break
    return found


def predict_logits(network: Any, pixels: Pixels) -> Values:
    """The outputs before the softmax, float32 [images, classes].

    Raises:
        ValueError: The network does not end in a softmax layer.
    """
    last = network.operations[-1]
    if type(last).__name__ != "Softmax":
        raise ValueError(f"the last layer is {last.name}, not a softmax")
    return reader(network, [last.input])(pixels)[0]


def reader(network: Any, tensors: Sequence[Any]) -> Reader:
    """A function from the inputs of a network to the values of its symbolic tensors, in inference mode."""
    import keras

    if not tensors:
        return lambda inputs: []
    model = keras.Model(network.inputs, list(tensors))

    def read(inputs: Pixels | Values) -> list[Values]:
        # For a single tensor, Keras returns no list.
        found = keras.tree.flatten(model([inputs], training=False))
        return [keras.ops.convert_to_numpy(value).astype(np.float32) for value in found]

    return read


def _input_of_application(network: Any) -> tuple[Any, Any]:
    """The nested network, and the tensor that it is applied to."""
    import keras

    operations = network.operations
    at = next(at for at, operation in enumerate(operations) if isinstance(operation, keras.Model))
    # Only preprocessing precedes an application, as a chain.
    return operations[at], operations[at - 1].output


def _operations(network: Any) -> Iterator[tuple[Any, Any]]:
    """Every operation with the application that contains it, or None."""
    import keras

    for operation in network.operations:
        if isinstance(operation, keras.Model):
            yield from ((inner, operation) for inner in operation.operations)
        else:
            yield operation, None


def _named(network: Any, name: str) -> Any:
    return next(operation for operation in network.operations if operation.name == name)


def _kernels_of(operation: Any, image: tuple[int, ...], count: int) -> Kernels | None:
    import keras

    kind = _WITH_KERNELS.get(type(operation).__name__)
    if kind is None:
        return None
    kernel = operation.depthwise_kernel if kind == "separable" else operation.kernel
    values = keras.ops.convert_to_numpy(kernel).astype(np.float32)
    if kind == "dense":
        if len(values) != np.prod(image):
            return None
        values = values.reshape(*image, -1)
    elif kind != "convolution":
        # [height, width, channels, multiplier]: output channel c * multiplier + m belongs to channel c.
        values = values.reshape(*values.shape[:2], 1, -1)
    return Kernels(operation.name, kind, bool(operation.trainable), values[..., :count], values.shape[-1])
