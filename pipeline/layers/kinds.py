"""The table of all layers: how each changes the shape, and how Keras builds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from pixelmill.pipeline.config.layers import (
    Activation,
    Application,
    BatchNormalization,
    Convolution,
    Dense,
    DepthwiseConvolution,
    Dropout,
    FixedConvolution,
    Flatten,
    GlobalPooling,
    Layer,
    Pooling,
    Residual,
    SeparableConvolution,
    SimpleLayer,
    Softmax,
)
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers import arithmetic, keras_layers
from pixelmill.pipeline.layers.applications import build_application, trace_application
from pixelmill.pipeline.layers.arithmetic import Step
from pixelmill.pipeline.layers.features import Features, LayerSummary, Trace, describe_volume
from pixelmill.pipeline.layers.windows import Window, enclose


@dataclass(frozen=True)
class Kind:
    """The functions for a kind of layer.

    Attributes:
        trace: Takes the layer, its input features, the number of classes and the position in the recipe;
            returns rows for the summary, and the output features.
        build: Takes Keras, the layer, a Keras tensor, the number of classes and the position; returns the
            output tensor.
    """

    trace: Callable[[Any, Features, int, str], Trace]
    build: Callable[[Any, Any, Any, int, str], Any]


def trace_layers(layers: Sequence[Layer], features: Features, classes: int, prefix: str = "") -> Trace:
    """Summarize a sequence of layers.

    Raises:
        RequestError: A layer does not accept its input.
    """
    rows: list[LayerSummary] = []
    for index, layer in enumerate(layers):
        more, features = KINDS[type(layer)].trace(layer, features, classes, f"{prefix}{index}")
        rows += more
    return rows, features


def build_layers(keras: Any, layers: Sequence[Layer], tensor: Any, classes: int, prefix: str = "") -> Any:
    """Apply layers to a Keras tensor; each Keras layer's name begins with its position in the recipe."""
    for index, layer in enumerate(layers):
        tensor = KINDS[type(layer)].build(keras, layer, tensor, classes, f"{prefix}{index}")
    return tensor


def _simple(
    step: Callable[[Any, int, int], Step],
    keras_layers_of: Callable[[Any, Any, int, str], list[Any]],
    takes: Literal["volume", "flat", "either"] = "either",
) -> Kind:
    def trace(layer: SimpleLayer, features: Features, classes: int, position: str) -> Trace:
        _check_volume(layer, features, takes, position)
        return _trace_step(layer, features, step(layer, features.volume[-1], classes), position)

    def build(keras: Any, layer: SimpleLayer, tensor: Any, classes: int, position: str) -> Any:
        for keras_layer in keras_layers_of(keras, layer, classes, _name(position, layer.layer)):
            tensor = keras_layer(tensor)
        return tensor

    return Kind(trace, build)


def _trace_step(layer: SimpleLayer, features: Features, step: Step, position: str) -> Trace:
    window = step.window or Window(features.grid)
    _check_window(layer, features, window, position)
    grid = window.places(features.grid)
    if step.depth is None:
        volume: tuple[int, ...] = (prod(features.volume),)
    elif step.window is None or features.is_flat:
        volume = (step.depth,)
    else:
        volume = (*grid, step.depth)
    field = features.field and features.field.through(window, features.grid)
    shares = step.window is not None and step.weights
    biases = prod(volume) if step.offsets else 0
    row = LayerSummary(
        position=position,
        layer=layer.layer,
        settings=_settings(layer),
        output=volume,
        parameters=step.weights + step.offsets,
        multiply_adds=step.weights * prod(grid),
        field=field,
        fully_connected=prod(features.volume) * prod(volume) + biases if shares else None,
    )
    return [row], Features(volume, grid, field)


def _trace_residual(layer: Residual, features: Features, classes: int, position: str) -> Trace:
    rows, branch = trace_layers(layer.layers, features, classes, f"{position}.")
    layers = _shortcut(layer, features.volume, branch.volume)
    more, shortcut = trace_layers(layers, features, classes, f"{position}.shortcut.")
    if shortcut.volume != branch.volume:
        raise RequestError(
            f"model.layers.{position} (residual) adds {describe_volume(branch.volume)} from its branch to "
            f"{describe_volume(shortcut.volume)} from its shortcut",
            "equal volumes",
            "Keep the size of the branch with `padding: same`, or set `shortcut: projection`.",
        )
    field = None
    if branch.field is not None and shortcut.field is not None:
        field = enclose(branch.field, shortcut.field)
    row = LayerSummary(position, layer.layer, _settings(layer), branch.volume, 0, 0, field, None)
    return [*rows, *more, row], Features(branch.volume, branch.grid, field)


def _build_residual(keras: Any, layer: Residual, tensor: Any, classes: int, position: str) -> Any:
    branch = build_layers(keras, layer.layers, tensor, classes, f"{position}.")
    layers = _shortcut(layer, tensor.shape[1:], branch.shape[1:])
    shortcut = build_layers(keras, layers, tensor, classes, f"{position}.shortcut.")
    total = keras.layers.Add(name=_name(position, layer.layer))([branch, shortcut])
    if layer.activation is None:
        return total
    after = Activation(layer="activation", function=layer.activation)
    return KINDS[Activation].build(keras, after, total, classes, position)


def _shortcut(layer: Residual, volume: Sequence[int], branch: Sequence[int]) -> tuple[SimpleLayer, ...]:
    """The layers of the shortcut of a block, given its input volume and the output volume of its branch."""
    equal = tuple(volume) == tuple(branch)
    if layer.shortcut == "identity" or (layer.shortcut == "auto" and equal) or len(branch) == 1:
        return ()
    stride = -(-volume[0] // branch[0])
    return (
        Convolution(layer="convolution", filters=branch[-1], kernel_size=1, stride=stride),
        BatchNormalization(layer="batch_normalization"),
    )


def _check_volume(layer: Layer, features: Features, takes: str, position: str) -> None:
    volume = describe_volume(features.volume)
    if takes == "flat" and not features.is_flat:
        raise RequestError(
            f"model.layers.{position} ({layer.layer}) gets the volume {volume}",
            "a flat volume",
            "Put global_average_pooling or flatten before it.",
        )
    if takes == "volume" and features.is_flat:
        raise RequestError(
            f"model.layers.{position} ({layer.layer}) gets the flat volume {volume}",
            "height x width x depth",
            "Move it before the layer that flattens.",
        )


def _check_window(layer: Layer, features: Features, window: Window, position: str) -> None:
    name = f"model.layers.{position} ({layer.layer})"
    if window.dilation > 1 and max(window.stride) > 1:
        raise RequestError(
            f"{name} has stride {window.stride[0]} and dilation {window.dilation}",
            "at least one of them to be 1",
            "Move the stride to a separate layer.",
        )
    if min(window.places(features.grid)) < 1:
        span = describe_volume(window.span)
        raise RequestError(
            f"{name} of size {span} gets the volume {describe_volume(features.volume)}",
            f"at least {span} pixels",
            "Remove a pooling layer or `valid` padding before it, or use larger images.",
        )


def _settings(layer: Layer) -> str:
    """The settings of a layer as text, without its kind and inner layers; defaults only if there are few."""
    many = len(type(layer).model_fields) > 2
    settings = layer.model_dump(mode="json", exclude_defaults=many, exclude={"layer", "layers"})
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _name(position: str, layer: str) -> str:
    return f"{position.replace('.', '_')}_{layer}"


KINDS: dict[type[Layer], Kind] = {
    Convolution: _simple(arithmetic.convolution, keras_layers.convolution, takes="volume"),
    DepthwiseConvolution: _simple(
        arithmetic.depthwise_convolution, keras_layers.depthwise_convolution, takes="volume"
    ),
    SeparableConvolution: _simple(
        arithmetic.separable_convolution, keras_layers.separable_convolution, takes="volume"
    ),
    FixedConvolution: _simple(arithmetic.fixed_convolution, keras_layers.fixed_convolution, takes="volume"),
    BatchNormalization: _simple(arithmetic.batch_normalization, keras_layers.batch_normalization),
    Activation: _simple(arithmetic.unchanged, keras_layers.activation),
    Pooling: _simple(arithmetic.pooling, keras_layers.pooling, takes="volume"),
    GlobalPooling: _simple(arithmetic.global_pooling, keras_layers.global_pooling, takes="volume"),
    Dropout: _simple(arithmetic.unchanged, keras_layers.dropout),
    Flatten: _simple(arithmetic.flatten, keras_layers.flatten),
    Dense: _simple(arithmetic.dense, keras_layers.dense, takes="flat"),
    Softmax: _simple(arithmetic.unchanged, keras_layers.softmax),
    Residual: Kind(_trace_residual, _build_residual),
    Application: Kind(trace_application, build_application),
}
