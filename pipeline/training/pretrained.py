"""Loading the weights of an application: from Keras's server, or from a file in any of Keras's formats.

Nothing of a file is run: whole models in HDF5 are read as arrays, and `.keras` files in safe mode.
"""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.errors import DownloadError, RequestError
from pixelmill.pipeline.layers.application import Application, build_application

Arrays = list[npt.NDArray[Any]]
_WHOLE_MODEL = "model_weights"
_NAMES = "weight_names"
# Keras 2 named the kernels of depthwise convolutions differently.
_RENAMED = {"depthwise_kernel": "kernel"}


@dataclass(frozen=True)
class PretrainedWeights:
    """A file with the weights of an application.

    Attributes:
        path: The file.
        sha256: The SHA-256 of the file, in hexadecimal.
        source: What the recipe refers to: a path or a URL.
    """

    path: Path
    sha256: str
    source: str


def load_pretrained(network: Any, layer: Application, file: PretrainedWeights | None) -> None:
    """Give the application within a network the weights that its layer of the recipe names.

    A `Normalization` within the application stays the identity: the layers before the application subtract
    the means of its authors.

    Args:
        network: A Keras model built from a recipe whose first layer is an application.
        layer: That layer; its `weights` are `imagenet`, or what `file` was found by.
        file: The file; None for `imagenet`.

    Raises:
        RequestError: The file cannot be read, or holds no weights for every layer of the application.
        DownloadError: The weights cannot be downloaded.
    """
    inner = nested_network(network)
    if file is None:
        downloaded = _download_imagenet(layer, tuple(inner.input_shape[1:]))
        for ours, theirs in zip(_learned_layers(inner), _learned_layers(downloaded), strict=True):
            ours.set_weights(theirs.get_weights())
        return
    try:
        values = _read_weights(inner, file.path)
    except Exception as error:  # noqa: BLE001  # Keras and h5py raise exceptions of many types.
        raise _unusable(layer, file, f"{type(error).__name__}: {error}") from None
    learned = _learned_layers(inner)
    lacking = [each.name for each in learned if not _fits(each, values.get(each.name))]
    if lacking:
        raise _unusable(
            layer,
            file,
            f"{len(lacking)} of {len(learned)} layers are missing or of another shape, such as {lacking[0]}",
        )
    for each in learned:
        each.set_weights(values[each.name])


def nested_network(network: Any) -> Any:
    """The application within a network."""
    import keras

    return next(layer for layer in network.layers if isinstance(layer, keras.Model))


@contextmanager
def with_suffix(path: Path, suffix: str) -> Iterator[Path]:
    """A link to a file with the suffix by which Keras recognizes formats, during the block."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"file{suffix}"
        link.symlink_to(path.resolve())
        yield link


def _download_imagenet(layer: Application, shape: tuple[int, ...]) -> Any:
    try:
        return build_application(layer.name, shape, weights="imagenet")
    except Exception as error:
        raise DownloadError(
            f"the imagenet weights of {layer.name} cannot be downloaded ({type(error).__name__}: {error})",
            "a connection to the server that Keras downloads from",
            "Check the network; or set model.layers.0.weights to the path of a file, or to a URL with "
            "#sha256=HASH; or training.weights to a .keras file or name@alias; or train from nothing with "
            "the recipe photos-small.",
        ) from error


def _read_weights(inner: Any, path: Path) -> Mapping[str, Arrays]:
    """The weights of each layer, by the layer's name."""
    import h5py
    import keras

    if zipfile.is_zipfile(path):
        with with_suffix(path, ".keras") as named:
            model = keras.saving.load_model(named, safe_mode=True, compile=False)
        same = _find_same(inner, model)
        if same is not None:
            pairs = zip(inner.layers, same.layers, strict=True)
            return {ours.name: theirs.get_weights() for ours, theirs in pairs if ours.weights}
        return {each.name: each.get_weights() for each in _all_layers(model) if each.weights}
    with h5py.File(path) as file:
        group = file.get(_WHOLE_MODEL, file)
        is_by_layer = "layer_names" in group.attrs
        found = _read_by_name(inner, group) if is_by_layer else {}
        is_whole = group is not file
    if is_whole or all(_fits(each, found.get(each.name)) for each in _learned_layers(inner)):
        return found
    # Names that Keras numbers in the order of creation may differ, so the order of the layers decides.
    with with_suffix(path, ".h5" if is_by_layer else ".weights.h5") as named:
        inner.load_weights(named)
    for each in inner.layers:
        if isinstance(each, keras.layers.Normalization):
            mean, variance, count = each.get_weights()
            each.set_weights([np.zeros_like(mean), np.ones_like(variance), np.zeros_like(count)])
            each.finalize_state()
    return {each.name: each.get_weights() for each in _learned_layers(inner)}


def _read_by_name(inner: Any, group: Any) -> dict[str, Arrays]:
    """What the HDF5 files of Keras 2 and 3 hold: `LAYER/WEIGHT`, for a nested model in one group."""
    known: dict[tuple[str, str], npt.NDArray[Any]] = {}
    for part in group.values():
        for name in part.attrs.get(_NAMES, ()):
            text = name.decode() if isinstance(name, bytes) else str(name)
            *_, layer, weight = ("", *text.split(":")[0].split("/"))
            known[layer, _RENAMED.get(weight, weight)] = np.asarray(part[text])
    found = {}
    for each in inner.layers:
        names = [(each.name, _RENAMED.get(weight.name, weight.name)) for weight in each.weights]
        if names and all(name in known for name in names):
            found[each.name] = [known[name] for name in names]
    return found


def _learned_layers(network: Any) -> list[Any]:
    """The layers with weights, but for `Normalization`, which holds the means of images."""
    import keras

    return [
        each for each in network.layers if each.weights and not isinstance(each, keras.layers.Normalization)
    ]


def _find_same(inner: Any, model: Any) -> Any:
    """A network in a model with the shapes of `inner`, whose layers may have other names; None if none is."""
    networks = (each for each in (model, *_all_layers(model)) if hasattr(each, "layers"))
    return next((each for each in networks if _shapes(each) == _shapes(inner)), None)


def _shapes(network: Any) -> list[list[tuple[int, ...]]]:
    return [[tuple(weight.shape) for weight in layer.weights] for layer in network.layers]


def _all_layers(network: Any) -> Iterator[Any]:
    for layer in network.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)


def _fits(layer: Any, values: Arrays | None) -> bool:
    shapes = [tuple(weight.shape) for weight in layer.weights]
    return values is not None and shapes == [value.shape for value in values]


def _unusable(layer: Application, file: PretrainedWeights, reason: str) -> RequestError:
    return RequestError(
        f"weights {file.source!r} of the application {layer.name} ({reason})",
        f"weights of a {layer.name}, or a model that contains one, as saved by Keras",
        "Choose another file, or set `weights: null`.",
    )
