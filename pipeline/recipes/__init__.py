"""Finding, reading and overriding recipes; `pipeline.config` says what one may hold."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from pipeline.config import Recipe
from pipeline.config.part import Part
from pipeline.errors import RequestError
from pipeline.layers import check_network

_SHIPPED = Path(__file__).parent
_KEYED = ("extra_forbidden", "missing")


def shipped_recipes() -> tuple[str, ...]:
    """The names of the recipes that come with pixelmill."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.yaml")))


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        reference: A shipped name or the path of a YAML file.
        overrides: `KEY=VALUE` each, with dots in the key (`training.epochs=3`, `model.layers.0.filters=8`)
            and a YAML value.

    Raises:
        RequestError: There is no such recipe, or it says something a recipe cannot say.
    """
    path = _find(reference)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RequestError(
            f"recipe {path} cannot be read ({error})", "a YAML file", "Correct the file."
        ) from error
    if not isinstance(content, dict):
        raise RequestError(
            f"recipe {path} holds no keys",
            f"the keys {', '.join(Recipe.model_fields)}",
            "Start from a shipped one: `pixelmill recipes show digits`.",
        )
    for override in overrides:
        _apply(content, override)
    return parse_recipe(content, str(reference))


def parse_recipe(content: object, origin: str) -> Recipe:
    """Check a recipe's content; `origin` names it in errors.

    Raises:
        RequestError: The first thing that is wrong, with the nearest known key for an unknown one.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key also leaves the right one missing: the misspelling is what to tell.
        unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        raise _explain((unknown or problems)[0], origin) from error
    check_network(recipe.model, recipe.image)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as YAML, every default spelled out, one line a layer."""
    content = recipe.model_dump(mode="json")
    layers = content["model"].pop("layers")
    del content["model"]
    before = {key: content[key] for key in ("name", "dataset", "image")}
    after = {key: value for key, value in content.items() if key not in before}
    return "\n".join(
        [
            yaml.safe_dump(before, sort_keys=False).rstrip(),
            "model:",
            "  layers:",
            *_dump_layers(layers, "    "),
            yaml.safe_dump(after, sort_keys=False),
        ]
    )


def _dump_layers(layers: Sequence[dict[str, Any]], indent: str) -> Iterator[str]:
    for layer in layers:
        if "layers" not in layer:
            line = yaml.safe_dump(layer, default_flow_style=True, sort_keys=False, width=10_000).strip()
            yield f"{indent}- {line}"
            continue
        settings = {key: value for key, value in layer.items() if key != "layers"}
        for number, setting in enumerate(settings.items()):
            line = yaml.safe_dump(dict([setting]), sort_keys=False).strip()
            yield f"{indent}{' ' if number else '-'} {line}"
        yield f"{indent}  layers:"
        yield from _dump_layers(layer["layers"], f"{indent}    ")


def _find(reference: str) -> Path:
    shipped = shipped_recipes()
    if reference in shipped:
        return _SHIPPED / f"{reference}.yaml"
    # Unlike Path.is_file, this one has no trouble with what cannot be a path at all.
    if os.path.isfile(reference):  # noqa: PTH113
        return Path(reference)
    raise RequestError(
        f"no recipe {reference!r}",
        f"one of {', '.join(shipped)}, or the path of a YAML file",
        _did_you_mean(reference, shipped) or "See `pixelmill recipes list`.",
    )


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not (key and equals):
        raise RequestError(f"override {override!r}", "KEY=VALUE", "For example: --set training.epochs=3.")
    *parents, last = key.split(".")
    place: Any = content
    try:
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if isinstance(place, list):
            place[int(last)] = yaml.safe_load(value)
        else:
            place[last] = yaml.safe_load(value)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise RequestError(
            f"override {override!r} ({error})",
            "a key that the recipe has, and a YAML value",
            "See the keys with `pixelmill recipes show NAME`.",
        ) from error


def _explain(problem: Any, origin: str) -> RequestError:
    location: tuple[int | str, ...] = problem["loc"]
    parts = _parts_at(location[:-1])
    # The tags of unions stand in the location, but a user never wrote them as keys.
    tags = {tag for part in _all_parts(Recipe) for tag in _tags(part)}
    named = [step for i, step in enumerate(location) if not (step in tags and i < len(location) - 1)]
    # Nor did they write which member of a union of plain types refused the value.
    fields = {name for part in _all_parts(Recipe) for name in part.model_fields}
    if (
        len(named) > 1
        and isinstance(named[-1], str)
        and named[-2] in fields
        and problem["type"] not in _KEYED
    ):
        named = named[:-1] if named[-1] not in fields else named
    dotted = ".".join(str(step) for step in named) or "the recipe"
    if problem["type"] == "extra_forbidden":
        known = sorted({name for part in parts for name in part.model_fields})
        hint = _did_you_mean(str(location[-1]), known)
        return RequestError(
            f"recipe {origin}: unknown key {dotted}",
            f"one of {', '.join(known)}",
            hint or "Remove it.",
        )
    if problem["type"] == "missing":
        return RequestError(
            f"recipe {origin}: {dotted} is missing", "a value for it", "Add it to the recipe."
        )
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return RequestError(
        f"recipe {origin}: {dotted} is {problem['input']!r:.200}",
        message[0].lower() + message[1:],
        _nearest_value(problem) or "Correct the recipe or the override.",
    )


def _nearest_value(problem: Any) -> str:
    context = problem.get("ctx", {})
    known = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected") or ""))
    return _did_you_mean(str(context.get("tag") or problem["input"]), known)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean {nearest[0]}?" if nearest else ""


def _parts_at(location: Sequence[int | str]) -> list[type[Part]]:
    parts: list[type[Part]] = [Recipe]
    for step in location:
        if isinstance(step, int):
            continue
        fields = [part.model_fields[step] for part in parts if step in part.model_fields]
        if fields:
            parts = [found for field in fields for found in _parts_in(field.annotation)]
        else:
            parts = [part for part in parts if step in _tags(part)] or parts
    return parts


def _parts_in(annotation: object) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, tuple) or get_args(annotation):
        return [part for inner in get_args(annotation) for part in _parts_in(inner)]
    return []


def _all_parts(part: type[Part]) -> set[type[Part]]:
    found = {part}
    for field in part.model_fields.values():
        for inner in _parts_in(field.annotation):
            found |= _all_parts(inner)
    return found


def _tags(part: type[Part]) -> tuple[str, ...]:
    for name in ("layer", "source"):
        field = part.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()
