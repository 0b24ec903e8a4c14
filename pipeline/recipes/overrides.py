"""Overrides, `KEY=VALUE`: replace one value of a recipe before it is validated."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.part import Part
from pixelmill.pipeline.recipes.annotations import members, tag_of, takes_null, takes_only_text
from pixelmill.pipeline.recipes.yaml_text import parse_yaml

_NULL = "null"


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one value in a recipe's content.

    If the field is text, the value is used unchanged (`pets #2`, `007`, `no`), except for `null` if the
    field is optional. Any other value is parsed as YAML.

    Args:
        content: The content of the recipe; modified.
        override: `KEY=VALUE`, with dots in the key, and numbers as list indices.

    Raises:
        RequestError: It is not such a pair, or the recipe has no such key.
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
            "`pixelmill recipes show NAME` lists the keys, and `pixelmill recipes explain` describes them.",
        ) from error


def _read(content: object, key: str, value: str, override: str) -> Any:
    found = list(_annotations_at(content, key.split(".")))
    if found and all(takes_only_text(annotation) for annotation in found):
        is_null = value == _NULL and any(takes_null(annotation) for annotation in found)
        return None if is_null else value
    return parse_yaml(value, f"override {override!r}")


def _annotations_at(content: object, steps: list[str]) -> Iterator[object]:
    """The types of the field at a key, for every kind of part that it may belong to."""
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
    """Whether the discriminator in the content selects this part or is missing."""
    tag = tag_of(part)
    said = value.get(tag[0]) if tag and isinstance(value, dict) else None
    return tag is None or said is None or said in tag[1]
