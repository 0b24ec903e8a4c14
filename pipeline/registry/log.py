"""The log of a model: every move of an alias, and every version that a gate refused.

`models/NAME/log/00000001.json` is the first entry, and no entry is ever changed. An alias moves in the same
write that puts its entry into `aliases.json`, from where it is copied to a file of its own; the next write
copies it if the process was killed in between. So no move is without an entry, and no entry is lost.
"""

import getpass
import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelmill.pipeline.artifacts import now, write_text
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.registry.places import model_folder
from pixelmill.pipeline.storage import Location, children, read_content

Action = Literal["promoted", "rolled back", "refused"]
_FOLDER = "log"
_MAX_FILE_SIZE = 2**20


class LogEntry(BaseModel):
    """One line of the log.

    Attributes:
        at: The time in UTC, ISO 8601.
        alias: The alias that moved, or that a refused version was to get.
        before: The version that the alias pointed to; None for none. In JSON, `from`.
        to: The version that it points to now, or the refused version.
        action: What happened.
        by: The run or the user.
        reason: Why.
        tested_on: SHA-256 of the contents of the test images that decided; None if none did.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    at: str = Field(default_factory=now)
    alias: str
    before: int | None = Field(alias="from")
    to: int
    action: Action
    by: str
    reason: str
    tested_on: str | None = None

    def to_json(self) -> str:
        """The entry as one line."""
        return self.model_dump_json(by_alias=True)


def user_name() -> str:
    """The name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run under a number without a name.
        return f"user {os.getuid()}"


def write_entry(store: Location, name: str, number: int, entry: LogEntry) -> None:
    """Write an entry to its file; another process may write the same one at the same time."""
    path = log_folder(store, name) / f"{number:08d}.json"
    if not path.exists():
        write_text(path, entry.to_json() + "\n")


def read_entries(store: Location, name: str) -> dict[int, LogEntry]:
    """The entries that have a file of their own, by number.

    Raises:
        WorkError: A file is not an entry.
    """
    folder = log_folder(store, name)
    if not folder.exists():
        return {}
    entries = {}
    for path in sorted(children(folder), key=lambda path: path.name):
        if path.suffix == ".json" and path.stem.isdecimal():
            entries[int(path.stem)] = _read(path)
    return entries


def log_folder(store: Location, name: str) -> Location:
    """The folder of a model's log."""
    return model_folder(store, name) / _FOLDER


def _read(path: Location) -> LogEntry:
    try:
        return LogEntry.model_validate_json(read_content(path, _MAX_FILE_SIZE))
    except ValidationError as error:
        raise WorkError(
            f"{path} is not an entry of a log",
            "an object with at, alias, from, to, action, by and reason",
            "Restore the file from a copy.",
        ) from error
