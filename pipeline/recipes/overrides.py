"""Overrides, `KEY=VALUE`: one value of a recipe replaced, before the recipe is checked."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.config.part import Part
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.recipes.annotations import members, tag_of, takes_null, takes_only_text
from pixelmill.pipeline.recipes.yaml_text import parse_yaml

_NULL = "null"


def apply_override(content: dict[str, Any], override: str) -> None:
    """Put one value into a recipe's content.

    Where the recipe's field is text, the value is taken as it is (`pets #2`, `007`, `no`); `null` is no
    text where the field may be null. Any other value is read as YAML.

    Args:
        content: The recipe as its file has it; changed.
        override: `KEY=VALUE`, with dots in the key, and numbers for places in a list.

    Raises:
        RequestError: It is no such pair, or the recipe has no place for it.
    """
    key, equals, value = override.partition("=")
    if not (key and equals):
        raise RequestError(f"override {override!r}", "KEY=VALUE", "For example: `training.epochs=3`.")
    *parents, last = key.split(".")
    place: Any = content
    try:
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if isinstance(place, list):
            place[int(last)] = _read(content, key, value, override)
        else:
            place[last] = _read(content, key, value, override)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise RequestError(
            f"override {override!r} ({error})",
            "a key that the recipe has",
            "See the keys with `pixelmill recipes show NAME`, and what they mean with "
            "`pixelmill recipes explain`.",
        ) from error


def _read(content: object, key: str, value: str, override: str) -> Any:
    found = list(_annotations_at(content, key.split(".")))
    if found and all(takes_only_text(annotation) for annotation in found):
        is_null = value == _NULL and any(takes_null(annotation) for annotation in found)
        return None if is_null else value
    return parse_yaml(value, f"override {override!r}")


def _annotations_at(content: object, steps: list[str]) -> Iterator[object]:
    """The types of the field that a key names, in each part of a recipe that may stand there."""
    places: list[tuple[object, object]] = [(Recipe, content)]
    for step in steps:
        places = [inner for annotation, value in places for inner in _inside(annotation, value, step)]
    yield from (annotation for annotation, _ in places)


def _inside(annotation: object, value: object, step: str) -> Iterator[tuple[object, object]]:
    for kind, _ in members(annotation):
        if isinstance(kind, type) and issubclass(kind, Part):
            if step in kind.model_fields and _may_be(kind, value):
                yield kind.model_fields[step].annotation, value.get(step) if isinstance(value, dict) else None
        elif get_origin(kind) is tuple and step.isdecimal():
            item = value[int(step)] if isinstance(value, list) and int(step) < len(value) else None
            yield get_args(kind)[0], item


def _may_be(part: type[Part], value: object) -> bool:
    """Whether the content says that it is this part, or does not say which part it is."""
    tag = tag_of(part)
    said = value.get(tag[0]) if tag and isinstance(value, dict) else None
    return tag is None or said is None or said in tag[1]
