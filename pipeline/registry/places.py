"""The layout of a store's models: `models/NAME/VERSION/`."""

import re

from pixelmill.pipeline.artifacts import MANIFEST
from pixelmill.pipeline.registry.reservations import version_of
from pixelmill.pipeline.storage import Location, children

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def models_folder(store: Location) -> Location:
    """The folder of all models."""
    return store / "models"


def model_folder(store: Location, name: str) -> Location:
    """The folder of a model's versions and aliases."""
    return models_folder(store) / name


def version_folder(store: Location, name: str, version: int) -> Location:
    """The folder of a bundle."""
    return model_folder(store, name) / str(version)


def model_names(store: Location) -> list[str]:
    """The names of the folders that may contain models, sorted."""
    models = models_folder(store)
    names = {path.name for path in children(models)} if models.is_dir() else set()
    return sorted(name for name in names if _NAME.fullmatch(name))


def version_numbers(store: Location, name: str) -> list[int]:
    """The registered versions of a model, which are those with a manifest, in ascending order."""
    folder = model_folder(store, name)
    if not _NAME.fullmatch(name) or not folder.is_dir():
        return []
    numbers = {path: version_of(path.name) for path in children(folder)}
    return sorted(
        number for path, number in numbers.items() if number is not None and (path / MANIFEST).exists()
    )
