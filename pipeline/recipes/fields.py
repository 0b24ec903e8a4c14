"""All fields of a recipe, with type, default and meaning, derived from its types."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_origin

from pydantic.fields import FieldInfo

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.residual import Residual
from pixelmill.pipeline.part import Part
from pixelmill.pipeline.recipes.annotations import TAGS, describe_type, members, parts_in, tag_of
from pixelmill.pipeline.recipes.spelling import did_you_mean

NUMBER = "N"
"""Placeholder in keys for the index in a list: `model.layers.N.filters`."""


@dataclass(frozen=True)
class RecipeField:
    """One field of a recipe.

    Attributes:
        key: As in an override, with `N` for the index in a list.
        where: The discriminator of its part: `layer: convolution`; empty if there is only one kind of part.
        type: Description of its type, values and limits.
        default: The default as YAML; None if a value is required.
        meaning: Description of the field.
    """

    key: str
    where: str
    type: str
    default: str | None
    meaning: str


@dataclass(frozen=True)
class FieldGroup:
    """The fields of one part of a recipe.

    Attributes:
        key: The key of the part; empty for the recipe itself.
        where: The discriminator of the part: `layer: convolution`; empty if there is only one kind.
        meaning: Description of the part.
        fields: The fields, in the order of the recipe.
    """

    key: str
    where: str
    meaning: str
    fields: tuple[RecipeField, ...]


def list_groups() -> tuple[FieldGroup, ...]:
    """All fields, grouped by part of the recipe."""
    return tuple(_groups(Recipe, ""))


def find_groups(key: str) -> tuple[FieldGroup, ...]:
    """The fields that match a key: one field, all below a key, or those of a kind of layer or dataset.

    Args:
        key: `training.epochs`, `training`, `model.layers.0.filters`, `convolution`, `folder`.

    Raises:
        RequestError: The key does not exist; the message suggests the closest one.
    """
    wanted = [NUMBER if step.isdecimal() else step for step in key.split(".")]
    if len(wanted) > 1 and wanted[-1] in TAGS:
        wanted.pop()  # A discriminator is explained by listing all the parts it selects from.
    groups = list_groups()
    whole = [group for group in groups if key in _kinds(group.where) or _starts_with(group.key, wanted)]
    if whole:
        return tuple(whole)
    single = []
    for group in groups:
        fields = tuple(field for field in group.fields if _starts_with(field.key, wanted))
        if fields:
            single.append(replace(group, fields=fields))
    if not single:
        raise _unknown(key)
    return tuple(single)


def keys_ending_in(name: str) -> tuple[str, ...]:
    """The keys that end in `name`, outside the list of layers; of several, those nearest to the top."""
    keys = dict.fromkeys(field.key for group in list_groups() for field in group.fields)
    found = [key for key in keys if NUMBER not in key.split(".") and key.split(".")[-1] == name]
    depth = min((key.count(".") for key in found), default=0)
    return tuple(key for key in found if key.count(".") == depth)


def _groups(part: type[Part], key: str) -> Iterator[FieldGroup]:
    tag = tag_of(part)
    where = f"{tag[0]}: {' or '.join(tag[1])}" if tag else ""
    fields = tuple(
        RecipeField(
            key=_join(key, name),
            where=where,
            type=describe_type(field.annotation, tuple(field.metadata)),
            default=_default(field),
            meaning=field.description or "",
        )
        for name, field in part.model_fields.items()
        if (tag is None or name != tag[0]) and (_is_list(field) or not _parts(field))
    )
    yield FieldGroup(key, where, " ".join((part.__doc__ or "").split()), fields)
    for name, field in part.model_fields.items():
        # The layers of a branch are the same as those of the network.
        if part is not Residual:
            place = _join(key, f"{name}.{NUMBER}" if _is_list(field) else name)
            for inner in _parts(field):
                yield from _groups(inner, place)


def _parts(field: FieldInfo) -> list[type[Part]]:
    return list(dict.fromkeys(parts_in(field.annotation)))


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(kind) is tuple for kind, _ in members(field.annotation))


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    return field.default if isinstance(field.default, str) else json.dumps(field.default)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _kinds(where: str) -> list[str]:
    return where.partition(": ")[2].split(" or ") if where else []


def _starts_with(key: str, wanted: Sequence[str]) -> bool:
    return bool(key) and key.split(".")[: len(wanted)] == list(wanted)


def _unknown(key: str) -> RequestError:
    groups = list_groups()
    fields = [field.key for group in groups for field in group.fields]
    kinds = [kind for group in groups for kind in _kinds(group.where)]
    elsewhere = keys_ending_in(key.rpartition(".")[2])
    hint = f"Did you mean {elsewhere[0]}?" if elsewhere else ""
    return RequestError(
        f"no key {key!r} in a recipe",
        f"one of {', '.join(Recipe.model_fields)}, or a key below them",
        hint or did_you_mean(key, [*fields, *kinds]) or "See all with `pixelmill recipes explain`.",
    )
