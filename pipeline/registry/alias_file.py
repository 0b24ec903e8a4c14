"""Reading and changing a model's `aliases.json`: the version that each alias points to, and its history."""

import json
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pixelmill.pipeline.artifacts import now, read_content
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.registry.places import model_folder
from pixelmill.pipeline.storage import Location, change_file

_ALIASES_FILE = "aliases.json"
_MAX_FILE_SIZE = 64 * 2**20
T = TypeVar("T")


class Aliases(BaseModel):
    """The version that each alias points to, and its earlier versions, the latest last."""

    aliases: dict[str, int] = {}
    history: dict[str, list[int]] = {}


def read_aliases(store: Location, name: str) -> Aliases:
    """Read the aliases of a model.

    Raises:
        RequestError: The file is malformed.
    """
    path = model_folder(store, name) / _ALIASES_FILE
    try:
        content = read_content(path, _MAX_FILE_SIZE) if path.exists() else None
    except OSError as error:
        raise _malformed(path) from error
    return _parse(path, content)


def change_aliases(store: Location, name: str, change: Callable[[Aliases], T]) -> T:
    """Change a model's aliases with a function while no other process does, and return its result.

    In a remote store, the function is called again if another process changed the aliases first.

    Raises:
        RequestError: The file is malformed.
    """
    path = model_folder(store, name) / _ALIASES_FILE
    returned: list[T] = []

    def rewrite(before: bytes | None) -> bytes | None:
        content = _parse(path, before)
        pointing = dict(content.aliases)
        returned.append(change(content))
        if content.aliases == pointing:
            return None
        return (json.dumps({**content.model_dump(), "changed_at": now()}, indent=2) + "\n").encode()

    change_file(path, rewrite, _MAX_FILE_SIZE)
    return returned[-1]


def _parse(path: Location, content: bytes | None) -> Aliases:
    if content is None:
        return Aliases()
    try:
        return Aliases.model_validate_json(content)
    except ValidationError as error:
        raise _malformed(path) from error


def _malformed(path: Location) -> RequestError:
    return RequestError(
        f"{path} does not contain valid aliases",
        'an object such as {"aliases": {"champion": 1}, "history": {}}',
        "Restore it from a copy, or remove it and promote a version.",
    )
