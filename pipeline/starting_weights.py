"""Finding the model that a recipe's `training.weights` refers to."""

from pathlib import Path

from pixelmill.pipeline.artifacts import read_json, sha256_of
from pixelmill.pipeline.bundles import LABELS_FILE, MODEL_FILE
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.registry import find_bundle, newest_classes
from pixelmill.pipeline.storage import Location
from pixelmill.pipeline.training.warm_start import StartingWeights


def find_starting_weights(recipe: Recipe, store: Location) -> StartingWeights | None:
    """The model to start from; None for random weights.

    A recipe may start from its own model, such as `name@champion`. Before the model has a version, training
    starts from random weights.

    Raises:
        RequestError: There is no such file or version, or the bundle has no Keras file.
        WorkError: The bundle is damaged.
    """
    given = recipe.training.weights
    if given is None:
        return None
    if given.endswith(".keras"):
        return _from_file(Path(given))
    if given.startswith(f"{recipe.name}@") and not newest_classes(store, recipe.name):
        return None
    bundle = find_bundle(store, given)
    path = bundle.folder / MODEL_FILE
    if not path.is_file():
        raise RequestError(
            f"training.weights {given}, whose bundle has no {MODEL_FILE}",
            "a bundle that holds its Keras model",
            "Choose another version, or set training.weights=null.",
        )
    return StartingWeights(path, sha256_of(path), f"{bundle.name}@{bundle.version}", bundle.labels())


def _from_file(path: Path) -> StartingWeights:
    if not path.is_file():
        raise RequestError(
            f"training.weights {path}, which does not exist",
            "a .keras file, the folder of a bundle, or name@alias",
            "Correct the path, or set training.weights=null.",
        )
    labels = path.with_name(LABELS_FILE)
    names = tuple(read_json(labels)) if labels.is_file() else ()
    return StartingWeights(path, sha256_of(path), str(path), names)
