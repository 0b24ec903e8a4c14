"""Checks before retraining starts: they take a second, without Prefect and TensorFlow."""

import errno
import sys
from pathlib import Path

from pixelmill.pipeline.bundles.model_files import require_engines
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets.download import check_source, count_classes
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.part import WEB
from pixelmill.pipeline.storage import Location, require_writable

_GPU_DEVICES = ("nvidia*", "nvhost*", "kfd", "dxg", "dri/renderD*")


def check_readiness(recipe: Recipe, store: Location) -> None:
    """Reject a retraining run that cannot succeed.

    It checks the dataset and its classes (without reading any image), the number of outputs of the
    network, weights files, the engines of `export.formats`, the requested device, and the store.

    Raises:
        RequestError: The first problem found.
    """
    check_source(recipe.dataset)
    classes = count_classes(recipe.dataset)
    if classes is not None:
        summarize_layers(recipe.model, recipe.image, classes)
    _check_weights(recipe)
    require_engines(recipe.export.formats)
    _check_device(recipe)
    _check_store(store)


def _check_weights(recipe: Recipe) -> None:
    for layer in recipe.model.layers:
        if not isinstance(layer, Application) or layer.weights in (None, "imagenet"):
            continue
        if not layer.weights.startswith(WEB) and not Path(layer.weights).is_file():
            raise RequestError(
                f"weights {printable(layer.weights)!r} of the application {layer.name}",
                "null, imagenet, the path of an existing file, or a URL with #sha256=HASH",
                "Correct `weights`, or create the file.",
            )


def _check_device(recipe: Recipe) -> None:
    # If a device file exists, only the driver and the backend can tell whether the GPU is usable.
    if recipe.training.device != "gpu" or sys.platform != "linux":
        return
    if not any(True for pattern in _GPU_DEVICES for _ in Path("/dev").glob(pattern)):
        raise RequestError(
            f"training.device is gpu, but there is no GPU (none of {', '.join(_GPU_DEVICES)} in /dev)",
            "a GPU with its driver, and the extra `train-gpu`",
            "Train on a machine with a GPU, or set training.device=cpu.",
        )


def _check_store(store: Location) -> None:
    try:
        require_writable(store)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RequestError(
            f"store {printable(str(store))} cannot be written to ({error.strerror})",
            "a folder that this user may write to",
            "Choose another one with `store`.",
        ) from error
