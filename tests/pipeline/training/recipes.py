"""Short training runs on the digits, for tests in separate processes."""

from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.recipes import load_recipe, parse_recipe

LAYERS = [
    {"layer": "convolution", "filters": 4, "kernel_size": 3},
    {"layer": "batch_normalization"},
    {"layer": "activation", "function": "relu"},
    {"layer": "dropout", "rate": 0.1},
    {"layer": "flatten"},
    {"layer": "dense", "units": "classes"},
    {"layer": "softmax"},
]


def small_recipe(**training: Any) -> Recipe:
    """The `digits` recipe with a network that trains within seconds."""
    content = load_recipe("digits").model_dump()
    content["model"] = {"layers": LAYERS}
    content["training"] = {"epochs": 2, "batch_size": 32, **training}
    return parse_recipe(content, "small")


def digits(store: Path) -> PreparedDataset:
    recipe = small_recipe()
    return prepare_dataset(download_dataset(recipe.dataset, store), recipe, store)
