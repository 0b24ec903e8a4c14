"""What every layer of a recipe is: its fields, its effect on the shape, and how Keras builds it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.features import Features, LayerSummary, Trace, Volume, describe_volume
from pixelmill.pipeline.layers.windows import POINTWISE, Window
from pixelmill.pipeline.part import Part


class LayerSpec(Part, ABC):
    """A layer of a recipe."""

    layer: str

    @abstractmethod
    def trace(self, features: Features, classes: int, position: str) -> Trace:
        """Summarize the layer.

        Args:
            features: Its input.
            classes: Number of classes of the dataset.
            position: Its index in the recipe: `3`, or `3.0` for the first layer of the block at 3.

        Raises:
            RequestError: The layer does not accept its input.
        """

    @abstractmethod
    def build(self, tensor: Any, classes: int, position: str) -> Any:
        """Apply the layer to a Keras tensor; the names of its Keras layers begin with its position."""

    @property
    def settings(self) -> str:
        """The settings as text, without the kind and inner layers; defaults only if there are few."""
        many = len(type(self).model_fields) > 2
        settings = self.model_dump(mode="json", exclude_defaults=many, exclude={"layer", "layers"})
        return ", ".join(f"{key} {value}" for key, value in settings.items())

    def name_at(self, position: str) -> str:
        """The name in Keras: `3_0_convolution` for the position `3.0`."""
        return f"{position.replace('.', '_')}_{self.layer}"


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


class SimpleLayerSpec(LayerSpec):
    """A layer that is a sequence of Keras layers.

    Attributes:
        takes: Its input: `volume` is height x width x depth, `flat` a vector.
    """

    takes: ClassVar[Literal["volume", "flat", "either"]] = "either"

    @abstractmethod
    def step(self, depth: int, classes: int) -> Step:
        """The computation for an input of this depth."""

    @abstractmethod
    def keras_layers(self, classes: int, name: str) -> list[Any]:
        """The Keras layers, or functions from tensor to tensor, in their order."""

    def trace(self, features: Features, classes: int, position: str) -> Trace:
        """Summarize the layer."""
        self._check_volume(features, position)
        step = self.step(features.volume[-1], classes)
        window = step.window or Window(features.grid)
        self._check_window(features, window, position)
        grid = window.places(features.grid)
        if step.depth is None:
            volume: Volume = (prod(features.volume),)
        elif step.window is None or features.is_flat:
            volume = (step.depth,)
        else:
            volume = (*grid, step.depth)
        field = features.field and features.field.through(window, features.grid)
        shares = step.window is not None and step.weights
        biases = prod(volume) if step.offsets else 0
        row = LayerSummary(
            position=position,
            layer=self.layer,
            settings=self.settings,
            output=volume,
            parameters=step.weights + step.offsets,
            multiply_adds=step.weights * prod(grid),
            field=field,
            fully_connected=prod(features.volume) * prod(volume) + biases if shares else None,
        )
        return [row], Features(volume, grid, field)

    def build(self, tensor: Any, classes: int, position: str) -> Any:
        """Apply the Keras layers."""
        for keras_layer in self.keras_layers(classes, self.name_at(position)):
            tensor = keras_layer(tensor)
        return tensor

    def _check_volume(self, features: Features, position: str) -> None:
        volume = describe_volume(features.volume)
        if self.takes == "flat" and not features.is_flat:
            raise RequestError(
                f"model.layers.{position} ({self.layer}) gets the volume {volume}",
                "a flat volume",
                "Put global_average_pooling or flatten before it.",
            )
        if self.takes == "volume" and features.is_flat:
            raise RequestError(
                f"model.layers.{position} ({self.layer}) gets the flat volume {volume}",
                "height x width x depth",
                "Move it before the layer that flattens.",
            )

    def _check_window(self, features: Features, window: Window, position: str) -> None:
        name = f"model.layers.{position} ({self.layer})"
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


def trace_layers(layers: Sequence[LayerSpec], features: Features, classes: int, prefix: str = "") -> Trace:
    """Summarize a sequence of layers.

    Raises:
        RequestError: A layer does not accept its input.
    """
    rows: list[LayerSummary] = []
    for index, layer in enumerate(layers):
        more, features = layer.trace(features, classes, f"{prefix}{index}")
        rows += more
    return rows, features


def build_layers(layers: Sequence[LayerSpec], tensor: Any, classes: int, prefix: str = "") -> Any:
    """Apply layers to a Keras tensor; each Keras layer's name begins with its position in the recipe."""
    for index, layer in enumerate(layers):
        tensor = layer.build(tensor, classes, f"{prefix}{index}")
    return tensor
