"""Finding the weights that a recipe starts from: an earlier model, or the file of an application."""

from pathlib import Path

from filelock import FileLock

from pixelmill.pipeline.artifacts import flush_to_disk, read_json, sha256_of
from pixelmill.pipeline.bundles import LABELS_FILE, MODEL_FILE
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets.mirrors import MirrorFailed, download_file
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import DownloadError, RequestError
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.part import WEB
from pixelmill.pipeline.registry import find_bundle, newest_classes
from pixelmill.pipeline.storage import Location, workspace
from pixelmill.pipeline.training.pretrained import PretrainedWeights
from pixelmill.pipeline.training.warm_start import StartingWeights

_MAX_BYTES = 1 << 33
_HASH = "#sha256="


def find_starting_weights(recipe: Recipe, store: Location) -> StartingWeights | None:
    """The model to start from; None for random weights.

    A recipe may start from its own model, such as `name@champion`. Before the model has a version, training
    starts from random weights.

    Raises:
        RequestError: There is no such file or version, or the bundle has no Keras file.
        DownloadError: The file cannot be downloaded.
        WorkError: The bundle is damaged.
    """
    given = recipe.training.weights
    if given is None:
        return None
    if given.startswith(WEB):
        path, sha256 = download_weights(given, workspace(store) / "downloads")
        return StartingWeights(path, sha256, given)
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


def names_weights_file(recipe: Recipe) -> bool:
    """Whether the application of a recipe starts from a file; those of ImageNet are fetched by Keras."""
    first = recipe.model.layers[0]
    return isinstance(first, Application) and first.weights not in (None, "imagenet")


def find_pretrained_weights(recipe: Recipe, work: Path) -> PretrainedWeights | None:
    """The file with the weights of a recipe's application; None if it has none, or those of ImageNet.

    Args:
        recipe: The recipe of the run.
        work: The local folder for the working files of a store; downloads are kept below it.

    Raises:
        RequestError: There is no such file, or its SHA-256 is not that of the recipe.
        DownloadError: It cannot be downloaded.
    """
    first = recipe.model.layers[0]
    if not isinstance(first, Application) or first.weights in (None, "imagenet"):
        return None
    if first.weights.startswith(WEB):
        return PretrainedWeights(*download_weights(first.weights, work / "downloads"), first.weights)
    path = Path(first.weights)
    return PretrainedWeights(path, sha256_of(path), first.weights)


def download_weights(address: str, cache: Path) -> tuple[Path, str]:
    """The path of a file in the cache, and its SHA-256; downloads it unless it is there.

    Args:
        address: A URL that ends in `#sha256=HASH`.
        cache: The folder of the downloads, where files are named after their SHA-256.

    Raises:
        RequestError: The file has another SHA-256.
        DownloadError: It cannot be downloaded.
    """
    url, _, given = address.rpartition(_HASH)
    wanted = given.lower()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / wanted
    with FileLock(cache / ".lock"):
        if target.is_file() and sha256_of(target) == wanted:
            return target, wanted
        try:
            partial = download_file(url, cache / "partial", _MAX_BYTES)
        except MirrorFailed as error:
            raise DownloadError(
                f"weights {printable(url)} cannot be downloaded ({error})",
                "a file that is reachable",
                "Check the address and the network, or name the path of a file.",
            ) from error
        found = sha256_of(partial)
        if found != wanted:
            partial.unlink()
            raise RequestError(
                f"weights {printable(url)} have SHA-256 {found}",
                f"{wanted}, as the recipe says",
                "Check the address; if the file is the right one, correct the hash.",
            )
        flush_to_disk(partial)
        partial.replace(target)
    return target, wanted


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
