"""Reading and changing a model's `aliases.json`: the version that each alias points to, and its history."""

import json
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pixelmill.pipeline.artifacts import now, read_content
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.registry.log import LogEntry, log_folder, read_entries, write_entry
from pixelmill.pipeline.registry.places import model_folder
from pixelmill.pipeline.storage import Location, change_file

_ALIASES_FILE = "aliases.json"
_MAX_FILE_SIZE = 64 * 2**20
T = TypeVar("T")


class Aliases(BaseModel):
    """The version that each alias points to, and its earlier versions, the latest last.

    `entries` is the number of entries in the log, and `entry` the last of them.
    """

    aliases: dict[str, int] = {}
    history: dict[str, list[int]] = {}
    entries: int = 0
    entry: LogEntry | None = None

    def add_entry(self, entry: LogEntry) -> None:
        """Add an entry to the log."""
        self.entries += 1
        self.entry = entry


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

    The function adds an entry to the log for what it changes; without one, nothing is written. In a remote
    store, it is called again if another process changed the aliases first.

    Raises:
        RequestError: The file is malformed.
    """
    path = model_folder(store, name) / _ALIASES_FILE
    returned: list[T] = []
    written: list[Aliases] = []

    def rewrite(before: bytes | None) -> bytes | None:
        content = _parse(path, before)
        number, last = content.entries, content.entry
        returned.append(change(content))
        if content.entries == number:
            return None
        if last is not None:
            write_entry(store, name, number, last)
        written.append(content)
        facts = content.model_dump(by_alias=True)
        return (json.dumps({**facts, "changed_at": now()}, indent=2) + "\n").encode()

    change_file(path, rewrite, _MAX_FILE_SIZE)
    if written and written[-1].entry is not None:
        write_entry(store, name, written[-1].entries, written[-1].entry)
    return returned[-1]


def read_log(store: Location, name: str) -> list[LogEntry]:
    """Every move of an alias of a model and every refusal, the first one first.

    Raises:
        RequestError: The aliases are malformed.
        WorkError: An entry is malformed or missing.
    """
    content = read_aliases(store, name)
    entries = read_entries(store, name)
    if content.entry is not None:
        entries[content.entries] = content.entry
    missing = [number for number in range(1, content.entries + 1) if number not in entries]
    if missing:
        raise WorkError(
            f"the log of {name} lacks entry {missing[0]} of {content.entries}",
            f"one file for each entry in {log_folder(store, name)}",
            "Restore the folder from a copy.",
        )
    return [entries[number] for number in sorted(entries)]


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
