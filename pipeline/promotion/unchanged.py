"""Whether a retraining would only repeat the version that is already in production."""

from pixelmill.pipeline.artifacts import installed_packages
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.registry import ModelVersion, aliases_of, show_model
from pixelmill.pipeline.storage import Location


def find_unchanged(store: Location, recipe: Recipe, dataset: PreparedDataset) -> ModelVersion | None:
    """The version that the recipe's alias points to, if training again would start from the same things.

    These are the images with their labels and splits, the recipe, and the installed packages. A version that
    is damaged, or of which any of this is not known, does not count.
    """
    current = aliases_of(store, recipe.name).get(recipe.promotion.alias)
    if current is None:
        return None
    try:
        version = show_model(store, f"{recipe.name}@{current}")
    except PixelmillError:
        return None
    same = (
        version.manifest.get("dataset_fingerprint") == dataset.fingerprint
        and version.manifest.get("recipe") == recipe.model_dump(mode="json")
        and version.manifest.get("packages") == installed_packages()
    )
    return version if same else None
