"""Whether a retraining would only repeat the version that is already in production."""

from dataclasses import dataclass

from pixelmill.pipeline.artifacts import installed_packages
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.registry import aliases_of, show_model
from pixelmill.pipeline.storage import Location


@dataclass(frozen=True)
class Unchanged:
    """A version that a retraining would only repeat; nothing was trained."""

    name: str
    version: int
    alias: str


def find_unchanged(store: Location, recipe: Recipe, fingerprint: str) -> Unchanged | None:
    """The version that the recipe's alias points to, if training again would start from the same things.

    These are the images with their labels and splits, the recipe, and the installed packages. A version that
    is damaged, or of which any of this is not known, does not count.

    Args:
        store: The artifacts root.
        recipe: The recipe of the run.
        fingerprint: The fingerprint of its dataset.
    """
    current = aliases_of(store, recipe.name).get(recipe.promotion.alias)
    if current is None:
        return None
    try:
        version = show_model(store, f"{recipe.name}@{current}")
    except PixelmillError:
        return None
    same = (
        version.manifest.get("dataset_fingerprint") == fingerprint
        and version.manifest.get("recipe") == recipe.model_dump(mode="json")
        and version.manifest.get("packages") == installed_packages()
    )
    return Unchanged(recipe.name, current, recipe.promotion.alias) if same else None
