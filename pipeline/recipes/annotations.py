"""The types of a recipe's fields, for commands and error messages: their parts, values and limits."""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from pixelmill.pipeline.part import Part

TAGS = ("layer", "source")
_WORDS: dict[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    NoneType: "null",
}


def members(annotation: object) -> Iterator[tuple[Any, tuple[object, ...]]]:
    """The members of a field's type, each with its constraints; unions are expanded."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        limits = tuple(
            limit
            for extra in extras
            for limit in (extra.metadata if isinstance(extra, FieldInfo) else (extra,))
        )
        for kind, more in members(inner):
            yield kind, (*more, *limits)
    elif get_origin(annotation) in (Union, UnionType):
        for option in get_args(annotation):
            yield from members(option)
    else:
        yield annotation, ()


def parts_in(annotation: object) -> Iterator[type[Part]]:
    """The parts of a recipe that a field may contain, directly or in a list."""
    for kind, _ in members(annotation):
        if isinstance(kind, type) and issubclass(kind, Part):
            yield kind
        elif get_origin(kind) is tuple:
            for item in get_args(kind):
                yield from parts_in(item)


def tag_of(part: type[Part]) -> tuple[str, tuple[str, ...]] | None:
    """The discriminator of a part (`layer` or `source`) and its values; None if it has none."""
    for name in TAGS:
        field = part.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return name, get_args(field.annotation)
    return None


def takes_only_text(annotation: object) -> bool:
    """Whether all values of a field are text or null."""
    kinds = [kind for kind, _ in members(annotation) if kind is not NoneType]
    return bool(kinds) and all(
        kind is str
        or (get_origin(kind) is Literal and all(isinstance(value, str) for value in get_args(kind)))
        for kind in kinds
    )


def takes_null(annotation: object) -> bool:
    """Whether a field may be null."""
    return any(kind is NoneType for kind, _ in members(annotation))


def describe_type(annotation: object, metadata: tuple[object, ...] = ()) -> str:
    """Describe a field's type, values and limits: `whole number above 0 or all`."""
    words = [_describe(kind, (*limits, *metadata)) for kind, limits in members(annotation)]
    return " or ".join(dict.fromkeys(words))


def _describe(kind: Any, limits: tuple[object, ...]) -> str:
    if get_origin(kind) is Literal:
        values = [str(value) for value in get_args(kind)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if items[-1] is not Ellipsis:
            return f"[{', '.join(describe_type(item) for item in items)}]"
        fewest = next((limit.min_length for limit in limits if isinstance(limit, MinLen)), 0)
        at_least = f", at least {fewest}" if fewest else ""
        tags = {tag[0] for part in parts_in(kind) if (tag := tag_of(part))}
        return f"list of {'layers' if 'layer' in tags else describe_type(items[0])}{at_least}"
    if get_origin(kind) is dict:
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, Part):
        return "mapping"
    bounds = " and ".join(word for limit in limits if (word := _bound(limit)))
    pattern = next(filter(None, (getattr(limit, "pattern", None) for limit in limits)), None)
    return " ".join(filter(None, [_WORDS[kind], bounds, f"of the form {pattern}" if pattern else ""]))


def _bound(limit: object) -> str:
    match limit:
        case Ge(ge=value):
            return f"at least {value}"
        case Gt(gt=value):
            return f"above {value}"
        case Le(le=value):
            return f"at most {value}"
        case Lt(lt=value):
            return f"below {value}"
    return ""
