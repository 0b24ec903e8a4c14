"""The record of the server and the worker that `pixelmill up` started: `server/record.json` of a store."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pixelmill.flows.detached_processes import ProcessMark
from pixelmill.flows.server_api import ServerApi
from pixelmill.pipeline.artifacts import read_json, remove_file, write_json
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import Location, workspace

_FILE = "record.json"
ProcessName = Literal["server", "worker"]


@dataclass(frozen=True)
class ServerRecord:
    """What was started, and where.

    Attributes:
        api_url: The address of the API.
        host: The address that the server listens on.
        port: Its port.
        database: A description of the database, without a password.
        home: The working folder of the worker's runs.
        processes: The processes by name, in the order in which they were started.
    """

    api_url: str
    host: str
    port: int
    database: str
    home: str
    processes: dict[ProcessName, ProcessMark]

    def alive(self) -> list[ProcessName]:
        """The names of the processes that run."""
        return [name for name, process in self.processes.items() if process.is_alive()]


_RECORD = TypeAdapter(ServerRecord)


def server_folder(store: Location) -> Path:
    """The local folder of a store's server: its record, its logs, and Prefect's home with the database."""
    return workspace(store) / "server"


def read_record(store: Location) -> ServerRecord | None:
    """What was started for a store; None if nothing was, or it was stopped.

    Raises:
        RequestError: The record is malformed.
    """
    path = server_folder(store) / _FILE
    if not path.exists():
        return None
    content = read_json(path)
    try:
        return _RECORD.validate_python(content)
    except ValidationError as error:
        raise RequestError(
            f"{path} does not say which processes were started",
            "a record written by `pixelmill up`",
            "End the processes of Prefect's server and worker yourself, and remove the file.",
        ) from error


def write_record(store: Location, record: ServerRecord) -> None:
    """Write the record; before, what it names can be found only by its port."""
    write_json(server_folder(store) / _FILE, asdict(record))


def remove_record(store: Location) -> None:
    """Forget what was started."""
    remove_file(server_folder(store) / _FILE)


def find_server(store: Location) -> ServerApi | None:
    """The server of PREFECT_API_URL, or else the one that was started for a store; None without either.

    Raises:
        RequestError: The record is malformed.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return ServerApi(url)
    record = read_record(store)
    return ServerApi(record.api_url) if record else None
