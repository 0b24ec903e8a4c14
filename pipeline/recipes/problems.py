"""Validation errors of pydantic, translated into error messages for users."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.part import Part
from pixelmill.pipeline.recipes.annotations import parts_in, tag_of
from pixelmill.pipeline.recipes.fields import keys_ending_in
from pixelmill.pipeline.recipes.spelling import did_you_mean

_KEYED = ("extra_forbidden", "missing")
_Location = Sequence[int | str]


def explain_problem(error: ValidationError, origin: str) -> RequestError:
    """Turn the first problem of a recipe into an error message.

    Args:
        error: The error of pydantic.
        origin: The name of the recipe in the message.
    """
    problems: Sequence[Any] = error.errors(include_url=False)
    # A misspelt key also leaves the correct one missing; the misspelling is the one to report.
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    key = _key_of(problem)
    if problem["type"] == "extra_forbidden":
        return _explain_unknown_key(problem["loc"], key, origin)
    if problem["type"] == "missing":
        return RequestError(
            f"recipe {origin}: {key} is missing",
            "a value for it",
            f"Add it to the recipe; `pixelmill recipes explain {_without_numbers(key)}` describes it.",
        )
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    # A check of several fields names the one to change.
    named = problem.get("ctx", {})
    key, received = named.get("key", key), named.get("value", problem["input"])
    return RequestError(
        f"recipe {origin}: {key} is {received!r:.200}",
        message[0].lower() + message[1:],
        _remedy(problem),
    )


def _explain_unknown_key(location: _Location, key: str, origin: str) -> RequestError:
    name = str(location[-1])
    known = sorted({field for part in _parts_at(location[:-1]) for field in part.model_fields})
    elsewhere = () if "layers" in location else keys_ending_in(name)
    hint = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else did_you_mean(name, known)
    return RequestError(
        f"recipe {origin}: unknown key {key}", f"one of {', '.join(known)}", hint or "Remove it."
    )


def _remedy(problem: Any) -> str:
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return 'Put text that looks like a number in quotes: "007".'
    if problem["type"] == "string_unicode":
        return "Rename the file or folder so that its name is valid UTF-8."
    return _nearest_value(problem) or "Correct the recipe or the override."


def _key_of(problem: Any) -> str:
    """The key of a problem, as used in overrides."""
    location: _Location = problem["loc"]
    parts = _all_parts(Recipe)
    # The location includes the discriminators of unions, which are not keys of the recipe.
    tags = {tag for part in parts for tag in _tags(part)}
    named = [step for i, step in enumerate(location) if not (step in tags and i < len(location) - 1)]
    # It also includes the member of a union of plain types that rejected the value.
    fields = {name for part in parts for name in part.model_fields}
    last = named[-1] if named else None
    if len(named) > 1 and isinstance(last, str) and named[-2] in fields and problem["type"] not in _KEYED:
        named = named[:-1] if last not in fields else named
    return ".".join(str(step) for step in named) or "the recipe"


def _without_numbers(key: str) -> str:
    """A key up to its first list index: all items are explained together."""
    return re.split(r"\.\d+", key)[0]


def _nearest_value(problem: Any) -> str:
    context = problem.get("ctx", {})
    known = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected") or ""))
    return did_you_mean(str(context.get("tag") or problem["input"]), known)


def _parts_at(location: _Location) -> list[type[Part]]:
    parts: list[type[Part]] = [Recipe]
    for step in location:
        if isinstance(step, int):
            continue
        fields = [part.model_fields[step] for part in parts if step in part.model_fields]
        if fields:
            parts = [found for field in fields for found in parts_in(field.annotation)]
        else:
            parts = [part for part in parts if step in _tags(part)] or parts
    return parts


def _all_parts(part: type[Part]) -> set[type[Part]]:
    found = {part}
    for field in part.model_fields.values():
        for inner in parts_in(field.annotation):
            found |= _all_parts(inner)
    return found


def _tags(part: type[Part]) -> tuple[str, ...]:
    tag = tag_of(part)
    return tag[1] if tag else ()
