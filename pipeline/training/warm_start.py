"""Starting training from the weights of an earlier model instead of random ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.training.pretrained import (
    PretrainedWeights,
    load_pretrained,
    nested_network,
    with_suffix,
)


@dataclass(frozen=True)
class StartingWeights:
    """An earlier model to start from.

    Attributes:
        path: Its Keras file.
        sha256: The SHA-256 of the file, in hexadecimal.
        source: What the recipe's `training.weights` refers to: `name@version`, or a path.
        class_names: The class names in the order of its outputs; empty if they are not known.
    """

    path: Path
    sha256: str
    source: str
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TakenWeights:
    """What a network took from an earlier model.

    Attributes:
        source: See `StartingWeights`.
        sha256: See `StartingWeights`.
        layers: Number of layers with weights that were taken completely.
        of_layers: Number of layers with weights in the network.
        classes: Number of classes whose weights in the last dense layer were taken.
        of_classes: Number of classes of the network.
    """

    source: str
    sha256: str
    layers: int
    of_layers: int
    classes: int
    of_classes: int

    def __str__(self) -> str:
        return (
            f"starting from {self.source}: the weights of {self.layers} of {self.of_layers} layers, and of "
            f"{self.classes} of {self.of_classes} classes"
        )


def set_initial_weights(
    network: Any,
    first: object,
    start: StartingWeights | None,
    pretrained: PretrainedWeights | None,
    class_names: Sequence[str],
) -> TakenWeights | None:
    """Give a network the weights that its recipe starts from, instead of random ones.

    An earlier model comes before the weights that an application names, which are then not needed.

    Args:
        network: A Keras model built from a recipe.
        first: The first layer of the recipe.
        start: The earlier model of `training.weights`, if any.
        pretrained: The file of the application's weights, if it names one.
        class_names: The class names, in the order of the network's outputs.

    Returns:
        What was taken from the earlier model.

    Raises:
        RequestError: A file cannot be loaded, or does not fit.
        DownloadError: Weights of ImageNet cannot be downloaded.
    """
    earlier = None if start is None else _load(start)
    is_pretrained = isinstance(first, Application) and first.weights is not None
    if isinstance(first, Application) and is_pretrained and not _holds(earlier, nested_network(network)):
        load_pretrained(network, first, pretrained)
    return None if start is None else _take_layers(network, earlier, start, class_names)


def take_weights(network: Any, start: StartingWeights, class_names: Sequence[str]) -> TakenWeights:
    """Give a network the weights of an earlier model where layers have the same name and shapes.

    In the last dense layer, the weights of each class are found by its name, so classes may have been added,
    removed or moved; those of a new class stay random.

    Args:
        network: A Keras model built from a recipe, with initial weights.
        start: The earlier model.
        class_names: The class names, in the order of the network's outputs.

    Raises:
        RequestError: The file cannot be loaded, or no layer of it fits.
    """
    return _take_layers(network, _load(start), start, class_names)


def _load(start: StartingWeights) -> Any:
    import keras

    try:
        with with_suffix(start.path, ".keras") as named:
            return keras.saving.load_model(named, safe_mode=True, compile=False)
    except Exception as error:  # noqa: BLE001  # Keras raises exceptions of many types.
        raise RequestError(
            f"training.weights {start.source} cannot be loaded ({type(error).__name__}: {error})",
            "a Keras file that the installed Keras can load",
            "Choose another file, or set training.weights=null.",
        ) from None


def _holds(earlier: Any, application: Any) -> bool:
    """Whether an earlier model contains an application."""
    return earlier is not None and any(layer.name == application.name for layer in earlier.layers)


def _take_layers(
    network: Any, earlier: Any, start: StartingWeights, class_names: Sequence[str]
) -> TakenWeights:
    last = network.layers[-2]
    known = {path: layer for path, layer in _layers(earlier) if layer.weights}
    own = [(path, layer) for path, layer in _layers(network) if layer.weights]
    taken = sum(_take(layer, known.get(path)) for path, layer in own if layer is not last)
    classes = _take_classes(last, known, start.class_names, class_names)
    if not taken:
        raise RequestError(
            f"training.weights {start.source}, where no layer has the name and shape of one in this recipe",
            "a model with layers of this recipe",
            "Choose a model that was trained with such a recipe, or set training.weights=null.",
        )
    return TakenWeights(
        start.source,
        start.sha256,
        taken + (classes == len(class_names)),
        len(own),
        classes,
        len(class_names),
    )


def _layers(network: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer that is not a model, with its path through nested models."""
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _take(layer: Any, earlier: Any) -> bool:
    """Copy the weights of a layer if all of them have the same shape."""
    if earlier is None:
        return False
    if [tuple(each.shape) for each in layer.weights] != [tuple(each.shape) for each in earlier.weights]:
        return False
    layer.set_weights(earlier.get_weights())
    return True


def _take_classes(
    last: Any, known: Mapping[str, Any], before: Sequence[str], class_names: Sequence[str]
) -> int:
    """Copy the weights of each class that both models know. Returns their number."""
    earlier = known.get(last.name)
    if earlier is None or len(earlier.weights) != len(last.weights) or not before:
        return 0
    kernel, old = (np.array(each.get_weights()[0]) for each in (last, earlier))
    if len(kernel) != len(old) or old.shape[-1] != len(before):
        return 0
    pairs = [(at, before.index(name)) for at, name in enumerate(class_names) if name in before]
    weights = last.get_weights()
    for values, given in zip(weights, earlier.get_weights(), strict=True):
        for at, found in pairs:
            values[..., at] = given[..., found]
    last.set_weights(weights)
    return len(pairs)
