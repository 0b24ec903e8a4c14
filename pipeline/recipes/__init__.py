"""Finding, reading and overriding recipes; their types are in `pixelmill.pipeline.config`."""

import os
from collections.abc import Iterator, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers import check_network
from pixelmill.pipeline.recipes.overrides import apply_override
from pixelmill.pipeline.recipes.problems import explain_problem
from pixelmill.pipeline.recipes.spelling import did_you_mean
from pixelmill.pipeline.recipes.yaml_text import dump_yaml, parse_yaml

_log = getLogger(__name__)
_SHIPPED = Path(__file__).parent


def shipped_recipes() -> tuple[str, ...]:
    """The names of the recipes that come with pixelmill."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        reference: A shipped name or the path of a YAML file.
        overrides: `KEY=VALUE` each, with dots in the key (`training.epochs=3`, `model.layers.0.filters=8`).
            The value is YAML, or plain text if the field is text.

    Raises:
        RequestError: The recipe does not exist or is not valid.
    """
    path = _find(reference)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"recipe {path} cannot be read ({error})", "a YAML file in UTF-8", "Correct the file."
        ) from error
    content = parse_yaml(text, f"recipe {path}")
    if not isinstance(content, dict):
        raise RequestError(
            f"recipe {path} has no keys",
            f"the keys {', '.join(Recipe.model_fields)}",
            "Start from a shipped one: `pixelmill recipes show digits`.",
        )
    for override in overrides:
        apply_override(content, override)
    recipe = parse_recipe(content, str(reference))
    if "name" not in content:
        _log.info("the model is called %s, after its dataset's folder; `name=NAME` renames it", recipe.name)
    return recipe


def parse_recipe(content: object, origin: str) -> Recipe:
    """Validate the content of a recipe; `origin` is its name in error messages.

    Raises:
        RequestError: The first problem found; for an unknown key, with the closest known one.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise explain_problem(error, origin) from error
    check_network(recipe.model, recipe.image)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as YAML, including defaults, with one line per layer."""
    content = recipe.model_dump(mode="json")
    layers = content["model"].pop("layers")
    del content["model"]
    before = {key: content[key] for key in ("name", "dataset", "image")}
    after = {key: value for key, value in content.items() if key not in before}
    return "\n".join(
        [
            dump_yaml(before).rstrip(),
            "model:",
            "  layers:",
            *_dump_layers(layers, "    "),
            dump_yaml(after),
        ]
    )


def _dump_layers(layers: Sequence[dict[str, Any]], indent: str) -> Iterator[str]:
    for layer in layers:
        if "layers" not in layer:
            yield f"{indent}- {dump_yaml(layer, flow=True).strip()}"
            continue
        settings = {key: value for key, value in layer.items() if key != "layers"}
        for number, setting in enumerate(settings.items()):
            line = dump_yaml(dict([setting])).strip()
            yield f"{indent}{' ' if number else '-'} {line}"
        yield f"{indent}  layers:"
        yield from _dump_layers(layer["layers"], f"{indent}    ")


def _find(reference: str) -> Path:
    shipped = shipped_recipes()
    if reference in shipped:
        return _SHIPPED / f"{reference}.yaml"
    # Unlike Path.is_file, this does not raise for text that cannot be a path.
    if os.path.isfile(reference):  # noqa: PTH113
        return Path(reference)
    raise RequestError(
        f"no recipe {reference!r}",
        f"one of {', '.join(shipped)}, or the path of a YAML file",
        did_you_mean(reference, shipped) or "See `pixelmill recipes list`.",
    )
