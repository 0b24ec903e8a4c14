"""The store's exclusion list: contents that no later model may be trained, validated or tested on."""

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelmill.pipeline.artifacts import canonical_json, now, read_content
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import Location, change_file

EXCLUSIONS_FILE = "excluded_images.json"
_MAX_FILE_SIZE = 256 * 2**20


class _Entry(BaseModel):
    """When a content was excluded, in UTC, ISO 8601, and by whom."""

    at: str
    by: str


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    images: dict[str, _Entry] = Field(default={})


@dataclass(frozen=True)
class Exclusions:
    """The contents on an exclusion list, as SHA-256 in hexadecimal."""

    contents: frozenset[str] = frozenset()

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self.contents

    @cached_property
    def sha256(self) -> str:
        """A hash of the list, in hexadecimal."""
        return hashlib.sha256(canonical_json(sorted(self.contents)).encode()).hexdigest()

    def describe(self, left_out: int) -> dict[str, Any]:
        """The entry of a manifest of data without these contents; empty for an empty list.

        Args:
            left_out: Number of images of the dataset that were left out.
        """
        if not self.contents:
            return {}
        return {"listed": len(self.contents), "list_sha256": self.sha256, "left_out": left_out, "present": 0}


def read_exclusions(store: Location) -> Exclusions:
    """The exclusion list of a store; empty without one.

    Raises:
        RequestError: The file is malformed.
    """
    path = store / EXCLUSIONS_FILE
    content = read_content(path, _MAX_FILE_SIZE) if path.exists() else None
    return Exclusions(frozenset(_parse(path, content).images))


def exclude_images(store: Location, contents: Collection[str], by: str) -> int:
    """Put contents on the exclusion list, and return how many were not on it yet.

    Raises:
        RequestError: The file is malformed.
    """

    def add(known: _List) -> int:
        new = set(contents) - set(known.images)
        known.images.update({sha256: _Entry(at=now(), by=by) for sha256 in sorted(new)})
        return len(new)

    return _change(store, add)


def readmit_images(store: Location, contents: Collection[str]) -> int:
    """Take contents off the exclusion list, and return how many were on it.

    Raises:
        RequestError: The file is malformed.
    """

    def drop(known: _List) -> int:
        return sum(known.images.pop(sha256, None) is not None for sha256 in set(contents))

    return _change(store, drop)


def _change(store: Location, change: Callable[[_List], int]) -> int:
    path = store / EXCLUSIONS_FILE
    changed = [0]

    def rewrite(before: bytes | None) -> bytes | None:
        known = _parse(path, before)
        changed[0] = change(known)
        return (json.dumps(known.model_dump(), indent=1) + "\n").encode() if changed[0] else None

    change_file(path, rewrite, _MAX_FILE_SIZE)
    return changed[0]


def _parse(path: Location, content: bytes | None) -> _List:
    try:
        return _List() if content is None else _List.model_validate_json(content)
    except ValidationError as error:
        raise RequestError(
            f"{path} ({' '.join(str(error.errors()[0]['msg']).split())})",
            "an exclusion list as `pixelmill forget` writes it",
            "Restore the file from a copy: without it, excluded images would be trained on.",
        ) from None
