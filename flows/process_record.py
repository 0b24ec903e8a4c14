"""The process of a flow run: a record of it in Prefect's home folder, and whether it still lives.

Prefect's server knows that a run is at work, but not whether its process still exists. The record tells: the
host, the boot of its system, the process, and when that process started, since numbers of processes are used
again. A server need not respond for it to be written.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.errors import RequestError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RUN_VARIABLE = b"PREFECT__FLOW_RUN_ID="
_START_TIME = 19
"""The place of the start time among the fields of `/proc/PID/stat` after the name; see proc(5)."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process of a host.

    Attributes:
        host: The name of the host.
        boot: The identifier of the system's boot; empty where the system has none.
        pid: The number of the process.
        started: When it started, in clock ticks since the boot; 0 where the system does not tell.
    """

    host: str
    boot: str
    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessRecord":
        """The record of a process of this host."""
        return cls(socket.gethostname(), _boot(), pid, _started(pid) or 0)

    @property
    def is_of_this_host(self) -> bool:
        """Whether it belongs to this host."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether the process of this host still exists, and is not another one with the same number."""
        return self.boot == _boot() and _started(self.pid) == self.started


_RECORD = TypeAdapter(ProcessRecord)


def home() -> Path:
    """The folder for what pixelmill remembers of this host's flow runs and workers."""
    from prefect.settings import PREFECT_HOME

    return Path(PREFECT_HOME.value()) / "pixelmill"


def write_record(flow_run: str) -> None:
    """Record that this process runs a flow run."""
    path = _path(flow_run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, vars(ProcessRecord.of(os.getpid())))


def read_record(flow_run: str) -> ProcessRecord | None:
    """The record of a flow run; None if none was written, or it cannot be read."""
    try:
        return _RECORD.validate_python(read_json(_path(flow_run)))
    except (RequestError, ValidationError):
        return None


def remove_records_except(flow_runs: set[str]) -> None:
    """Remove the records of processes that ended, except those of the given flow runs."""
    for path in (home() / "flow-runs").glob("*.json"):
        record = read_record(path.stem)
        if path.stem not in flow_runs and (record is None or not record.is_alive):
            path.unlink(missing_ok=True)


def flow_runs_of_processes() -> Iterator[str]:
    """The flow runs that processes of this user were started for by a worker, from their environment."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue  # Another user's process, or one that has ended.
        for variable in variables:
            if variable.startswith(_RUN_VARIABLE):
                yield variable.removeprefix(_RUN_VARIABLE).decode(errors="replace")


def _path(flow_run: str) -> Path:
    return home() / "flow-runs" / f"{flow_run}.json"


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """The start time of a process; 0 if it exists but the system does not tell, None if it has ended."""
    try:
        # The name, in parentheses, may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None if _BOOT_ID.exists() else _exists(pid)
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[_START_TIME])


def _exists(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
