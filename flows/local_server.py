"""A Prefect server and a worker on this machine, which run until `pixelmill down`."""

import ipaddress
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from pixelmill.flows.deployments import find_prefect_file, register_deployments
from pixelmill.flows.detached_processes import (
    ProcessMark,
    carrying,
    descendants,
    end_all,
    start_detached,
)
from pixelmill.flows.prefect_database import require_database
from pixelmill.flows.server_api import ServerApi, ServerUnavailableError
from pixelmill.flows.server_page import restrict_page
from pixelmill.flows.server_record import (
    ProcessName,
    ServerRecord,
    read_record,
    remove_record,
    server_folder,
    write_record,
)
from pixelmill.flows.server_settings import (
    FOLDER_VARIABLE,
    PAGE_FOLDER,
    describe_database,
    server_environment,
    sqlite_url,
    worker_environment,
)
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.storage import Location

POOL = "pixelmill"
SECRET = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105  # The name of a variable.
_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104  # Which `require_protection` permits with a password only.
_SECONDS_TO_START = 180.0
_SECONDS_TO_STOP = 15.0
_LOOKS_PER_SECOND = 4


@dataclass(frozen=True)
class ServerRequest:
    """What `pixelmill up` was asked for.

    Attributes:
        store: The store of the deployments; the server's files are in its local folder.
        home: The folder in which the worker runs the flows.
        host: The address that the server listens on.
        port: Its port.
        database: The SQLAlchemy URL of its database; SQLite in the server's folder if None.
    """

    store: Location
    home: Path
    host: str
    port: int
    database: str | None = None


@dataclass(frozen=True)
class RunningServer:
    """A server that responds, and its worker.

    Attributes:
        record: What runs.
        was_running: Whether both ran before.
        deployments: What was registered, `FLOW/DEPLOYMENT`.
        automations: The automations that were applied.
    """

    record: ServerRecord
    was_running: bool
    deployments: tuple[str, ...] = ()
    automations: tuple[str, ...] = ()


def start_server(request: ServerRequest, say: Callable[[str], None]) -> RunningServer:
    """Start what does not run yet: the server, then the worker; and register the deployments.

    Args:
        request: What to start.
        say: Called with one line for each step.

    Raises:
        RequestError: The port is in use, or the server would be open to a network without a password.
        WorkError: The server or the worker does not start; then what was started is ended again.
    """
    require_protection(request.host)
    folder = server_folder(request.store)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        before = read_record(request.store)
        alive = before.alive() if before else []
        if before and {"server", "worker"} <= set(alive):
            return RunningServer(before, was_running=True)
        with _ending_on_failure(request.store, alive):
            record = before if before and "server" in alive else _start_server(request, folder, say)
            api = ServerApi(record.api_url)
            say("registering the deployments")
            environment = worker_environment(folder, record.api_url, request.store, Path(record.home))
            registered = register_deployments(
                api, find_prefect_file(request.home), request.store, request.home, environment
            )
            automations = _apply_automations(environment)
            record = _start_worker(request.store, record, folder, environment, say)
    return RunningServer(record, False, registered.deployments, automations)


def stop_server(store: Location, say: Callable[[str], None]) -> tuple[ProcessName, ...]:
    """End the worker with its runs, then the server; nothing else. Returns what was ended, in order.

    Raises:
        RequestError: The record is malformed.
    """
    folder = server_folder(store)
    if not folder.is_dir():
        return ()
    with _lock(folder):
        record = read_record(store)
        if record is None:
            return ()
        alive = record.alive()[::-1]
        if "worker" in record.processes and "worker" not in alive:
            # It was killed, which its runs survive.
            for orphan in carrying(FOLDER_VARIABLE, str(folder.resolve())):
                end_all(orphan, (), _SECONDS_TO_STOP)
        # The server comes last, because the runs still report their end to it.
        for name in alive:
            say(f"ending the {name}")
            family = _end(record.processes[name])
            # Where other machines may have workers, a process ID does not say whose run it is.
            if name == "worker" and "server" in alive and _is_loopback(record.host):
                _report_ended_runs(ServerApi(record.api_url), family)
        remove_record(store)
    return tuple(alive)


def _end(process: ProcessMark) -> list[ProcessMark]:
    """End a process and all that it has started; returns those that were running."""
    family = descendants(process.pid) if process.is_alive() else []
    end_all(process, family, _SECONDS_TO_STOP)
    return [process, *family]


def _report_ended_runs(api: ServerApi, processes: list[ProcessMark]) -> None:
    """Set the runs of ended processes to Crashed, which those that were killed could not do themselves."""
    ended = {str(process.pid) for process in processes}
    state = {"type": "CRASHED", "name": "Crashed", "message": "ended by `pixelmill down`"}
    with suppress(ServerUnavailableError):
        unfinished = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        for run in api.every("flow_runs/filter", flow_runs=unfinished):
            if run["infrastructure_pid"] in ended:
                api.post(f"flow_runs/{run['id']}/set_state", state=state, force=True)


def require_protection(host: str) -> None:
    """Refuse to open a server without a password to a network.

    Raises:
        RequestError: The host is not a loopback address, and there is no password.
    """
    if _is_loopback(host) or os.environ.get(SECRET):
        return
    raise RequestError(
        f"`host` {host} without {SECRET}",
        "a password, because whoever reaches the server can run programs on its workers",
        f"Set it for the server and its clients, such as {SECRET}=admin:PASSWORD, or use 127.0.0.1.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _start_server(request: ServerRequest, folder: Path, say: Callable[[str], None]) -> ServerRecord:
    _require_free_port(request.host, request.port)
    # Local programs can use loopback where the server listens on all addresses; browsers, the machine's name.
    is_local = _is_loopback(request.host)
    reachable = "127.0.0.1" if is_local or request.host in _ALL_ADDRESSES else request.host
    shown = reachable if is_local else socket.gethostname()
    api_url = f"http://{reachable}:{request.port}/api"
    database = request.database or sqlite_url(folder)
    require_database(database)
    record = ServerRecord(
        api_url, request.host, request.port, describe_database(database), str(request.home), {}
    )
    shown_url = f"http://{shown}:{request.port}/api"
    environment = server_environment(folder, api_url, shown_url, database)
    command = [sys.executable, "-P", "-m", "prefect", "server", "start"]
    command += ["--host", request.host, "--port", str(request.port)]
    say(f"starting Prefect's server on port {request.port}")
    log = folder / "server.log"
    process = start_detached(command, log, environment, folder)
    record = replace(record, processes={"server": process})
    write_record(request.store, record)
    api = ServerApi(api_url, seconds=5)
    _wait_for(api.is_healthy, process.is_alive, "Prefect's server", log)
    restrict_page(folder / PAGE_FOLDER, shown_url)
    return record


def _start_worker(
    store: Location,
    record: ServerRecord,
    folder: Path,
    environment: dict[str, str],
    say: Callable[[str], None],
) -> ServerRecord:
    say("starting the worker")
    log = folder / "worker.log"
    api = ServerApi(record.api_url)
    known = {worker["id"]: worker["last_heartbeat_time"] for worker in _workers(api)}
    process = start_detached(worker_command(), log, environment, Path(record.home))
    record = replace(record, processes={**record.processes, "worker": process})
    write_record(store, record)

    def has_reported() -> bool:
        return any(known.get(worker["id"]) != worker["last_heartbeat_time"] for worker in _workers(api))

    _wait_for(has_reported, process.is_alive, "the worker", log)
    return record


def worker_command() -> list[str]:
    """The command of the worker: pixelmill's own, which first looks for runs that a crash left behind."""
    return [sys.executable, "-P", "-m", "pixelmill.flows.entry", "worker", "--pool", POOL]


def _apply_automations(environment: dict[str, str]) -> tuple[str, ...]:
    """Create or update pixelmill's automations on the server, in a process with these settings."""
    from pixelmill.flows.server_settings import run_with_settings

    return tuple(run_with_settings("pixelmill.flows.automations:apply_automations", environment))


def _workers(api: ServerApi) -> list[dict[str, str]]:
    found: list[dict[str, str]] = api.post(f"work_pools/{POOL}/workers/filter")
    return found


def _wait_for(is_ready: Callable[[], bool], is_alive: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not is_ready():
        if not is_alive() or time.monotonic() > deadline:
            ended = "has ended" if not is_alive() else f"did not respond in {_SECONDS_TO_START:.0f} s"
            raise WorkError(
                f"{what} {ended} ({_last_line(log)})",
                "a process that responds",
                f"Read {log}, correct what it says, and run the command again.",
            )
        time.sleep(1 / _LOOKS_PER_SECOND)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _require_free_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RequestError(
                f"`port` {port} of {host}, which cannot be used ({error.strerror})",
                "a free port of this machine",
                "Choose another with `port`, or end the program that uses it.",
            ) from error


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"{folder}, in which another `pixelmill up` or `pixelmill down` is at work",
            "one at a time",
            "Wait until it has ended.",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ending_on_failure(store: Location, before: list[ProcessName]) -> Iterator[None]:
    """If the block fails or is interrupted, end the processes that it started."""
    try:
        yield
    except BaseException:
        with suppress(RequestError):
            record = read_record(store)
            started = [name for name in record.processes if name not in before] if record else []
            for name in reversed(started):
                if record:
                    _end(record.processes[name])
            if record and not before:
                remove_record(store)
        raise
